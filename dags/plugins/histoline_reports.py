"""Airflow plugin: a Report tab on every DAG run, and an index of runs in the Browse menu."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/histoline"

# The pages share `histoline_dags` with the DAGs; Airflow puts this folder on the path, but not theirs.
for _folder in (Path(__file__).parents[1], Path(__file__).parent):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))


class _Pages:
    """The web application, built at its first request: every Airflow process imports plugins, one serves pages."""

    def __init__(self) -> None:
        self._app: Callable[..., Awaitable[None]] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if self._app is None:
            from histoline_pages.app import build_app

            self._app = build_app()
        await self._app(scope, receive, send)


class HistolineReports(AirflowPlugin):
    """What Airflow finds."""

    name = "histoline_reports"
    fastapi_apps = [{"app": _Pages(), "url_prefix": PREFIX, "name": "histoline reports"}]
    external_views = [
        {
            "name": "Report",
            "href": f"{PREFIX}/dag-run/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "histoline-report",
        },
        {
            "name": "Model reports",
            "href": f"{PREFIX}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "histoline-reports",
        },
    ]
