"""Commits and locks on a file system, proved with real processes, a full disk and a read-only one."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import HistolineError, TemporaryError, UsageError
from components.storage.atomic_files import StorageConflict, StorageMissing, os_errors, publish
from components.storage.base import ABSENT, Storage, check_path
from components.storage.open import open_storage

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "workspace")


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts a process that says `ready` (or something else) on its first line of output."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def files_below(folder: str | Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


# --- paths and roots ---


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
        lambda: store.compare_and_swap(path, b"", ABSENT),
        lambda: store.lock(path, owner="me").__enter__(),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="not a path inside the workspace"):
            call()
    assert files_below(tmp_path) == ["x"]


def test_a_temporary_folder_outside_the_root_is_refused(store: Storage) -> None:
    with pytest.raises(UsageError):
        store.write_atomic("a", b"", tmp_dir="../tmp")


@given(st.text(alphabet="ab./\0\n", max_size=12))
def test_an_accepted_path_stays_inside_the_root(path: str) -> None:
    try:
        checked = check_path(path, prefix=True)
    except UsageError:
        return
    joined = os.path.normpath(os.path.join("/srv/ws", checked))
    assert joined == "/srv/ws" or joined.startswith("/srv/ws/")
    assert joined == f"/srv/ws/{checked}".rstrip("/")


@pytest.mark.parametrize("root", ["", "  ", "s3://bucket/x", "file:///x", "gs://", "gs:///x", "gs://b//x"])
def test_roots_of_another_kind_are_refused(root: str) -> None:
    with pytest.raises(UsageError):
        open_storage(root)


def test_a_file_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(UsageError, match="is a file"):
        open_storage(tmp_path / "f")


def test_local_work_imports_no_cloud_library(tmp_path: Path) -> None:
    code = """
        import sys
        from components.storage.open import open_storage
        store = open_storage(sys.argv[1])
        with store.lock("l", owner="me"):
            store.compare_and_swap("a", b"1", "0")
        heavy = ("google.cloud.storage", "google.auth", "google.api_core", "google_crc32c", "requests")
        assert not [name for name in heavy if name in sys.modules]
    """
    assert python(code, tmp_path / "w").wait(60) == 0


def test_opening_writes_nothing_and_survives_pickle(tmp_path: Path) -> None:
    store = open_storage(tmp_path / "w")
    assert store.is_local and store.root == str(tmp_path / "w")
    assert store.uri("a/b") == f"{tmp_path}/w/a/b" and store.uri("") == store.root
    assert pickle.loads(pickle.dumps(store)).root == store.root
    assert store.list_files("") == [] and store.list_dirs("") == [] and not store.exists("a")
    assert not (tmp_path / "w").exists()


# --- reading and listing ---


def test_listing_is_sorted_relative_to_the_root_and_knows_folders_only(store: Storage) -> None:
    for name, data in [
        ("a/b/2", b"22"),
        ("a/b/1", b"1"),
        ("a/c", b"333"),
        ("ab/x", b""),
        ("a/.hidden", b"4444"),
    ]:
        store.write_atomic(name, data)
    (Path(store.root) / "a" / ".tmp").mkdir()
    (Path(store.root) / "a" / ".tmp" / "half").write_bytes(b"?")
    expected = [("a/.hidden", 4), ("a/b/1", 1), ("a/b/2", 2), ("a/c", 3)]
    assert store.list_files("a") == store.list_files("a/") == expected
    assert store.list_files("") == [*expected, ("ab/x", 0)]
    assert store.list_files("nowhere") == store.list_files("a/c") == []
    assert store.list_dirs("a") == ["b"] and store.list_dirs("") == ["a", "ab"]


def test_missing_files_say_so(store: Storage) -> None:
    for call in (store.read_bytes, store.size, store.local_copy, store.local_tree):
        with pytest.raises(StorageMissing, match="does not exist"):
            call("a/b")
    assert store.read_versioned("a/b") == (None, ABSENT)
    store.delete("a/b")
    store.delete_tree("a")


def test_exists_and_size_are_about_files(store: Storage) -> None:
    store.write_atomic("a/b", b"123")
    assert store.exists("a/b") and not store.exists("a") and store.size("a/b") == 3
    with pytest.raises(UsageError):
        store.size("a")


def test_local_copies_are_the_files_themselves(store: Storage) -> None:
    store.write_atomic("a/b", b"1")
    assert store.local_copies(["a/b"]) == [Path(store.root, "a/b")]
    assert store.local_tree("a") == Path(store.root, "a")


# --- writing ---


def test_a_write_replaces_and_leaves_no_temporary(store: Storage) -> None:
    store.write_atomic("a/b.json", b"old")
    store.write_atomic("a/b.json", b"new", tmp_dir="a/.tmp")
    assert store.read_bytes("a/b.json") == b"new"
    assert files_below(store.root) == ["a/b.json"]


def test_written_files_follow_the_umask(store: Storage) -> None:
    before = os.umask(0o027)
    try:
        store.write_atomic("a", b"1")
    finally:
        os.umask(before)
    assert (Path(store.root) / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("when", ["os.replace", "os.fsync"])
def test_a_crash_before_the_rename_leaves_the_old_content(store: Storage, when: str) -> None:
    store.write_atomic("Split-train/a", b"old")
    code = """
        import os, signal, sys
        from components.storage.open import open_storage
        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        store = open_storage(sys.argv[1])
        setattr(os, sys.argv[2].split(".")[1], die)
        store.write_atomic("Split-train/a", b"new" * 100000)
    """
    assert python(code, store.root, when).wait(60) == -signal.SIGKILL
    assert store.read_bytes("Split-train/a") == b"old"
    assert store.list_files("") == [("Split-train/a", 3)]
    left = files_below(store.root)
    assert len(left) == 2 and left[0].startswith(".tmp/")
    assert store.sweep("", older_than_seconds=3600) == 0
    assert store.sweep("") == 1
    assert files_below(store.root) == ["Split-train/a"]


def test_readers_meet_whole_files_while_many_processes_write(store: Storage) -> None:
    code = """
        import sys
        from components.storage.open import open_storage
        store = open_storage(sys.argv[1])
        for i in range(40):
            store.write_atomic("d/x", sys.argv[2].encode() * 50000)
    """
    store.write_atomic("d/x", b"0" * 50000)
    writers = [python(code, store.root, letter) for letter in "abc"]
    while any(writer.poll() is None for writer in writers):
        data = store.read_bytes("d/x")
        assert len(data) == 50000 and len(set(data)) == 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert files_below(store.root) == ["d/x"]


def test_scratch_commit_and_sweep(store: Storage) -> None:
    folder, other = store.scratch("plan"), store.scratch("plan")
    assert folder != other and folder.parent == Path(store.root, "plan", ".tmp")
    (folder / "s").write_bytes(b"shard")
    (other / "orphan").write_bytes(b"?")
    store.commit_file(folder / "s", "plan/Split-train/s")
    assert store.list_files("plan") == [("plan/Split-train/s", 5)]
    assert store.sweep("plan", older_than_seconds=3600) == 0
    assert store.sweep("plan") == 2 and store.sweep("plan") == 0
    assert files_below(store.root) == ["plan/Split-train/s"]
    assert not Path(store.root, "plan", ".tmp").exists()


def test_a_file_from_another_file_system_is_copied_outside_the_split_folder(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        seen.append(str(source))
        if Path(source) == tmp_path / "s":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    (tmp_path / "s").write_bytes(b"shard")
    store.commit_file(tmp_path / "s", "plan/Split-train/s")
    assert store.read_bytes("plan/Split-train/s") == b"shard" and not (tmp_path / "s").exists()
    assert Path(seen[1]).parent == Path(store.root, "plan", ".tmp")
    assert files_below(store.root) == ["plan/Split-train/s"]


def test_publish_syncs_the_file_before_and_the_folder_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "t").write_bytes(b"1")
    happened: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        happened.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("rename"), replace(a, b)))
    publish(tmp_path / "t", tmp_path / "d" / "x")
    assert happened == ["sync t", "rename", "sync d"]


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
    with pytest.raises(StorageMissing, match="cannot go live"):
        store.commit_tree(store.scratch("models"), "models/8", last="saved_model.pb")


def test_a_deleted_tree_vanishes_at_once(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p/manifest.json", "p/Split-train/a", "pq/b"):
        store.write_atomic(name, b"1")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            store.delete_tree("p")
    assert store.list_files("") == [("pq/b", 1)]
    assert store.sweep("") == 1
    with pytest.raises(UsageError):
        store.delete_tree("")


# --- what the operating system refuses ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_temporary_and_harms_nothing(small_disk: Path) -> None:
    store = open_storage(small_disk)
    store.write_atomic("a", b"old")
    with pytest.raises(TemporaryError, match="disk is full while writing .*/a: .*Free space and run again"):
        store.write_atomic("a", bytes(1 << 20))
    assert store.read_bytes("a") == b"old"
    assert files_below(small_disk) == ["a"]


def test_a_read_only_disk_is_for_a_person_to_put_right(small_disk: Path) -> None:
    store = open_storage(small_disk)
    store.write_atomic("d/a", b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    calls = [
        lambda: store.write_atomic("d/a", b"new"),
        lambda: store.delete("d/a"),
        lambda: store.delete_tree("d"),
        lambda: store.scratch("d"),
        lambda: store.compare_and_swap("d/a", b"", ABSENT),
        lambda: store.lock("d/.lock", owner="me").__enter__(),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="No permission for .*[Rr]ead-only"):
            call()
    assert store.read_versioned("d/a")[0] == b"old"


def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root is bound by no permissions")
    (tmp_path / "w").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="No permission"):
        open_storage(tmp_path / "w").write_atomic("a", b"")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, TemporaryError),
        (errno.EDQUOT, TemporaryError),
        (errno.EIO, TemporaryError),
        (errno.EACCES, UsageError),
        (errno.EROFS, UsageError),
        (errno.ENOENT, StorageMissing),
        (errno.ENAMETOOLONG, UsageError),
        (errno.EINVAL, OSError),
    ],
)
def test_each_refusal_has_its_exit_code(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind), os_errors("writing", "x"):
        raise OSError(number, os.strerror(number))


def test_a_file_where_a_folder_should_be(store: Storage) -> None:
    store.write_atomic("a", b"1")
    for call in (lambda: store.write_atomic("a/b", b""), lambda: store.lock("a/b", owner="x").__enter__()):
        with pytest.raises(UsageError):
            call()


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
    assert files_below(store.root) == ["c.json"]


def test_no_increment_is_lost_between_processes(store: Storage) -> None:
    code = """
        import sys
        from components.storage.atomic_files import StorageConflict
        from components.storage.open import open_storage
        store = open_storage(sys.argv[1])
        for _ in range(25):
            while True:
                data, version = store.read_versioned("n")
                try:
                    store.compare_and_swap("n", str(int(data or b"0") + 1).encode(), version)
                    break
                except StorageConflict:
                    continue
    """
    workers = [python(code, store.root) for _ in range(3)]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert store.read_bytes("n") == b"75"


# --- locks ---

HOLD = """
    import sys
    from components.storage.open import open_storage
    with open_storage(sys.argv[1]).lock("run/.lock", owner="the first"):
        print("ready", flush=True)
        sys.stdin.read()
