"""Forgetting and pruning beside another process that holds the lock of the data set and task."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.datasets import forgetting, retention
from components.errors import TemporaryError
from components.splits.ledger import Ledger
from components.storage.local import LocalStorage
from components.storage.open import open_storage
from tests.support import ingest_help, trees
from tests.support.cli_help import invoke

HOME = "datasets/idc/binary"
FOLD = f"{HOME}/folds/1.json"
LEDGER = Ledger("patient", {"9001": "train", "9002": "eval", "9003": "test"}, source="fold", fold=1, folds=2)

# What an ingest does: reads a fold's ledger, and under the same lock writes it with a new group.
INGEST = f"""
import dataclasses, sys
from components.splits.ledger import Ledger
from components.storage.open import open_storage
storage = open_storage(sys.argv[1])
with storage.lock("{HOME}/.lock", owner="the other process"):
    ledger = Ledger.from_json(storage.read_bytes("{FOLD}").decode(), "fold")
    print("locked", flush=True)
    sys.stdin.readline()
    grown = dataclasses.replace(ledger, splits={{**ledger.splits, "9004": "train"}})
    storage.write_atomic("{FOLD}", grown.to_json().encode())
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    storage = open_storage(tmp_path)
    storage.write_atomic(FOLD, LEDGER.to_json().encode())
    # A data set that was purged before: only its ledger is left, so that no data set holds the group any more.
    storage.write_atomic(f"{HOME}/0123456789abcdef/splits.json", Ledger("patient", {}).to_json().encode())
    return tmp_path


@pytest.fixture
def ingest(workspace: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, and has read the ledger, until it is given a line."""
    command = [sys.executable, "-c", INGEST, str(workspace)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def fold(workspace: Path) -> Ledger:
    return Ledger.from_json((workspace / FOLD).read_text(), "fold")


def wait_at_most(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "lock", functools.partialmethod(LocalStorage.lock, wait_seconds=seconds))


def test_forget_changes_no_ledger_that_another_process_is_working_on(
    workspace: Path, ingest: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "gone.txt").write_text("9003\n")
    command = ("datasets", "forget", "--groups", workspace / "gone.txt", "--workspace", workspace, "--yes")
    with monkeypatch.context() as patch:
        wait_at_most(0.2, patch)
        assert invoke(*command) == 75
    assert fold(workspace) == LEDGER, "written without the lock, it would be overwritten"
    ingest.communicate("go on\n", timeout=60)
    assert invoke(*command) == 0
    after = fold(workspace)
    assert after.tombstones == {"9003"} and set(after.splits) == {"9001", "9002", "9004"}, "neither change is lost"


def test_forget_only_tells_without_the_lock(workspace: Path, ingest: subprocess.Popen[str]) -> None:
    assert forgetting.forget(open_storage(workspace), frozenset({"9003"}), dry_run=True).held == {}
    assert fold(workspace) == LEDGER


def test_forget_waits_for_every_lock_before_it_changes_anything(
    workspace: Path, ingest: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "datasets/breakhis/binary/folds/1.json"  # its lock is free
    storage = open_storage(workspace)
    storage.write_atomic(first, LEDGER.to_json().encode())
    wait_at_most(0.2, monkeypatch)
    with pytest.raises(TemporaryError):
        forgetting.forget(storage, frozenset({"9003"}), dry_run=False)
    assert Ledger.from_json((workspace / first).read_text(), "fold") == LEDGER


def test_forget_finds_the_ledgers_of_folds_where_no_data_set_was_ever_written(workspace: Path) -> None:
    storage = open_storage(workspace)
    storage.delete_tree(f"{HOME}/0123456789abcdef")
    forgetting.forget(storage, frozenset({"9003", "absent"}), dry_run=False)
    assert fold(workspace).tombstones == {"9003"}


def test_prune_deletes_nothing_that_another_process_is_working_on(
    workspace: Path, ingest: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, unfinished = open_storage(workspace), workspace / HOME / "0123456789abcdef"
    wait_at_most(0.2, monkeypatch)
    assert [i.plan_id for i in retention.prune(storage, "", "", 1, dry_run=True)] == [unfinished.name]
    with pytest.raises(TemporaryError, match="the other process"):
        retention.prune(storage, "", "", 1, dry_run=False)
    assert unfinished.exists()
    ingest.communicate("go on\n", timeout=60)
    assert [i.plan_id for i in retention.prune(storage, "", "", 1, dry_run=False)] == [unfinished.name]
    assert not unfinished.exists()


def test_forget_goes_on_with_a_purge_that_was_cut_short(tmp_path: Path) -> None:
    """The manifest was gone, so that no committed data set held the patient, and the records stayed."""
    trees.idc_tree(tmp_path / "raw", 9, 1)
    made = ingest_help.ingest(tmp_path / "raw", tmp_path / "w")
    storage, path = open_storage(tmp_path / "w"), f"{HOME}/{made.plan_id}"
    storage.delete(f"{path}/manifest.json")
    assert forgetting.forget(storage, frozenset({"9003"}), dry_run=False).held == {path: ["9003"]}
    assert storage.list_files(path) == [(f"{path}/splits.json", storage.size(f"{path}/splits.json"))]
    assert made.ledger["tombstones"] == ["9003"]
    forgetting.forget(storage, frozenset({"9004"}), dry_run=False)
    assert made.ledger["tombstones"] == ["9003", "9004"], "the ledger that is left is what the next ingest goes by"
    assert forgetting.forget(storage, frozenset({"9004"}), dry_run=True).held == {}


def test_forget_deletes_unfinished_work_that_may_hold_the_patient(tmp_path: Path) -> None:
    trees.idc_tree(tmp_path / "raw", 9, 1)
    made = ingest_help.ingest(tmp_path / "raw", tmp_path / "w")
    (side,) = [split for group, split in made.splits.items() if group == "9003"]
    for name in ("manifest.json", "splits.json", "patches.parquet"):
        (made.folder / name).unlink()
    (made.folder / ".tmp" / "try").mkdir(parents=True)
    (made.folder / ".tmp" / "try" / "shard").write_bytes(b"pixels")
    storage, path = open_storage(tmp_path / "w"), f"{HOME}/{made.plan_id}"
    assert forgetting.forget(storage, frozenset({"absent"}), dry_run=False).held == {}
    assert list((made.folder / f"Split-{side}").iterdir()) and not (made.folder / ".tmp").exists()
    (made.folder / "sidecars" / f"{side}-00000-of-00001.parquet").unlink()
    assert forgetting.forget(storage, frozenset({"absent"}), dry_run=True).held == {path: ["absent"]}, "nobody knows"
    assert forgetting.forget(storage, frozenset({"9003"}), dry_run=False).held == {path: ["9003"]}
    assert storage.list_files(path) == []
