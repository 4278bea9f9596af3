"""latest.json: what it says comes back, damage is told, and only what truly stands unchanged is recognised."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from components.adapters.listing import fingerprint_folder
from components.datasets import latest_pointer as pointers
from components.datasets import manifest as manifests
from components.datasets.latest_pointer import LatestPointer, find_unchanged, read_latest, request_digest, write_latest
from components.errors import DataError, UsageError
from components.storage.base import Storage
from components.storage.open import open_storage
from schemas import load_json
from tests.support import schemas
from tests.support.manifests import manifest

HOME = "datasets/idc/binary"
FILE = f"{HOME}/latest.json"
MANIFEST = manifest(splits=dict.fromkeys(("train", "eval", "test"), manifests.SplitFacts(0, {}, {}, (), 0)), files={})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "w")


def test_type_and_schema_agree() -> None:
    assert schemas.differences(LatestPointer, pointers.SCHEMA) == []
    needed = {f.name for f in dataclasses.fields(LatestPointer) if f.default is dataclasses.MISSING}
    assert set(load_json(pointers.SCHEMA)["required"]) == needed


def test_what_is_written_is_read(storage: Storage) -> None:
    assert read_latest(storage, HOME) is None
    write_latest(storage, HOME, MANIFEST, "r", "f", [".tif", ".png"])
    assert read_latest(storage, HOME) == LatestPointer(
        f"{HOME}/{MANIFEST.plan_id}", MANIFEST.plan_id, MANIFEST.content_digest, "r", "f", (".png", ".tif")
    )
    assert storage.read_bytes(FILE).decode() == (
        '{\n "content_digest": "' + "0" * 64 + '",\n "dataset_dir": "datasets/idc/binary/0123456789abcdef",\n'
        ' "extensions": [\n  ".png",\n  ".tif"\n ],\n "fingerprint": "f",\n "plan_id": "0123456789abcdef",\n'
        ' "request": "r"\n}\n'
    )


def test_equal_facts_are_not_written_again(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    write_latest(storage, HOME, MANIFEST, "r", "f", [".png"])
    monkeypatch.setattr(type(storage), "write_atomic", None)  # a call would raise
    write_latest(storage, HOME, MANIFEST, "r", "f", [".png"])
    with pytest.raises(TypeError):
        write_latest(storage, HOME, MANIFEST, "another", "f", [".png"])


def test_a_file_from_before_the_fingerprint_is_read(storage: Storage) -> None:
    facts = {"dataset_dir": f"{HOME}/p", "plan_id": "p", "content_digest": "c"}
    storage.write_atomic(FILE, json.dumps(facts).encode())
    assert read_latest(storage, HOME) == LatestPointer(f"{HOME}/p", "p", "c")
    assert find_unchanged(storage, HOME, "raw", "r") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"dataset_dir": "d", "plan_id": "p"}',
        b'{"dataset_dir": 1, "plan_id": "p", "content_digest": "c"}',
        b'{"dataset_dir": "d", "plan_id": "p", "content_digest": "c", "extensions": ".png"}',
        b'{"dataset_dir": "d", "plan_id": "p", "content_digest": "c", "mood": "good"}',
        b'{"dataset_dir": "d", "plan_id": "p", "content_digest": "c", "format": "1"}',
    ],
)
def test_damage_is_told_with_the_way_out(storage: Storage, data: bytes) -> None:
    storage.write_atomic(FILE, data)
    with pytest.raises(DataError, match="latest.json is damaged: .*--ledger PLAN_ID/splits.json") as caught:
        read_latest(storage, HOME)
    assert storage.uri(FILE) in caught.value.what and caught.value.exit_code == 65
    assert find_unchanged(storage, HOME, "raw", "r") is None, "the ingest itself says what is wrong"


def test_a_newer_format_is_wrong_usage(storage: Storage) -> None:
    storage.write_atomic(FILE, b'{"format": 2, "news": true}')
    with pytest.raises(UsageError, match="has format 2") as caught:
        read_latest(storage, HOME)
    assert caught.value.exit_code == 64


def test_a_request_is_told_by_options_and_the_content_of_files(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    digests = [request_digest({"a": 1, "file": file})]
    for content in ("x", "y"):
        file.write_text(content)
        digests.append(request_digest({"a": 1, "file": file}))
    digests.append(request_digest({"a": 2, "file": file}))
    assert len(set(digests)) == 4
    assert request_digest({"file": file, "a": 2}) == digests[-1], "in whatever order"


@pytest.fixture
def committed(storage: Storage, tmp_path: Path) -> Path:
    """A committed data set without a patch; returns its raw folder."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.png").write_bytes(b"an image")
    storage.write_atomic(f"{HOME}/{MANIFEST.plan_id}/manifest.json", manifests.dump(MANIFEST))
    write_latest(storage, HOME, MANIFEST, "r", fingerprint_folder(str(raw), [".png"]), [".png"])
    return raw


def test_an_unchanged_ingest_is_recognised(storage: Storage, committed: Path) -> None:
    found = find_unchanged(storage, HOME, str(committed), "r")
    assert found is not None and found.plan_id == MANIFEST.plan_id


def test_what_has_changed_is_not(storage: Storage, committed: Path) -> None:
    assert find_unchanged(storage, HOME, str(committed), "another") is None
    assert find_unchanged(storage, HOME, str(committed), "") is None, "an unknown request equals nothing"
    assert find_unchanged(storage, HOME, "gs://raw/idc", "r") is None
    assert find_unchanged(storage, HOME, str(committed / "absent"), "r") is None
    (committed / "b.png").write_bytes(b"another")
    assert find_unchanged(storage, HOME, str(committed), "r") is None


def test_nor_is_a_data_set_that_is_not_whole(storage: Storage, committed: Path) -> None:
    folder = f"{HOME}/{MANIFEST.plan_id}"
    storage.write_atomic(f"{folder}/Split-train/stray", b"")
    assert find_unchanged(storage, HOME, str(committed), "r") is None
    storage.delete(f"{folder}/Split-train/stray")
    assert find_unchanged(storage, HOME, str(committed), "r") is not None
    storage.write_atomic(f"{folder}/manifest.json", b"{}")
    assert find_unchanged(storage, HOME, str(committed), "r") is None
    storage.delete(f"{folder}/manifest.json")
    assert find_unchanged(storage, HOME, str(committed), "r") is None
