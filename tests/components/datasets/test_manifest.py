"""manifest.json: type and schema agree, bytes come back as they were, and damage is told from age."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from components.datasets import manifest as manifests
from components.datasets.layout import ShardSpec
from components.datasets.manifest import Manifest, ShardFacts, SplitFacts
from components.errors import DataError, UsageError
from components.storage.base import Storage
from components.storage.open import open_storage
from schemas import load_json
from tests.support import ingest_help, schemas, trees
from tests.support.manifests import manifest, split_facts

FOLDER = "datasets/idc/binary/0123456789abcdef"
FILE = f"{FOLDER}/{manifests.NAME}"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


def write(storage: Storage, document: Any, *, seal: bool = True) -> None:
    """Leaves a document as the manifest, with the digest that it should have unless told otherwise."""
    if seal:
        document = {**document, "manifest_digest": manifests.digest_of(document)}
    storage.write_atomic(FILE, json.dumps(document).encode())


def test_type_and_schema_agree() -> None:
    assert schemas.differences(Manifest, manifests.SCHEMA) == []
    schema = load_json(manifests.SCHEMA)
    # What is written only where it is so stays out of the manifests of before.
    assert set(schema["required"]) == {field.name for field in dataclasses.fields(Manifest)} - {"drawn"}


@dataclasses.dataclass(frozen=True)
class Longer(ShardFacts):
    extra: str = ""


def test_the_comparison_of_type_and_schema_sees_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    hints = {"microns_per_pixel": "float", "found": "str", "classes": "str", "stored_size": "tuple[int, int, int]"}
    for field, kind in hints.items():
        with monkeypatch.context() as patch:
            patch.setitem(Manifest.__annotations__, field, kind)
            (difference, *_) = schemas.differences(Manifest, manifests.SCHEMA)
            assert f"document.{field}" in difference
    with monkeypatch.context() as patch:
        patch.setitem(SplitFacts.__annotations__, "shards", tuple[Longer, ...])
        assert schemas.differences(Manifest, manifests.SCHEMA) == [
            "document.splits.*.shards[].extra is in one of the two only"
        ]


def test_a_real_manifest_comes_back_byte_for_byte(tmp_path: Path) -> None:
    trees.idc_tree(tmp_path / "raw", 12, per_class=2)
    made = ingest_help.ingest(tmp_path / "raw", tmp_path / "w")
    data = (made.folder / manifests.NAME).read_bytes()
    document = json.loads(data)
    assert manifests.dump(made.manifest) == data
    assert made.manifest.to_document() == document
    fields = [field.name for field in dataclasses.fields(Manifest) if field.name != "drawn"]
    assert list(document) == fields, "the order of the file"
    assert list(document["splits"]) == ["train", "eval", "test"]
    assert list(document["splits"]["train"]) == [field.name for field in dataclasses.fields(SplitFacts)]


def test_round_trip(storage: Storage) -> None:
    made = manifest(label_region=(1, 2, 3, 4), microns_per_pixel=None, flags=("leaky",))
    storage.write_atomic(FILE, manifests.dump(made))
    again = manifests.load(storage, FOLDER)
    assert dataclasses.replace(again, config=made.config, manifest_digest="") == made
    assert again.config == {**made.config} and again.manifest_digest == manifests.digest_of(again.to_document())
    assert manifests.dump(again) == storage.read_bytes(FILE)
    assert manifests.dump(dataclasses.replace(again, found=34)) != storage.read_bytes(FILE), "sealed anew"


def test_it_cannot_be_changed_in_place() -> None:
    made = manifest()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.found = 5  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.shards("train")[0].bytes = 5  # type: ignore[misc]


def test_where_shards_and_sidecars_lie() -> None:
    made, spec = manifest(), ShardSpec("train", 1, 2)
    _, second = made.shards("train")
    assert made.path("train", second) == spec.path == "Split-train/train-00001-of-00002.tfrecord"
    assert made.sidecar(second) == spec.sidecar == "sidecars/train-00001-of-00002.parquet"
    assert [(split, shard.file[:11]) for split, shard in made.all_shards()] == [
        ("train", "train-00000"), ("train", "train-00001"), ("eval", "eval-00000-"), ("test", "test-00000-"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "says"), [((), []), (("leaky", "not_patient_clustered"), ["split by image", "no patient is known"])]
)
def test_flags_are_told_as_sentences(flags: tuple[str, ...], says: list[str]) -> None:
    reasons = manifest(flags=flags).flag_reasons
    assert len(reasons) == len(says) and all(text in reason for text, reason in zip(says, reasons, strict=True))


@pytest.mark.parametrize("config", [{}, {"key_fingerprint": "ab12"}])
def test_key_fingerprint(config: dict[str, str]) -> None:
    assert manifest(config=config).key_fingerprint == config.get("key_fingerprint", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("one",)},
        {"group_unit": "village"},
        {"plan_id": "short"},
        {"found": -1},
        {"stored_size": (50, 0)},
        {"label_region": (1, 2, 3)},
        {"flags": ("unheard_of",)},
        {"splits": {"train": split_facts("train"), "eval": split_facts("eval")}},
        {"files": {"splits.json": "no digest"}},
    ],
)
def test_what_breaks_the_schema_is_neither_written_nor_read(storage: Storage, changes: dict[str, Any]) -> None:
    wrong = manifest(**changes)
    with pytest.raises(ValueError, match="manifest breaks its schema"):
        manifests.dump(wrong)
    write(storage, wrong.to_document())
    with pytest.raises(DataError, match="manifest.json breaks its schema") as caught:
        manifests.load(storage, FOLDER)
    assert caught.value.exit_code == 65 and caught.value.fix


def change_shard(document: dict[str, Any]) -> None:
    document["splits"]["eval"]["shards"][0]["colour"] = "blue"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("created"),
        lambda document: document.update(extra=1),
        lambda document: document["splits"]["train"].pop("groups"),
        lambda document: document["ledger"].pop("sha256"),
        lambda document: document["rejects"]["truncated"].update(kind="whim"),
        change_shard,
    ],
)
def test_missing_and_unknown_properties_are_damage(storage: Storage, change: Any) -> None:
    document = manifest().to_document()
    change(document)
    write(storage, document)
    with pytest.raises(DataError, match="breaks its schema"):
        manifests.load(storage, FOLDER)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"format": "1"}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_is_damage(storage: Storage, data: bytes) -> None:
    storage.write_atomic(FILE, data)
    with pytest.raises(DataError, match="damaged: it is not a manifest") as caught:
        manifests.load(storage, FOLDER)
    assert storage.uri(FILE) in caught.value.what


def test_an_edit_by_hand_is_noticed(storage: Storage) -> None:
    document = json.loads(manifests.dump(manifest()))
    write(storage, {**document, "flags": ["leaky"]}, seal=False)
    with pytest.raises(DataError, match="changed after the commit"):
        manifests.load(storage, FOLDER)


def test_a_newer_format_is_wrong_usage_whatever_else_it_holds(storage: Storage) -> None:
    write(storage, {"format": manifests.FORMAT + 1, "news": True}, seal=False)
    with pytest.raises(UsageError, match="has format 2; this histoline reads up to 1.*Upgrade") as caught:
        manifests.load(storage, FOLDER)
    assert caught.value.exit_code == 64


def test_a_folder_without_manifest_is_no_data_set(storage: Storage) -> None:
    with pytest.raises(UsageError, match="not a committed data set: it holds no manifest.json"):
        manifests.load(storage, FOLDER)


def test_missing_or_resized(storage: Storage) -> None:
    shard = ShardFacts("train-00000-of-00001.tfrecord", 1, 3, "a" * 64, "b" * 64)
    empty = SplitFacts(0, {}, {}, (), 0)
    splits = {"train": SplitFacts(1, {}, {}, (shard,), 1), "eval": empty, "test": empty}
    made = manifest(splits=splits, files={"splits.json": "c" * 64})
    whole = {
        "Split-train/train-00000-of-00001.tfrecord": b"abc",
        "sidecars/train-00000-of-00001.parquet": b"",
        "splits.json": b"",
    }
    for name, data in whole.items():
        storage.write_atomic(f"{FOLDER}/{name}", data)
    assert manifests.missing_or_resized(storage, FOLDER, made) == []
    for name, data in whole.items():
        storage.delete(f"{FOLDER}/{name}")
        assert manifests.missing_or_resized(storage, FOLDER, made) == [f"{name} is missing"]
        storage.write_atomic(f"{FOLDER}/{name}", data)
    storage.write_atomic(f"{FOLDER}/Split-eval/odd", b"")
    storage.write_atomic(f"{FOLDER}/Split-train/train-00000-of-00001.tfrecord", b"ab")
    assert manifests.missing_or_resized(storage, FOLDER, made) == [
        "Split-train/train-00000-of-00001.tfrecord has 2 bytes instead of 3", "Split-eval/odd does not belong here",
    ]  # fmt: skip
