"""run.json: frozen facts, merged changes, stages that record how they ended."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from components.core import json_documents
from components.errors import DataError, UsageError
from components.storage.open import open_storage
from components.training import run_record as r
from components.training.run_types import Failure, GateRecord, LookCount, RunRecord, StageEntry
from schemas import load_json
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
    assert r.read(storage, FOLDER) == made and made.decision is None
    r.update(storage, FOLDER, timings={"a": 1.0}, warnings=["w"], history={"loss": [np.float32(0.5), float("nan")]})
    record = r.update(storage, FOLDER, timings={"b": np.float64(2)}, warnings=["w", "v"], epochs_run=np.int64(3))
    stored = r.read(storage, FOLDER)
    assert stored.timings == {"a": 1.0, "b": 2.0} and stored.warnings == ("w", "v")
    assert stored.history == {"loss": [0.5, None]} and stored.epochs_run == 3
    assert stored.digests == {"source": "ab"} and record.run_id == "run-1"


def test_what_breaks_the_schema_is_never_written(storage):
    create(storage)
    no_look = {"looks": {"count": 0, "test_digest": ""}}
    for change in ({"decision": "maybe"}, {"surprise": 1}, {"warnings": [1]}, no_look):
        with pytest.raises(ValueError, match="run.schema.json"):
            r.update(storage, FOLDER, **change)
    assert r.read(storage, FOLDER).decision is None


def test_a_run_id_is_unique_in_the_workspace(storage):
    create(storage)
    create(storage)
    with pytest.raises(UsageError, match="exists already"):
        create(storage, "runs/breakhis/subtype/run-1")
    assert r.find_run(storage, "run-1") == FOLDER and r.find_run(storage, "run-2") is None


def test_missing_damaged_and_newer_files(storage):
    with pytest.raises(UsageError, match="There is no run"):
        r.read(storage, FOLDER)
    record = create(storage).to_document()
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
        assert r.read(storage, FOLDER).stages["validate"].state == "running"
    record = r.read(storage, FOLDER)
    assert r.is_done(record, "validate", "abc") and not r.is_done(record, "validate", "abd")
    assert not r.is_done(record, "train", "abc") and record.state == "running"
    for error, code in ((DataError("colour drift", "Accept it."), 65), (KeyError("x"), 70), (KeyboardInterrupt(), 70)):
        with pytest.raises(type(error)), r.stage(storage, FOLDER, "train"):
            raise error
        record = r.read(storage, FOLDER)
        assert (record.state, record.stage, record.error.exit_code) == ("failed", "train", code)
        assert record.error.message
    with r.stage(storage, FOLDER, "report"):
        assert r.read(storage, FOLDER).error is None
    assert r.read(storage, FOLDER).state == "done"


def test_plain_values():
    given = {1: np.arange(2), "a": {"c", "b"}, "n": float("inf"), "t": (1, np.bool_(True))}
    assert json_documents.plain(given) == {"1": [0, 1], "a": ["b", "c"], "n": None, "t": [1, True]}


def json_types(kind: Any) -> set[str]:
    """Names that JSON Schema has for what an annotation allows."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return set().union(*(json_types(part) for part in parts))
    if origin is typing.Literal:
        return set().union(*(json_types(type(value)) for value in parts))
    if origin is tuple:
        return {"array"}
    if origin is Mapping or dataclasses.is_dataclass(kind):
        return {"object"}
    return {{str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}[kind]}


def allowed(rule: dict[str, Any]) -> set[str]:
    """The same for a property of the schema."""
    if "const" in rule:
        return json_types(type(rule["const"]))
    if "enum" in rule:
        return set().union(*(json_types(type(value)) for value in rule["enum"]))
    given = rule["type"]
    return {given} if isinstance(given, str) else set(given)


def choices(kind: Any) -> set[Any]:
    """What the literals of an annotation name."""
    if typing.get_origin(kind) is typing.Literal:
        return set(typing.get_args(kind))
    literals = [part for part in typing.get_args(kind) if typing.get_origin(part) is typing.Literal]
    return set().union(*(typing.get_args(part) for part in literals), {None}) if literals else set()


def agree(kind: type, schema: dict[str, Any]) -> None:
    """A type has the properties of a schema, of the same types and with the same choices."""
    hints = typing.get_type_hints(kind)
    assert set(hints) == set(schema["properties"]) and schema["additionalProperties"] is False
    for name, rule in schema["properties"].items():
        assert json_types(hints[name]) == allowed(rule), name
        assert choices(hints[name]) == set(rule.get("enum", ())), name


def test_types_and_schema_say_the_same():
    schema = dict(load_json("run.schema.json"))
    # The seal is the file's, not the record's.
    schema["properties"] = {k: v for k, v in schema["properties"].items() if k != json_documents.SEAL}
    agree(RunRecord, schema)
    # What came later is optional, so that older files can still be read: then the type has a default.
    optional = set(schema["properties"]) - set(schema["required"])
    assert optional == {"bias", "threshold_note", "patient_level", "selective", "decision_by", "folds", "drawn"}
    missing = dataclasses.MISSING
    plain = {f.name for f in dataclasses.fields(RunRecord) if f.default is missing and f.default_factory is missing}
    assert not optional & plain
    agree(StageEntry, schema["properties"]["stages"]["additionalProperties"])
    agree(Failure, schema["properties"]["error"])
    agree(LookCount, schema["properties"]["looks"])
    agree(GateRecord, schema["properties"]["gate"])


def test_a_record_comes_back_as_the_same_bytes(storage):
    create(storage, options={"accept_drift": "new scanner"})
    with pytest.raises(KeyError), r.stage(storage, FOLDER, "train", inputs="ab"):
        raise KeyError("x")
    r.update(storage, FOLDER, looks=LookCount(2, "c", 5, 9), threshold=0.5, slices=[{"by": "a", "value": "b"}])
    data = storage.read_bytes(f"{FOLDER}/run.json")
    record = r.read(storage, FOLDER)
    assert record.looks == LookCount(2, "c", 5, 9) and record.error is not None and record.error.exit_code == 70
    assert json_documents.dump(record.to_document(), r.SCHEMA) == data
    assert RunRecord.from_document(json.loads(data)) == record
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.decision = "promoted"


def test_an_edited_record_is_noticed(storage):
    create(storage)
    document = json.loads(storage.read_bytes(f"{FOLDER}/run.json"))
    assert r.read(storage, FOLDER)
    storage.write_atomic(f"{FOLDER}/run.json", json.dumps({**document, "decision": "promoted"}).encode())
    with pytest.raises(DataError, match=r"run\.json was edited"):
        r.read(storage, FOLDER)
    del document[json_documents.SEAL]  # of a file from before there were seals
    storage.write_atomic(f"{FOLDER}/run.json", json.dumps(document).encode())
    assert r.read(storage, FOLDER)
