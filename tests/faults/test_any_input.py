"""Whatever is named, written or damaged: it is read, or refused in one paragraph, and never a traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.adapters.base import DiscoverOptions
from components.adapters.group_files import GroupMapping, patch_key, read_group_list, read_groups_csv
from components.adapters.pcam import Labels, parse_labels
from components.adapters.registry import discover, get_adapter
from components.core import json_documents
from components.datasets import latest_pointer
from components.datasets import manifest as manifests
from components.errors import DataError, HistolineError, UsageError
from components.promotion import champion as champions
from components.promotion import version_digests
from components.splits.ledger import Ledger
from components.storage.open import open_storage
from components.training import run_record
from tests.components.promotion.test_champion import promotion
from tests.components.splits.test_ledger import LEDGERS
from tests.support import trees
from tests.support.manifests import manifest
from tests.support.strategies import CELLS, NAMES, csv_files, damaged_bytes, damaged_documents

MORE = int(os.environ.get("HISTOLINE_EXAMPLES_TIMES", "1"))
"""`make faults` tries more, and other, examples."""


def times(examples: int) -> settings:
    """Settings of a law that is tried so many times; more, and not the same ones, where that is asked for."""
    return settings(max_examples=examples * MORE, derandomize=MORE == 1)


PLACES = st.sampled_from(["{}", "sub/{}", "9000/0/{}", "{}/0/9000_idx5_x1_y1_class0.png"])
FORMS = st.sampled_from(["{}", "{}.png", "{}_idx5_x1_y1_class0.png", "9000_idx5_x{}_y1_class1.png", ".{}.png"])


@times(12)
@given(st.lists(st.tuples(PLACES, FORMS, NAMES), max_size=8))
def test_any_names_are_patches_or_rejects(tmp_path_factory: pytest.TempPathFactory, names: Any) -> None:
    root = tmp_path_factory.mktemp("raw")
    written = set(trees.idc_tree(root, 3, 1))
    for place, form, name in names:
        path = place.format(form.format(name)) if "/0/9" not in place else place.format(name)
        file = root / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                shutil.copyfile(root / trees.idc_path("9000", 0, 1, 101), file)
        except OSError:  # a folder of this name, a name of more than 255 bytes
            continue
        written.add(path)
    found = discover(get_adapter("idc"), str(root), DiscoverOptions(task="binary"))
    images = sum(os.path.splitext(path)[1].lower() == ".png" for path in written)
    assert found.found == len(found.patches) + len(found.rejects) == images
    said = [*found.patches["path"].to_pylist(), *found.rejects["path"].to_pylist()]
    assert len(set(said)) == len(said) and all("\0" not in path for path in said)
    shutil.rmtree(root)


TABLES = st.dictionaries(CELLS.filter(lambda key: patch_key(key) == key and key), st.sampled_from("01"), max_size=6)


@times(30)
@given(TABLES, st.booleans(), st.data())
def test_label_tables_are_read_as_they_were_written(table: dict[str, str], swapped: bool, data: st.DataObject) -> None:
    order = slice(None, None, -1 if swapped else 1)
    rows = [[key, label][order] for key, label in table.items()]
    file = data.draw(csv_files(["id", "label"][order], rows))
    assert parse_labels(file, "labels.csv").label == {key: int(label) for key, label in table.items()}


@times(30)
@given(st.data())
def test_damaged_tables_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    header = data.draw(st.sampled_from([["id", "label"], ["id", "slide"], ["path", "patient", "slide"]]))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), max_size=4))
    damaged = data.draw(csv_files(header, rows).flatmap(damaged_bytes))
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(damaged)
    readers: tuple[tuple[Callable[[], Any], type], ...] = (
        (lambda: parse_labels(damaged, "labels.csv"), Labels),
        (lambda: read_groups_csv(file), GroupMapping),
        (lambda: read_group_list(file), frozenset),
    )
    for read, kind in readers:
        try:
            assert isinstance(read(), kind)
        except UsageError as error:
            assert str(error)


def refused_or(read: Callable[[], Any]) -> Any:
    """What is read; None where it is refused as bad data or wrong usage."""
    try:
        return read()
    except HistolineError as error:
        assert error.exit_code in (64, 65) and error.what
        return None


@times(30)
@given(LEDGERS, st.data())
def test_damaged_ledgers(ledger: Ledger, data: st.DataObject) -> None:
    text = data.draw(
        damaged_bytes(ledger.to_json().encode()).map(lambda data: data.decode("utf-8", "replace"))
        | damaged_documents(json.loads(ledger.to_json())).map(json.dumps)
    )
    read = refused_or(lambda: Ledger.from_json(text, "splits.json"))
    assert read is None or Ledger.from_json(read.to_json(), "splits.json") == read


def champion_document() -> dict[str, Any]:
    """A champion.json with a history of two, one by hand."""
    made = champions.Champion((promotion(1), promotion(2, "hand", unproven="read the paper")))
    return dict(json.loads(made.dump()))


def latest_document() -> dict[str, Any]:
    """A latest.json."""
    pointer = latest_pointer.LatestPointer("datasets/idc/binary/0123456789abcdef", "0123456789abcdef", "0" * 64)
    return dict(json.loads(pointer.to_bytes()))


def run_document(folder: Path) -> dict[str, Any]:
    """A run.json."""
    storage, where = open_storage(folder), run_record.run_dir("idc", "binary", "run")
    sealed = manifests.Manifest(**{**manifest().__dict__, "manifest_digest": "1" * 64})
    run_record.create(storage, where, config={}, dataset_dir="datasets/idc/binary/0123456789abcdef", manifest=sealed)
    return dict(json.loads(storage.read_bytes(f"{where}/run.json")))


READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "manifest": ("d/manifest.json", lambda storage: manifests.load(storage, "d")),
    "latest": ("d/latest.json", lambda storage: latest_pointer.read_latest(storage, "d")),
    "champion": ("d/champion.json", lambda storage: champions.read(storage, "d")),
    "run": ("d/run.json", lambda storage: run_record.read(storage, "d")),
}
SEALS = {"manifest": "manifest_digest", "champion": json_documents.SEAL, "run": json_documents.SEAL}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A whole document of each kind."""
    return {
        "manifest": json.loads(manifests.dump(manifest())),
        "latest": latest_document(),
        "champion": champion_document(),
        "run": run_document(tmp_path_factory.mktemp("run")),
    }


