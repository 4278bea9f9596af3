"""Airflow plugin: a Report tab on every DAG run, an index of runs in the Browse menu, and the timetable of training."""

from __future__ import annotations

import os
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

from histoline_dags.formats import teach_all  # noqa: E402  (found through the folders above)
from histoline_dags.settings import data_roots  # noqa: E402
from histoline_dags.timetable import CronOrUntrained  # noqa: E402

teach_all(Path(__file__).parents[1] / "catalog.json", data_roots(os.environ))


TRIGGERER = (
    "Triggerer is red below because none runs: no Dag here needs one. What trainings have done stands in "
    "**Browse → Model reports**, and in the Report tab of each run."
)


def explain_home_page() -> None:
    """Says on Airflow's home page what its red badge means."""
    from airflow import settings
    from airflow.api_fastapi.common.types import UIAlert

    settings.DASHBOARD_UIALERTS.append(UIAlert(text=TRIGGERER, category="info"))


if "api-server" in sys.argv:  # the one process that shows pages
    explain_home_page()


class _Pages:
    """The web application, built at its first request: every Airflow process imports plugins, one serves pages."""

    def __init__(self) -> None:
        self._app: Callable[..., Awaitable[None]] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if self._app is None:
            from histoline_pages.app import build_app

            self._app = build_app()
        await self._app(scope, receive, send)


class PageHeaders:
    """Middleware around all of Airflow's pages: no page of another origin may frame them (ASGI).

    An answer that says something itself, as the report pages do, keeps what it says.

    Args:
        app: What answers.
    """

    headers = (
        (b"x-frame-options", b"SAMEORIGIN"),
        (b"content-security-policy", b"frame-ancestors 'self'"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
    )

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answers, with the headers."""

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message.get("headers", ())}
                added = [(name, value) for name, value in self.headers if name not in present]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class HistolineReports(AirflowPlugin):
    """What Airflow finds."""

    name = "histoline_reports"
    timetables = [CronOrUntrained]
    fastapi_apps = [{"app": _Pages(), "url_prefix": PREFIX, "name": "histoline reports"}]
    fastapi_root_middlewares = [{"middleware": PageHeaders, "args": [], "kwargs": {}, "name": "histoline page headers"}]
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
