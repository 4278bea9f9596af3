"""Fixtures shared by all tiers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.predict_help import Untrained

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


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    """Small data sets with exported models that nobody trained, by data set and options of the ingest."""
    from tests.support.predict_help import Untrained

    return Untrained(tmp_path_factory.mktemp("untrained"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spreads whole modules where `--dist loadfile` is asked for."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.support.spreading import ModulesTogether

    return ModulesTogether(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Lets the longest modules begin first where tests are spread."""
    if hasattr(config, "workerinput"):
        from tests.support.spreading import place

        items.sort(key=lambda item: place(item.nodeid))
