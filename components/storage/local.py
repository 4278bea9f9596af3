"""Storage on a file system: fsync and rename for commits, flock for locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.errors import UsageError
from components.storage.atomic_files import (
    TMP,
    StorageConflict,
    StorageMissing,
    copy_tree,
    fsync_dir,
    make_dirs,
    os_errors,
    publish,
    tmp_near,
)
from components.storage.base import ABSENT, HeldLock, Storage, check_path
from components.storage.local_lock import hold_flock, once_per_process

DELETED = "deleted."
"""How the name of a folder begins that is being deleted, in the root's `.tmp`."""


class LocalStorage(Storage):
    """A workspace that is a folder of this machine.

    Args:
        root: The folder; made when something is first written.
    """

    is_local = True

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))
        if os.path.exists(self.root) and not os.path.isdir(self.root):
            raise UsageError(f"{self.root} is a file.", "Give a folder as workspace.")

    def _at(self, path: str, *, prefix: bool = False) -> Path:
        return Path(self.root, check_path(path, prefix=prefix))

    def read_bytes(self, path: str) -> bytes:
        """See `Storage.read_bytes`."""
        file = self._at(path)
        with os_errors("reading", file):
            return file.read_bytes()

    def exists(self, path: str) -> bool:
        """See `Storage.exists`."""
        return self._at(path).is_file()

    def size(self, path: str) -> int:
        """See `Storage.size`."""
        file = self._at(path)
        with os_errors("reading", file):
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return file.stat().st_size

    def list_files(self, prefix: str) -> list[tuple[str, int]]:
        """See `Storage.list_files`."""
        found: list[tuple[str, int]] = []
        top = self._at(prefix, prefix=True)
        folders = [(str(top), f"{check_path(prefix, prefix=True)}/".lstrip("/"))]
        with os_errors("listing", top):
            while folders:
                folder, name = folders.pop()
                try:
                    entries = os.scandir(folder)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # missing from the start, or deleted while we listed
                with entries:
                    for entry in entries:
                        if entry.is_dir():
                            if entry.name != TMP:
                                folders.append((entry.path, f"{name}{entry.name}/"))
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            found.append((name + entry.name, entry.stat().st_size))
        return sorted(found)

    def list_dirs(self, prefix: str) -> list[str]:
        """See `Storage.list_dirs`."""
        top = self._at(prefix, prefix=True)
        with os_errors("listing", top):
            try:
                with os.scandir(top) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir() and entry.name != TMP)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def modified(self, prefix: str) -> float:
        """See `Storage.modified`."""
        newest = 0.0
        for path, _ in self.list_files(prefix):
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, self._at(path).stat().st_mtime)
        return newest

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        file = self._at(path)
        with os_errors("deleting", file):
            file.unlink(missing_ok=True)

    def delete_tree(self, prefix: str) -> None:
        """See `Storage.delete_tree`."""
        folder = self._at(prefix)
        with os_errors("deleting", folder):
            if folder.is_symlink():
                folder.unlink()
            if not folder.is_dir():
                return
            # A rename takes the whole folder away at once: nobody meets a manifest without its shards.
            gone = Path(self.root, TMP, f"{DELETED}{uuid.uuid4().hex[:12]}")
            make_dirs(gone.parent)
            try:
                os.rename(folder, gone)
                # Before anything in it goes: a power cut must not bring the manifest back without its shards.
                fsync_dir(gone.parent)
                fsync_dir(folder.parent)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                gone = folder
            _remove(gone)

    def finish_deletions(self) -> int:
        """See `Storage.finish_deletions`."""
        folder = Path(self.root, TMP)
        with os_errors("sweeping", folder):
            left = sorted(folder.glob(f"{DELETED}*"))
            for gone in left:
                _remove(gone)
        return len(left)

    def write_atomic(self, path: str, data: bytes, *, tmp_dir: str = TMP) -> None:
        """See `Storage.write_atomic`."""
        file = self._at(path)
        tmp = self._at(tmp_dir) / f"{file.name[:100]}.{uuid.uuid4().hex[:12]}"
        with os_errors("writing", file):
            make_dirs(tmp.parent)
            try:
                with open(tmp, "xb") as out:
                    out.write(data)
                publish(tmp, file)
            finally:
                tmp.unlink(missing_ok=True)

    def scratch(self, prefix: str) -> Path:
        """See `Storage.scratch`: `PREFIX/.tmp/ATTEMPT`, on the target's own file system."""
        folder = self._at(prefix, prefix=True) / TMP / uuid.uuid4().hex[:12]
        with os_errors("writing", folder):
            folder.mkdir(parents=True)
        return folder

    def work_folder(self) -> Path:
        """See `Storage.work_folder`: the root."""
        return Path(self.root)

    def commit_file(self, local_tmp: Path, path: str) -> None:
        """See `Storage.commit_file`."""
        file = self._at(path)
        with os_errors("writing", file):
            publish(local_tmp, file)

    def commit_tree(self, local_tmp: Path, prefix: str, *, last: str) -> None:
        """See `Storage.commit_tree`; a folder on another file system is copied first."""
        folder = self._at(prefix)
        if not (local_tmp / last).is_file():
            raise StorageMissing(f"{local_tmp / last} does not exist, so {folder} cannot go live.")
        with os_errors("writing", folder):
            for path in sorted(local_tmp.rglob("*"), reverse=True):
                _fsync(path)
            _fsync(local_tmp)
            make_dirs(folder.parent)
            try:
                os.rename(local_tmp, folder)  # replaces an empty folder only
            except OSError as error:
                if error.errno == errno.EXDEV:
                    near = tmp_near(folder)
                    copy_tree(local_tmp, near)
                    self.commit_tree(near, prefix, last=last)
                    shutil.rmtree(local_tmp)
                    return
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                raise StorageConflict(
                    f"{folder} exists already.", "Committed folders never change."
                ) from error
            _fsync(folder.parent)

    def sweep(self, prefix: str, *, older_than_seconds: float = 0) -> int:
        """See `Storage.sweep`."""
        return sweep_folder(self._at(prefix, prefix=True) / TMP, older_than_seconds)

    def local_copies(self, paths: Iterable[str], cache_dir: Path | None = None) -> list[Path]:
        """See `Storage.local_copies`: the files themselves."""
        files = [self._at(path) for path in paths]
        for file in files:
            if not file.is_file():
                raise StorageMissing(f"{file} does not exist.", "Check the path.")
        return files

    def local_tree(self, prefix: str, cache_dir: Path | None = None) -> Path:
        """See `Storage.local_tree`: the folder itself."""
        folder = self._at(prefix, prefix=True)
        if not folder.is_dir():
            raise StorageMissing(f"{folder} does not exist.", "Check the path.")
        return folder

    def read_versioned(self, path: str) -> tuple[bytes | None, str]:
        """See `Storage.read_versioned`: the version is the content's hash."""
        try:
            data = self.read_bytes(path)
        except StorageMissing:
            return None, ABSENT
        return data, hashlib.sha256(data).hexdigest()

    def compare_and_swap(self, path: str, data: bytes, expected_version: str) -> str:
        """See `Storage.compare_and_swap`."""
        file = self._at(path)
        with hold_flock(
            file.with_name(f".{file.name}.lock"), f"a change of {path}", wait_seconds=60, poll=0.01
        ):
            if self.read_versioned(path)[1] != expected_version:
                raise StorageConflict(f"{file} was changed by somebody else meanwhile.", "Run again.")
            self.write_atomic(path, data)
        return hashlib.sha256(data).hexdigest()

    @contextlib.contextmanager
    def lock(
        self, path: str, *, owner: str, wait_seconds: float = 60, poll: float = 0.5
    ) -> Iterator[HeldLock]:
        """See `Storage.lock`."""
        file = self._at(path)
        with once_per_process(os.path.realpath(file)), hold_flock(file, owner, wait_seconds, poll) as held:
            yield held


def _remove(folder: Path) -> None:
    """Deletes a folder that another process may be deleting, too."""

    def passed_over(_: object, path: str, problem: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(problem[1], FileNotFoundError):
            raise problem[1]

    shutil.rmtree(folder, onerror=passed_over)


def sweep_folder(folder: Path, older_than_seconds: float) -> int:
    """Removes a folder's entries that were last changed before that many seconds; returns how many."""
    removed = 0
    with os_errors("sweeping", folder):
        for entry in list(folder.iterdir()) if folder.is_dir() else []:
            try:
                if older_than_seconds and time.time() - entry.lstat().st_mtime < older_than_seconds:
                    continue
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
                removed += 1
            except FileNotFoundError:
                continue  # its writer was quicker
    if not older_than_seconds:
        with contextlib.suppress(OSError):
            folder.rmdir()
    return removed


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
