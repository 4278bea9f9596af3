"""Tests of the DAGs: they run in the Airflow environment (`make test` starts them), on a database of their own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

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