@pytest.mark.parametrize("name", READERS)
@times(30)
@given(data=st.data())
def test_damaged_documents(
    name: str, documents: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes that changed are always noticed where a document is sealed; what was edited and sealed anew follows it."""
    path, read = READERS[name]
    root = tmp_path_factory.getbasetemp() / "documents"
    storage, file = open_storage(root), root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = documents[name]
    text = json.dumps(whole).encode()
    file.write_bytes(text)
    assert refused_or(lambda: read(storage)) is not None
    edited = data.draw(damaged_documents(whole) | damaged_bytes(text))
    if isinstance(edited, bytes):
        file.write_bytes(edited)
        kept = refused_or(lambda: read(storage))
        if kept is not None and name in SEALS:
            assert same_values(edited, whole), "only what means the same is taken"
        return
    file.write_bytes(json.dumps(edited).encode())
    kept = refused_or(lambda: read(storage))
    if kept is not None and name in SEALS and edited.get(SEALS[name]) is not None:
        assert same_values(json.dumps(edited).encode(), whole)
    if name == "manifest":
        edited["manifest_digest"] = manifests.digest_of(edited)
    else:
        edited.pop(json_documents.SEAL, None)
    file.write_bytes(json.dumps(edited).encode())
    refused_or(lambda: read(storage))


def same_values(data: bytes, document: dict[str, Any]) -> bool:
    """Whether JSON text says the same as a document."""
    return json_documents.canonical(json.loads(data)) == json_documents.canonical(document)


@times(30)
@given(st.data())
def test_damaged_digests_of_a_version(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "version"
    (folder / "assets.extra").mkdir(parents=True, exist_ok=True)
    (folder / champions.LIVE).write_bytes(b"model")
    version_digests.write(folder)
    file = folder / version_digests.NAME
    whole = file.read_bytes()
    edited = damaged_documents(json.loads(whole)).map(lambda document: json.dumps(document).encode())
    damaged = data.draw(damaged_bytes(whole) | edited)
    file.write_bytes(damaged)
    if version_digests.findings(folder):
        with pytest.raises(DataError, match="not what was published"):
            version_digests.check(folder, "here")
    else:
        assert same_values(damaged, json.loads(whole))
