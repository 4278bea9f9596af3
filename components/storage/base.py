"""Storage: one small interface for every commit and lock, on a local disk or on Google Cloud Storage.

Nothing here imports a cloud library: `open.open_storage` loads the implementation that the root asks for.
A path is always POSIX and relative to the storage's root; a prefix is such a path and means a folder, so that
`runs/a` never matches `runs/ab`. Temporaries live in folders named `.tmp`, which listings leave out.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from components.errors import UsageError
from components.storage.atomic_files import TMP

ABSENT = "0"
"""Version of a path that does not exist, as `read_versioned` gives it and `compare_and_swap` takes it."""


class HeldLock(Protocol):
    """A lock that this process holds.

    Attributes:
        info: What the lock file says: owner, pid, host, started (ISO 8601, UTC).
    """

    info: dict[str, Any]

    def check(self) -> None:
        """Raises TemporaryError if the lock was lost; ask right before a commit."""


def check_path(path: str, *, prefix: bool = False) -> str:
    """Returns the path if it stays inside the root, without a trailing slash where it is a prefix.

    Args:
        path: POSIX path relative to the root.
        prefix: True to allow a trailing slash and the empty string (the root itself).

    Raises:
        UsageError: For absolute paths, `.` and `..`, empty parts, NUL and line breaks.
    """
    checked = path[:-1] if prefix and path.endswith("/") else path
    parts = checked.split("/")
    bad = any(part in ("", ".", "..") for part in parts) or any(sign in checked for sign in "\0\r\n")
    if bad and not (prefix and path == ""):
        raise UsageError(
            f"{path!r} is not a path inside the workspace.",
            "Give a relative path with single slashes, without '.', '..', NUL or line breaks.",
        )
    return checked


class Storage(abc.ABC):
    """What the product asks of a workspace. Objects are picklable, for Beam workers.

    Attributes:
        root: Absolute folder or `gs://bucket/prefix`, without a trailing slash.
        is_local: True where paths under root are files of this machine.
    """

    root: str
    is_local: bool

    def uri(self, path: str) -> str:
        """Returns the full name of a path or prefix, as messages show it and other programs take it."""
        return f"{self.root}/{check_path(path, prefix=True)}".rstrip("/")

    @abc.abstractmethod
    def read_bytes(self, path: str) -> bytes:
        """Returns a file's content; StorageMissing where there is none."""

    @abc.abstractmethod
    def exists(self, path: str) -> bool:
        """Says whether there is a file (not a folder) of this name."""

    @abc.abstractmethod
    def size(self, path: str) -> int:
        """Returns a file's size in bytes; StorageMissing where there is none."""

    @abc.abstractmethod
    def list_files(self, prefix: str) -> list[tuple[str, int]]:
        """Returns (path relative to the root, bytes) of all files below prefix, sorted; empty if missing."""

    @abc.abstractmethod
    def list_dirs(self, prefix: str) -> list[str]:
        """Returns the names of the folders directly below prefix, sorted."""

    @abc.abstractmethod
    def modified(self, prefix: str) -> float:
        """Returns when the newest file below prefix was last written, in Unix time; 0 where there is none."""

    @abc.abstractmethod
    def delete(self, path: str) -> None:
        """Deletes one file; a missing one is no error."""

    @abc.abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Deletes a folder; local: it vanishes at once; gs: shallow files (commit points) go first.

        Where its process is killed half-way, gs: the deeper files are still there, to be deleted again; local: what is
        left has no name any more and goes with `finish_deletions`.
        """

    @abc.abstractmethod
    def finish_deletions(self) -> int:
        """Removes what killed calls of `delete_tree` left without a name, and returns how many folders."""

    @abc.abstractmethod
    def write_atomic(self, path: str, data: bytes, *, tmp_dir: str = TMP) -> None:
        """Writes or replaces a small file so that nobody ever reads a part of it.

        Args:
            path: The file.
            data: Its content.
            tmp_dir: Folder (relative to the root) for the temporary; unused on gs.
        """

    @abc.abstractmethod
    def scratch(self, prefix: str) -> Path:
        """Returns a new local folder to build prefix's files in; `sweep(prefix)` clears what is left."""

    @abc.abstractmethod
    def work_folder(self) -> Path:
        """Returns the lasting local folder for what needs a file system: local: the root itself; gs: one derived.

        Paths in it are those of the workspace. What lies there in the case of gs belongs to this machine alone.
        """

    @abc.abstractmethod
    def commit_file(self, local_tmp: Path, path: str) -> None:
        """Moves a finished local file to its path (local: fsync and rename; gs: verified upload)."""

    @abc.abstractmethod
    def commit_tree(self, local_tmp: Path, prefix: str, *, last: str) -> None:
        """Moves a finished local folder to a prefix that must not be live yet; StorageConflict if it is.

        Args:
            local_tmp: The folder; gone afterwards.
            prefix: Its final name.
            last: Relative path of the file that makes it live (on gs it is uploaded last).
        """

    @abc.abstractmethod
    def sweep(self, prefix: str, *, older_than_seconds: float = 0) -> int:
        """Removes what scratch and killed writers left for prefix and returns how many entries.

        Call it under the prefix's lock; for the root (shared by all) only with an age, such as a day.
        """

    @abc.abstractmethod
    def local_copies(self, paths: Iterable[str], cache_dir: Path | None = None) -> list[Path]:
        """Returns local files with the paths' content: local: the files; gs: a cache proved by crc32c."""

    def local_copy(self, path: str, cache_dir: Path | None = None) -> Path:
        """Returns one local file with the path's content; see `local_copies`."""
        return self.local_copies([path], cache_dir)[0]

    @abc.abstractmethod
    def local_tree(self, prefix: str, cache_dir: Path | None = None) -> Path:
        """Returns a local folder that holds exactly the files below prefix."""

    @abc.abstractmethod
    def read_versioned(self, path: str) -> tuple[bytes | None, str]:
        """Returns content and version for `compare_and_swap`; (None, ABSENT) where there is no file."""

    @abc.abstractmethod
    def compare_and_swap(self, path: str, data: bytes, expected_version: str) -> str:
        """Writes a file only if it still has the version that was read.

        Files changed this way must be changed in no other way.

        Returns:
            The new version.

        Raises:
            StorageConflict: Where the file has another version now; nothing is written.
        """

    @abc.abstractmethod
    def lock(
        self, path: str, *, owner: str, wait_seconds: float = 60, poll: float = 0.5
    ) -> AbstractContextManager[HeldLock]:
        """Holds an exclusive lock while the `with` block runs; not re-entrant.

        Args:
            path: The lock's own file, such as `runs/D/T/RUN_ID/.lock`.
            owner: Who holds it, as a waiting user should read it.
            wait_seconds: How long to wait for another owner.
            poll: Seconds between two looks.

        Raises:
            TemporaryError: Where the wait was in vain; names owner and start time.
            HistolineError: Where this process holds it already.
        """
