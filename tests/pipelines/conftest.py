"""Evaluated runs without TensorFlow, made once for all tests of the commands that read them."""

from __future__ import annotations

import pytest

from tests.support import report_help
from tests.support.report_help import Studio


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A workspace with the runs `good`, promoted, and `poor`, refused; copy it before changing anything."""
    return report_help.binary(tmp_path_factory.mktemp("evaluated"))
