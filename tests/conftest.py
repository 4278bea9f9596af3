"""Fixtures shared by all tiers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine must not fail a law: no test is timed. Every run tries the same examples.
settings.register_profile("histoline", deadline=None, derandomize=True)
settings.load_profile("histoline")

ROOT = Path(__file__).resolve().parents[1]

# They run in the Airflow environment, which holds another Python: `make test` starts them too.
collect_ignore = ["dags"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real subsets of the three data sets; absent on a fresh machine."""
    folder = Path(os.environ.get("HISTOLINE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real subsets here: set HISTOLINE_SHARED_DATA to the folder that holds idc/, breakhis/, pcam/")
    return folder
