"""Evaluated runs, made once for all tests of the reports."""

from __future__ import annotations

import pytest

from components.report import page
from components.report.evidence import Evidence, collect
from tests.support import report_help
from tests.support.report_help import Studio


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return report_help.binary(tmp_path_factory.mktemp("binary"))


@pytest.fixture(scope="session")
def subtype(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return report_help.subtype(tmp_path_factory.mktemp("subtype"))


@pytest.fixture(scope="session")
def poor(binary: Studio) -> Evidence:
    """What is known of the refused run."""
    return collect(binary.storage, "runs/idc/binary/poor")


@pytest.fixture(scope="session")
def poor_page(poor: Evidence) -> str:
    """Its page."""
    return page.render(poor)


@pytest.fixture(scope="session")
def types(subtype: Studio) -> Evidence:
    """What is known of the run on eight types."""
    return collect(subtype.storage, "runs/breakhis/subtype/types")
