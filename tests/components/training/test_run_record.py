"""run.json: frozen facts, merged changes, stages that record how they ended."""

from __future__ import annotations

import json

import numpy as np
import pytest

from components.core import json_documents
from components.errors import DataError, UsageError
from components.storage.open import open_storage
from components.training import run_record as r
from tests.support import manifests

FOLDER = "runs/idc/binary/run-1"
MANIFEST = manifests.manifest(manifest_digest="1" * 64)


@pytest.fixture
def storage(tmp_path):
    return open_storage(tmp_path)


def create(storage, folder: str = FOLDER, **more):
    return r.create(
        storage, folder, config={"model": "cnn_105k"}, dataset_dir="datasets/idc/binary/x", manifest=MANIFEST, **more
    )


@pytest.mark.parametrize("run_id", ["a", "A.b-c_9", "9" * 100])
def test_run_ids_that_are_allowed(run_id):
    assert r.run_dir("idc", "binary", run_id) == f"runs/idc/binary/{run_id}"


@pytest.mark.parametrize("run_id", ["", ".a", "-a", "a/b", "../x", "a b", "9" * 101, "é", "a\n"])
def test_run_ids_that_are_not(run_id):
    with pytest.raises(UsageError, match="is not a run id"):
        r.check_run_id(run_id)


def test_it_is_created_read_and_updated(storage):
    made = create(storage, options={"accept_drift": "new scanner"}, digests={"source": "ab"})
    assert r.read(storage, FOLDER) == made and made["decision"] is None
    r.update(storage, FOLDER, timings={"a": 1.0}, warnings=["w"], history={"loss": [np.float32(0.5), float("nan")]})
    record = r.update(storage, FOLDER, timings={"b": np.float64(2)}, warnings=["w", "v"], epochs_run=np.int64(3))
    stored = r.read(storage, FOLDER)
    assert stored["timings"] == {"a": 1.0, "b": 2.0} and stored["warnings"] == ["w", "v"]
    assert stored["history"] == {"loss": [0.5, None]} and stored["epochs_run"] == 3
    assert stored["digests"] == {"source": "ab"} and record["run_id"] == "run-1"


def test_what_breaks_the_schema_is_never_written(storage):
    create(storage)
    no_look = {"looks": {"count": 0, "test_digest": ""}}
    for change in ({"decision": "maybe"}, {"surprise": 1}, {"warnings": [1]}, no_look):
        with pytest.raises(ValueError, match="run.schema.json"):
            r.update(storage, FOLDER, **change)
    assert r.read(storage, FOLDER)["decision"] is None


def test_a_run_id_is_unique_in_the_workspace(storage):
    create(storage)
    create(storage)
    with pytest.raises(UsageError, match="exists already"):
        create(storage, "runs/breakhis/subtype/run-1")
    assert r.find_run(storage, "run-1") == FOLDER and r.find_run(storage, "run-2") is None


def test_missing_damaged_and_newer_files(storage):
    with pytest.raises(UsageError, match="There is no run"):
        r.read(storage, FOLDER)
    record = create(storage)
    for text in ("{", "[]", "null", json.dumps({**record, "state": "odd"}), json.dumps({**record, "format": "1"})):
        storage.write_atomic(f"{FOLDER}/run.json", text.encode())
        with pytest.raises(DataError):
            r.read(storage, FOLDER)
    storage.write_atomic(f"{FOLDER}/run.json", json.dumps({**record, "format": 2}).encode())
    with pytest.raises(UsageError, match="Upgrade"):
        r.read(storage, FOLDER)


def test_stages_record_how_they_ended(storage):
    create(storage)
    with r.stage(storage, FOLDER, "validate", inputs="abc"):
        assert r.read(storage, FOLDER)["stages"]["validate"]["state"] == "running"
    record = r.read(storage, FOLDER)
    assert r.is_done(record, "validate", "abc") and not r.is_done(record, "validate", "abd")
    assert not r.is_done(record, "train", "abc") and record["state"] == "running"
    for error, code in ((DataError("colour drift", "Accept it."), 65), (KeyError("x"), 70), (KeyboardInterrupt(), 70)):
        with pytest.raises(type(error)), r.stage(storage, FOLDER, "train"):
            raise error
        record = r.read(storage, FOLDER)
        assert (record["state"], record["stage"], record["error"]["exit_code"]) == ("failed", "train", code)
        assert record["error"]["message"]
    with r.stage(storage, FOLDER, "report"):
        assert r.read(storage, FOLDER)["error"] is None
    assert r.read(storage, FOLDER)["state"] == "done"


def test_plain_values():
    given = {1: np.arange(2), "a": {"c", "b"}, "n": float("inf"), "t": (1, np.bool_(True))}
    assert json_documents.plain(given) == {"1": [0, 1], "a": ["b", "c"], "n": None, "t": [1, True]}
