"""Tests of the DAGs: they run in the Airflow environment (`make test` starts them), on a database of their own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("airflow") is None:
    pytest.exit("These tests run in Airflow's environment: `make test-dags`.", returncode=4)

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"

# Airflow reads its configuration when it is first imported, so this stands before every other import.
_HOME = Path(tempfile.mkdtemp(prefix="histoline-airflow-tests-"))
for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "HISTOLINE_"))]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW_HOME": str(_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(DAGS / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
}
for _path in (DAGS, DAGS / "plugins"):
    sys.path.insert(0, str(_path))


from world import hook, world  # noqa: E402, F401  (fixtures)


def pytest_sessionfinish() -> None:
    """Leaves nothing behind."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def database() -> Path:
    """Airflow's metadata, migrated once; a test asks for it where runs are made.

    Returns:
        AIRFLOW_HOME.
    """
    from airflow.utils import db

    db.initdb()
    return _HOME


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace that the pages serve, empty."""
    root = tmp_path / "workspace"
    root.mkdir()
    monkeypatch.setenv("HISTOLINE_WORKSPACE", str(root))
    return root


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Any]:
    """DAG runs that Airflow knows; a test adds its own."""
    from histoline_dags.ids import run_id as pipeline_run_id
    from histoline_pages import app

    runs: dict[tuple[str, str], Any] = {}
    monkeypatch.setattr(app, "look_up", lambda dag_id, run_id: runs.get((dag_id, run_id)))
    monkeypatch.setattr(app, "runs_under_way", lambda: frozenset(
        pipeline_run_id(*names) for names, run in runs.items() if run.state in ("queued", "running")
    ))  # fmt: skip
    return runs


@pytest.fixture
def client(workspace: Path, database: Path) -> Iterator[Any]:
    """Pages as a logged-in viewer sees them."""
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi.testclient import TestClient
    from page_help import user

    from histoline_pages.app import build_app

    create_auth_manager()
    app = build_app()
    app.dependency_overrides[get_user] = lambda: user("viewer")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client
