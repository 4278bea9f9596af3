"""Runs, users and facts for tests of the report pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

RUN = "manual__2026-11-21T10:00:00+00:00"


def user(role: str | None) -> Any:
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return SimpleAuthManagerUser(username=role or "nobody", role=role)


def facts(dag_id: str = "idc_train", state: str = "success", tasks: Any = None, results: Any = None) -> Any:
    from histoline_pages.facts import DagRunFacts

    return DagRunFacts(dag_id, RUN, state, tasks or {}, results or {})


def tab(client: Any, dag_id: str = "idc_train", run_id: str = RUN) -> Any:
    return client.get(f"/dag-run/{quote(dag_id, safe='')}/{quote(run_id, safe='')}")


def write_run(workspace: Path, dag_id: str = "idc_train", run_id: str = RUN, **changes: Any) -> Path:
    from histoline_dags.ids import run_id as pipeline_run_id

    name = pipeline_run_id(dag_id, run_id)
    folder = workspace / "runs" / "idc" / "binary" / name
    folder.mkdir(parents=True)
    record = {
        "run_id": name, "dataset": "idc", "task": "binary", "state": "done", "stage": "report", "decision": "promoted",
        "reason": "Promoted as the first model.", "error": None, "created": "2026-11-21T10:00:00+00:00",
        "stages": {"train": {"state": "done", "seconds": 12.3}}, "group_unit": "patient", "paths": {},
        "metrics": {"test": {"patches": 2385, "groups": 30, "values": {
            "auc": {"estimate": 0.98, "low": 0.97, "high": 0.99}}}},
        **changes,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder
