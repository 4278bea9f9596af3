"""Models are found by champion, version, run or folder, and known by the same name in tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.core import json_documents
from components.errors import DataError, UsageError
from components.promotion import champion as champions
from components.promotion.find_model import champion_model, model_folder, named_model
from components.storage.open import open_storage

FACTS = {
    "dataset": "idc",
    "adapter": "idc",
    "task": "binary",
    "classes": ["negative", "idc"],
    "source_size": [50, 50],
    "stored_size": [50, 50],
    "threshold": 0.4,
}


def model(folder: Path, **changes) -> Path:
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "assets.extra" / "histoline.json").write_text(json.dumps({**FACTS, **changes}))
    (folder / "assets.extra" / "train_groups.json").write_text('["9000"]')
    return folder


def promote(workspace: Path, version: int, task: str = "binary", **changes) -> Path:
    folder = model(workspace / "models" / "idc" / task / str(version), **changes)
    entry = champions.Promotion(
        version=version, run_id=f"r{version}", promoted_by="hand", from_version=None, when=json_documents.now(),
        who="x", why="x", dataset_dir="datasets/idc/binary/p", plan_id="p", content_digest="c", group_unit="patient",
        group_key="", metric="auc", metrics={}, raises_best=False,
    )  # fmt: skip
    (folder / champions.PROMOTION).write_text(json.dumps(json_documents.plain(entry)))
    return folder


def test_the_champion_is_the_last_promoted(tmp_path):
    storage = open_storage(tmp_path)
    with pytest.raises(UsageError, match="No model of idc binary was promoted"):
        champion_model(storage, "idc", "binary")
    for version in (7, 9):
        promote(tmp_path, version, threshold=version / 10)
    found = champion_model(storage, "idc", "binary")
    assert (found.version, found.threshold, found.classes) == ("9", 0.9, ("negative", "idc"))
    assert (found.source_size, found.stored_size) == ((50, 50), (50, 50))
    assert found.train_groups() == frozenset({"9000"})
    assert found.uri == str(tmp_path / "models/idc/binary/9") and found.local() == tmp_path / "models/idc/binary/9"


def test_versions_and_runs_have_names(tmp_path):
    storage = open_storage(tmp_path)
    promote(tmp_path, 7)
    run = tmp_path / "runs" / "idc" / "binary" / "first"
    model(run / "model")
    (run / "run.json").write_text("{}")
    assert named_model(storage, "7").path == "models/idc/binary/7"
    assert named_model(storage, "first").version == "first"
    with pytest.raises(UsageError, match="no version and no run"):
        named_model(storage, "8")
    promote(tmp_path, 7, task="subtype")
    with pytest.raises(UsageError, match="idc/binary and models/idc/subtype"):
        named_model(storage, "7")


def test_a_folder_is_known_by_what_it_is(tmp_path):
    assert model_folder(str(promote(tmp_path, 7))).version == "7"
    model(tmp_path / "runs" / "first" / "model")
    by_run, by_model = (model_folder(str(tmp_path / "runs" / "first" / tail)) for tail in ("", "model"))
    assert by_run.version == by_model.version == "first" and by_run.uri == by_model.uri
    assert model_folder(f"{model(tmp_path / 'mine')}/").version == "mine"
    with pytest.raises(UsageError, match="holds no exported model"):
        model_folder(str(tmp_path))


@pytest.mark.parametrize("changes", [{"stored_size": None}, {"threshold": None}, {"classes": None}, {"adapter": ""}])
def test_a_model_that_lacks_facts_is_refused(tmp_path, changes):
    with pytest.raises(DataError, match="can't be used"):
        model_folder(str(model(tmp_path / "m", **changes)))


def test_the_digest_sees_every_file(tmp_path):
    first = model_folder(str(model(tmp_path / "m"))).digest
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"Graph")
    assert model_folder(str(tmp_path / "m")).digest != first
