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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps a module's tests in one process, so that what they share is made once; modules that take long begin first.

    Modules that share what is made once per session name a group of their own (`pytest.mark.xdist_group`).
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    slow = {_group(item) for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: _group(item) not in slow)


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else ""
