"""What every storage must do, tried on a folder and on a bucket alike; see `components.storage.base.Storage`."""

from __future__ import annotations

import json
import pickle
import signal
import threading
import time
from pathlib import Path

import pytest

from components.errors import HistolineError, TemporaryError, UsageError
from components.storage.atomic_files import StorageConflict, StorageMissing
from components.storage.base import ABSENT, Storage
from components.storage.open import open_storage
from tests.support.storage_help import hold, side_by_side


@pytest.fixture(params=["local", pytest.param("gcs", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest) -> Storage:
    return request.getfixturevalue(f"{request.param}_store")


# --- paths ---


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a/..", ".", "a/./b", "a//b", "a/", "a\0b", "a\nb"]
)
def test_paths_that_leave_the_root_are_refused(store: Storage, tmp_path: Path, path: str) -> None:
    (tmp_path / "x").write_text("outside")
    calls = [
        lambda: store.read_bytes(path),
        lambda: store.write_atomic(path, b""),
        lambda: store.delete(path),
        lambda: store.delete_tree(path),
        lambda: store.exists(path),
        lambda: store.local_copy(path),
        lambda: store.compare_and_swap(path, b"", ABSENT),
        lambda: store.lock(path, owner="me").__enter__(),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="not a path inside the workspace"):
            call()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["x"]
    assert store.list_files("") == []


def test_it_travels_between_processes(store: Storage) -> None:
    store.write_atomic("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.root == store.root and copy.is_local == store.is_local and copy.read_bytes("a") == b"1"
    assert open_storage(store.root).read_bytes("a") == b"1"
    assert store.uri("a/b") == f"{store.root}/a/b" and store.uri("") == store.root


# --- reading, listing, writing ---


def test_when_something_was_last_written(store: Storage) -> None:
    before = time.time()
    assert store.modified("a") == store.modified("") == 0
    store.write_atomic("a/b/c", b"1")
    first = store.modified("a")
    assert before - 2 <= first <= time.time() + 2
    time.sleep(0.02)
    store.write_atomic("a/d", b"2")
    assert store.modified("a") > first and store.modified("a/b") == first and store.modified("ab") == 0


def test_what_a_killed_deletion_left_is_deleted(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a/b/c", "a/last", "kept"):
        store.write_atomic(path, b"1")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if store.is_local:
            patch.setattr("shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            real = type(store).delete
            patch.setattr(type(store), "delete", lambda self, path: real(self, path) if path == "a/last" else _stop())
        store.delete_tree("a")
    assert not store.exists("a/last"), "what makes the folder live goes first"
    assert store.finish_deletions() == (1 if store.is_local else 0)
    store.delete_tree("a")
    assert store.list_files("") == [("kept", 1)] and store.finish_deletions() == 0
    if store.is_local:
        assert not list(Path(store.root).glob(".tmp/*"))


def _stop() -> None:
    raise KeyboardInterrupt


def test_listing_is_sorted_relative_to_the_root_and_knows_folders_only(store: Storage) -> None:
    for name, data in [("a/b/2", b"22"), ("a/b/1", b"1"), ("a/c", b"333"), ("ab/x", b""), ("a/.hidden", b"4444")]:
        store.write_atomic(name, data)
    expected = [("a/.hidden", 4), ("a/b/1", 1), ("a/b/2", 2), ("a/c", 3)]
    assert store.list_files("a") == store.list_files("a/") == expected
    assert store.list_files("") == [*expected, ("ab/x", 0)]
    assert store.list_files("nowhere") == store.list_files("a/c") == []
    assert store.list_dirs("a") == ["b"] and store.list_dirs("") == ["a", "ab"]


def test_exists_size_and_delete_are_about_files(store: Storage) -> None:
    store.write_atomic("a/b", b"123")
    assert store.exists("a/b") and not store.exists("a")
    assert store.size("a/b") == 3 and store.read_bytes("a/b") == b"123"
    with pytest.raises(UsageError):
        store.size("a")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")


def test_missing_files_say_so(store: Storage) -> None:
    for call in (store.read_bytes, store.size, store.local_copy, store.local_tree):
        with pytest.raises(StorageMissing, match="a/b does not exist"):
            call("a/b")
    assert store.read_versioned("a/b") == (None, ABSENT)
    store.delete("a/b")
    store.delete_tree("a")


def test_a_write_replaces(store: Storage) -> None:
    store.write_atomic("a/b.json", b"old")
    store.write_atomic("a/b.json", b"new", tmp_dir="a/.tmp")
    assert store.read_bytes("a/b.json") == b"new" and store.list_files("") == [("a/b.json", 3)]


def test_local_copies_hold_the_content(store: Storage) -> None:
    for name in ("d/a", "d/s/b"):
        store.write_atomic(name, name.encode())
    assert [copy.read_bytes() for copy in store.local_copies(["d/s/b", "d/a"])] == [b"d/s/b", b"d/a"]
    tree = store.local_tree("d")
    found = {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    assert found == {"a": b"d/a", "s/b": b"d/s/b"}


# --- commits ---


def test_scratch_commit_and_sweep(store: Storage) -> None:
    folder, other = store.scratch("plan"), store.scratch("plan")
    assert folder != other
    (folder / "s").write_bytes(b"shard")
    (other / "orphan").write_bytes(b"?")
    store.commit_file(folder / "s", "plan/Split-train/s")
    assert not (folder / "s").exists() and store.read_bytes("plan/Split-train/s") == b"shard"
    assert store.list_files("plan") == [("plan/Split-train/s", 5)]
    assert store.sweep("plan", older_than_seconds=3600) == 0
    assert store.sweep("plan") == 2 and store.sweep("plan") == 0
    assert not folder.exists() and not other.exists()
    assert store.list_files("") == [("plan/Split-train/s", 5)]


def test_a_tree_goes_live_once(store: Storage) -> None:
    for content in (b"one", b"two"):
        folder = store.scratch("models")
        (folder / "variables").mkdir()
        (folder / "variables" / "v").write_bytes(content)
        (folder / "saved_model.pb").write_bytes(content)
        if content == b"one":
            store.commit_tree(folder, "models/7", last="saved_model.pb")
            assert not folder.exists()
        else:
            with pytest.raises(StorageConflict, match="exists already"):
                store.commit_tree(folder, "models/7", last="saved_model.pb")
    assert store.read_bytes("models/7/variables/v") == b"one"
    assert store.list_files("models") == [("models/7/saved_model.pb", 3), ("models/7/variables/v", 3)]


def test_a_deleted_tree_takes_no_neighbour_along(store: Storage) -> None:
    for name in ("p/manifest.json", "p/Split-train/a", "pq/b"):
        store.write_atomic(name, b"1")
    store.delete_tree("p")
    assert store.list_files("") == [("pq/b", 1)]
    with pytest.raises(UsageError):
        store.delete_tree("")
    assert store.list_files("") == [("pq/b", 1)]


# --- compare and swap ---


def test_compare_and_swap_refuses_a_stale_version(store: Storage) -> None:
    assert store.read_versioned("c.json") == (None, ABSENT)
    first = store.compare_and_swap("c.json", b"1", ABSENT)
    assert store.read_versioned("c.json") == (b"1", first)
    second = store.compare_and_swap("c.json", b"2", first)
    for stale in (ABSENT, first):
        with pytest.raises(StorageConflict):
            store.compare_and_swap("c.json", b"3", stale)
    assert store.read_versioned("c.json") == (b"2", second)
    assert store.list_files("") == [("c.json", 1)]


def test_no_increment_is_lost_between_threads(store: Storage) -> None:
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(60)
        for _ in range(15):
            while True:
                data, version = store.read_versioned("n")
                try:
                    store.compare_and_swap("n", str(int(data or b"0") + 1).encode(), version)
                    break
                except StorageConflict:
                    continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert store.read_bytes("n") == b"60"


# --- locks ---


def test_a_taken_lock_names_owner_and_start(store: Storage) -> None:
    holder = hold(store.root)
    try:
        entry = json.loads(store.read_bytes("run/.lock"))
        assert {"owner", "pid", "host", "started"} <= set(entry) and entry["pid"] == holder.pid
        with pytest.raises(TemporaryError, match="locked by the first") as caught:
            store.lock("run/.lock", owner="the second", wait_seconds=0.1, poll=0.02).__enter__()
        assert entry["started"] in str(caught.value) and str(holder.pid) in str(caught.value)
    finally:
        holder.communicate("", timeout=60)
    assert holder.returncode == 0 and store.list_files("") == []
    with store.lock("run/.lock", owner="the second", wait_seconds=0):
        assert json.loads(store.read_bytes("run/.lock"))["owner"] == "the second"


def test_a_killed_holder_frees_its_lock(store: Storage) -> None:
    holder = hold(store.root)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert store.exists("run/.lock")
    with store.lock("run/.lock", owner="the second", wait_seconds=0) as held:
        held.check()
        assert json.loads(store.read_bytes("run/.lock"))["owner"] == "the second"
    assert not store.exists("run/.lock")


def test_a_waiting_process_gets_the_lock_once_it_is_free(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = hold(store.root)
    looked_in_vain, taken = threading.Event(), threading.Event()
    sleep = time.sleep

    def wait() -> None:
        with store.lock("run/.lock", owner="the second", wait_seconds=60, poll=0.01):
            taken.set()

    thread = threading.Thread(target=wait)

    def between_two_looks(seconds: float) -> None:
        if threading.current_thread() is thread:
            looked_in_vain.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", between_two_looks)
    thread.start()
    assert looked_in_vain.wait(60) and not taken.is_set()
    holder.communicate("", timeout=60)
    thread.join(60)
    assert taken.is_set()


def test_only_one_process_is_inside_at_a_time(store: Storage) -> None:
    rounds = 40 if store.is_local else 8
    store.write_atomic("n", b"0")
    imports = "import sys\nfrom components.storage.open import open_storage\nstore = open_storage(sys.argv[1])\n"
    code = """
        for _ in range(int(sys.argv[3])):
            with store.lock("l", owner=sys.argv[2], wait_seconds=100, poll=0.002):
                n = int(store.read_bytes("n"))
                store.write_atomic("n", str(n + 1).encode())
    """
    workers = side_by_side(imports, code, *((store.root, i, rounds) for i in range(3)))
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    number = str(3 * rounds).encode()
    assert store.read_bytes("n") == number and store.list_files("") == [("n", len(number))]


def test_a_second_lock_in_one_process_is_an_error_and_no_deadlock(store: Storage) -> None:
    with store.lock("a", owner="x"):
        for again in (store, open_storage(store.root)):
            with pytest.raises(HistolineError, match="not re-entrant") as caught:
                again.lock("a", owner="x").__enter__()
            assert caught.value.exit_code == 70
        with store.lock("b", owner="x"):
            pass
    with store.lock("a", owner="x", wait_seconds=0), pytest.raises(HistolineError):
        store.lock("a", owner="x").__enter__()


def test_a_lock_is_freed_when_its_block_raises(store: Storage) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), store.lock("a", owner="x", wait_seconds=0):
            raise KeyError
    assert store.list_files("") == []