"""


def hold(store: Storage) -> subprocess.Popen[str]:
    holder = python(HOLD, store.root)
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    return holder


def test_a_taken_lock_names_owner_and_start(store: Storage) -> None:
    holder = hold(store)
    try:
        said = json.loads(store.read_bytes("run/.lock"))
        assert set(said) == {"owner", "pid", "host", "started"} and said["pid"] == holder.pid
        with pytest.raises(TemporaryError, match="locked by the first") as caught:
            store.lock("run/.lock", owner="the second", wait_seconds=0.1, poll=0.02).__enter__()
        assert said["started"] in str(caught.value) and str(holder.pid) in str(caught.value)
    finally:
        holder.communicate("", timeout=60)
    assert holder.returncode == 0 and store.list_files("") == []
    with store.lock("run/.lock", owner="the second", wait_seconds=0):
        pass


def test_a_killed_holder_frees_its_lock(store: Storage) -> None:
    holder = hold(store)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert store.exists("run/.lock")
    with store.lock("run/.lock", owner="the second", wait_seconds=0) as held:
        held.check()
        assert json.loads(store.read_bytes("run/.lock"))["owner"] == "the second"


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


def test_a_waiting_process_gets_the_lock(store: Storage) -> None:
    holder = hold(store)
    taken = threading.Event()

    def wait() -> None:
        with store.lock("run/.lock", owner="the second", wait_seconds=60, poll=0.01):
            taken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    assert not taken.is_set()
    holder.communicate("", timeout=60)
    thread.join(60)
    assert taken.is_set()


def test_only_one_process_is_inside_at_a_time(store: Storage) -> None:
    code = """
        import sys
        from components.storage.open import open_storage
        store = open_storage(sys.argv[1])
        for _ in range(40):
            with store.lock("l", owner=sys.argv[2], wait_seconds=100, poll=0.0005):
                n = int(store.read_bytes("n"))
                store.write_atomic("n", str(n + 1).encode())
    """
    store.write_atomic("n", b"0")
    workers = [python(code, store.root, i) for i in range(3)]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert store.read_bytes("n") == b"120"


def test_a_second_lock_in_one_process_is_an_error_and_no_deadlock(store: Storage, tmp_path: Path) -> None:
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


def test_a_lock_is_freed_when_its_block_raises(store: Storage) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), store.lock("a", owner="x", wait_seconds=0):
            raise KeyError
    assert store.list_files("") == []


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
    holder = hold(store)
    Path(store.root, "run/.lock").write_bytes(garbage)
    try:
        with pytest.raises(TemporaryError, match="unknown owner"):
            store.lock("run/.lock", owner="x", wait_seconds=0).__enter__()
    finally:
        holder.communicate("", timeout=60)
