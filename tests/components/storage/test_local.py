"""What a storage on a file system does beyond the contract: real processes, a full disk and a read-only one."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import TemporaryError, UsageError
from components.storage.atomic_files import StorageMissing, os_errors, publish
from components.storage.base import ABSENT, Storage, check_path
from components.storage.open import open_storage
from tests.support.storage_help import python, side_by_side


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


# --- paths and roots ---


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


def test_listing_leaves_temporaries_out(store: Storage) -> None:
    store.write_atomic("a/c", b"333")
    (Path(store.root) / "a" / ".tmp").mkdir()
    (Path(store.root) / "a" / ".tmp" / "half").write_bytes(b"?")
    assert store.list_files("a") == store.list_files("") == [("a/c", 3)]
    assert store.list_dirs("a") == [] and store.list_dirs("") == ["a"]


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


def test_readers_meet_whole_files_while_many_processes_write(store: Storage, tmp_path: Path) -> None:
    # The writers go on until the reader has met the work of each of them, and changes between its reads.
    code = """
        while not os.path.exists(sys.argv[3]):
            store.write_atomic("d/x", sys.argv[2].encode() * 50000)
    """
    store.write_atomic("d/x", b"0" * 50000)
    stop = tmp_path / "stop"
    writers = side_by_side(OPEN, code, *((store.root, letter, stop) for letter in "abc"))
    met: set[int] = set()
    changes, last = 0, ord("0")
    try:
        while len(met & set(b"abc")) < 3 or changes < 20:
            data = store.read_bytes("d/x")
            assert len(data) == 50000 and len(set(data)) == 1
            changes += data[0] != last
            met.add(last := data[0])
            assert [writer.poll() for writer in writers] == [None] * 3
    finally:
        stop.touch()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert files_below(store.root) == ["d/x"]


def test_scratch_lies_in_the_temporary_folder_which_a_sweep_removes(store: Storage) -> None:
    folder = store.scratch("plan")
    assert folder.parent == Path(store.root, "plan", ".tmp")
    (folder / "s").write_bytes(b"shard")
    store.commit_file(folder / "s", "plan/Split-train/s")
    assert store.sweep("plan") == 1
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


def test_a_tree_without_what_makes_it_live_is_refused(store: Storage) -> None:
    with pytest.raises(StorageMissing, match="cannot go live"):
        store.commit_tree(store.scratch("models"), "models/8", last="saved_model.pb")


def test_a_deleted_tree_vanishes_at_once(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p/manifest.json", "p/Split-train/a", "pq/b"):
        store.write_atomic(name, b"1")

    def die(*_: object, **__: object) -> None:
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
