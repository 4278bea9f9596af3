"""What is made once for the tests of several commands: evaluated runs without TensorFlow, real models for the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import ingest_help, model_help, report_help
from tests.support.model_help import LoadedOnce, Workshop
from tests.support.report_help import Studio
from tests.support.train_help import Trained


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A workspace with the runs `good`, promoted, and `poor`, refused; copy it before changing anything."""
    return report_help.binary(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where raw images, data sets and models of the gate's tests are kept."""
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="session")
def idc(home: Path) -> ingest_help.Result:
    """The data set of the gate's tests."""
    return ingest_help.ingest(model_help.idc(home / "idc"), home / "made", ratios=(0.5, 0.2, 0.3))


@pytest.fixture(scope="session")
def loaded_once() -> LoadedOnce:
    """What has been loaded of the gate's models."""
    return LoadedOnce()


@pytest.fixture
def shop(
    tmp_path: Path, home: Path, idc: ingest_help.Result, loaded_once: LoadedOnce, monkeypatch: pytest.MonkeyPatch
) -> Workshop:
    """A workspace of the test's own, with models that are made once, and loaded once."""
    monkeypatch.setattr("tensorflow.saved_model.load", loaded_once)
    (home / "models").mkdir(exist_ok=True)
    return Workshop(tmp_path / "workspace", idc, home / "models")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One run, promoted by the real pipeline; copy the workspace before changing what others read."""
    made = Trained(tmp_path_factory.mktemp("train"))
    assert made.done.returncode == 0, made.done.stderr
    return made
