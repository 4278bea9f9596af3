"""Which champion may stand beside a candidate in TFMA, and models where TFX's components look for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from components.promotion import champion as champions
from components.promotion import version_digests
from pipelines.tfx import baseline
from tests.support import report_help
from tests.support.report_help import Studio

pytestmark = pytest.mark.integration

CLASSES = ("negative", "idc")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A workspace whose champion is a stub with a SavedModel of nothing."""
    return report_help.binary(tmp_path_factory.mktemp("baseline"))


@pytest.fixture
def version(studio: Studio) -> Path:
    """Folder of the champion, as one from before versions had digests: its files are replaced here."""
    champion = champions.load(studio.storage, "models/idc/binary")
    assert champion is not None
    folder = studio.root / "models/idc/binary" / str(champion.current.version)
    (folder / version_digests.NAME).unlink(missing_ok=True)
    return folder


def choose(studio: Studio, home: Path, classes: tuple[str, ...] = CLASSES, dataset: str = "idc") -> baseline.Baseline:
    return baseline.choose(studio.storage, dataset, "binary", classes, home)


def signature(folder: Path, dtype: str = "DT_STRING", output: str = "probability", dims: int = 1) -> None:
    """Writes a SavedModel that has nothing but its signature."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    told = saved.meta_graphs.add().signature_def["serving_default"]
    told.inputs["examples"].dtype = types_pb2.DataType.Value(dtype)
    for _ in range(dims):
        told.outputs[output].tensor_shape.dim.add().size = -1
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


def test_the_first_run_has_none(studio: Studio, tmp_path: Path) -> None:
    assert choose(studio, tmp_path, dataset="pcam") == baseline.Baseline(reason="nothing was promoted before")


def test_another_question_is_no_comparison(studio: Studio, version: Path, tmp_path: Path) -> None:
    assert "its classes are negative, idc" in choose(studio, tmp_path, ("idc", "negative")).reason
    assert "can't be read" in choose(studio, tmp_path).reason, "a stub"
    for wrong, said in (
        ({"dtype": "DT_FLOAT"}, "does not map serialised Examples"),
        ({"output": "scores"}, "does not map serialised Examples"),
        ({"dims": 2}, "2 dimensions"),
    ):
        signature(version, **wrong)  # type: ignore[arg-type]
        found = choose(studio, tmp_path)
        assert found.folder == "" and found.version == int(version.name) and said in found.reason
    assert not list(tmp_path.iterdir())


def test_it_is_named_by_its_content_and_linked(studio: Studio, version: Path, tmp_path: Path) -> None:
    signature(version)
    found = choose(studio, tmp_path)
    assert found.reason == "" and Path(found.folder).parent == tmp_path
    placed = Path(found.folder) / baseline.SERVING
    assert os.path.samefile(placed / "saved_model.pb", version / "saved_model.pb")
    assert choose(studio, tmp_path) == found
    facts = version / "assets.extra" / "other"
    facts.write_text("other content")
    try:
        assert choose(studio, tmp_path).folder not in ("", found.folder)
    finally:
        facts.unlink()


def test_a_version_that_is_gone_is_told(studio: Studio, version: Path, tmp_path: Path) -> None:
    shutil.move(version, tmp_path / "away")
    try:
        found = choose(studio, tmp_path / "home")
        assert found.folder == "" and "is gone" in found.reason
    finally:
        shutil.move(tmp_path / "away", version)


def test_where_nothing_can_be_linked_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    (model / "variables" / "v").write_text("weights")

    def across_file_systems(source: str, target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(baseline.os, "link", across_file_systems)
    baseline.place(model, tmp_path / "artifact")
    assert (tmp_path / "artifact" / baseline.SERVING / "variables" / "v").read_text() == "weights"
    assert [path.name for path in (tmp_path / "artifact").iterdir()] == [baseline.SERVING]
