"""Locks on a file system beyond the contract: forks, killed parents, other names of a folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from components.errors import HistolineError, TemporaryError, UsageError
from components.storage.base import Storage
from components.storage.open import open_storage
from tests.support.storage_help import HOLD, hold, python, side_by_side


@pytest.fixture
def store(local_store: Storage) -> Storage:
    return local_store


OPEN = """
import os, sys
from components.storage.atomic_files import StorageConflict
from components.storage.open import open_storage
store = open_storage(sys.argv[1])
"""


def files_below(folder: str | Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


# --- compare and swap ---


def test_no_increment_is_lost_between_processes_and_no_temporary_is_left(store: Storage) -> None:
    code = """
        for _ in range(25):
            while True:
                data, version = store.read_versioned("n")
                try:
                    store.compare_and_swap("n", str(int(data or b"0") + 1).encode(), version)
                    break
                except StorageConflict:
                    continue
    """
    workers = side_by_side(OPEN, code, *[(store.root,)] * 3)
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert store.read_bytes("n") == b"75"
    assert files_below(store.root) == ["n"]


# --- locks ---

def test_a_lock_file_says_who_holds_it(store: Storage) -> None:
    with store.lock("run/.lock", owner="me"):
        entry = json.loads(store.read_bytes("run/.lock"))
    assert set(entry) == {"owner", "pid", "host", "started"} and entry["pid"] == os.getpid()


def test_a_forked_helper_does_not_keep_a_killed_parents_lock(store: Storage) -> None:
    code = """
        import multiprocessing, os, sys, time
        from components.storage.open import open_storage
        def help():
            print(os.getpid(), flush=True)
            time.sleep(60)
        with open_storage(sys.argv[1]).lock("run/.lock", owner="parent"):
            multiprocessing.get_context("fork").Process(target=help).start()
            time.sleep(60)
    """
    parent = python(code, store.root)
    assert parent.stdout is not None
    helper = int(parent.stdout.readline())
    try:
        with pytest.raises(TemporaryError):
            store.lock("run/.lock", owner="me", wait_seconds=0).__enter__()
        parent.kill()
        parent.wait()
        os.kill(helper, 0)
        with store.lock("run/.lock", owner="me", wait_seconds=0):
            pass
    finally:
        os.kill(helper, signal.SIGKILL)


def lock_and_exit(store: Storage) -> None:
    with store.lock("b", owner="child", wait_seconds=0):
        pass
    raise SystemExit(0)


def test_a_forked_child_that_ends_leaves_the_parents_lock_alone(store: Storage) -> None:
    with store.lock("a", owner="parent") as held:
        child = multiprocessing.get_context("fork").Process(target=lock_and_exit, args=(store,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        held.check()
        waiting = python(HOLD.replace('"run/.lock", ', '"a", wait_seconds=0, '), store.root)
        waiting.communicate("", timeout=60)
        assert waiting.returncode == 1


def test_a_second_lock_by_another_name_of_the_folder_is_no_deadlock(store: Storage, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(store.root)
    with store.lock("a", owner="x"):
        for again in (store, open_storage(tmp_path / "alias")):
            with pytest.raises(HistolineError, match="not re-entrant") as caught:
                again.lock("a", owner="x").__enter__()
            assert caught.value.exit_code == 70
        with store.lock("b", owner="x"):
            pass
    with store.lock("a", owner="x"), pytest.raises(HistolineError):
        store.lock("a", owner="x").__enter__()


def test_a_lock_whose_folder_was_deleted_is_known_to_be_lost(store: Storage) -> None:
    with store.lock("run/.lock", owner="x") as held:
        held.check()
        store.delete_tree("run")
        with pytest.raises(TemporaryError, match="deleted while it was held"):
            held.check()
        store.write_atomic("run/.lock", b"somebody else's")
    assert store.read_bytes("run/.lock") == b"somebody else's"


def test_a_folder_of_the_same_name_is_no_lock(store: Storage) -> None:
    store.write_atomic("a/b", b"")
    with pytest.raises(UsageError):
        store.lock("a", owner="x").__enter__()


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1]", b"\xff"])
def test_an_unreadable_lock_file_is_still_a_lock(store: Storage, garbage: bytes) -> None:
    holder = hold(store.root)
    Path(store.root, "run/.lock").write_bytes(garbage)
    try:
        with pytest.raises(TemporaryError, match="unknown owner"):
            store.lock("run/.lock", owner="x", wait_seconds=0).__enter__()
    finally:
        holder.communicate("", timeout=60)
