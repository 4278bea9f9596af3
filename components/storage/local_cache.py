"""The cache folder of this machine: copies of a bucket's objects, kept below a size; the longest unused go first.

Copies that a process was given stay for as long as it runs: each process lists what it uses in a file that it holds an
flock on, which the kernel frees when the process dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from components.errors import UsageError
from components.storage.atomic_files import TMP, os_errors
from components.storage.local import sweep_folder
from components.storage.local_lock import hold_flock

FOLDER, LIMIT = "HISTOLINE_CACHE", "HISTOLINE_CACHE_LIMIT"
"""Environment variables: the folder, and the most bytes of copies in it."""

DEFAULT_LIMIT = "100G"
COPIES, USED = "gs", ".used"
ABANDONED_SECONDS = 86400.0
"""Age at which a half-fetched copy counts as left behind by a killed process."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_log = logging.getLogger(__name__)
_held: dict[tuple[int, Path], UsedPaths] = {}
_counted: dict[Path, tuple[float, int]] = {}
COUNT_SECONDS = 10.0
"""How long this process trusts its last count of a cache, where that leaves room."""


def default_cache_dir() -> Path:
    """Returns HISTOLINE_CACHE, else `histoline` in the user's cache folder."""
    own = os.environ.get(FOLDER)
    return (
        Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "histoline"
    )


def work_folder(root: str) -> Path:
    """Returns the lasting local folder that belongs to a workspace in a bucket; it is no part of what is evicted.

    Args:
        root: `gs://bucket[/prefix]`.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.removeprefix("gs://"))[:60]
    return default_cache_dir() / "work" / f"{name}-{hashlib.sha256(root.encode()).hexdigest()[:8]}"


def cache_limit() -> int:
    """Returns the most bytes of copies, by HISTOLINE_CACHE_LIMIT: such as 500M or 2T; 0 for no limit.

    Raises:
        UsageError: It is no size.
    """
    text = os.environ.get(LIMIT) or DEFAULT_LIMIT
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise UsageError(f"{LIMIT} is {text!r}, which is no size.", "Write a number and K, M, G or T, such as 200G.")
    return int(float(match[1]) * _UNITS[match[2]])


class UsedPaths:
    """The list of what one process uses of a cache.

    Args:
        folder: The cache.
    """

    def __init__(self, folder: Path) -> None:
        self._paths: set[str] = set()
        file = folder / USED / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        # Never closed: the lock goes with the last process that has the file open, this one or a fork of it.
        self._file = open(file, "a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def covers(self, path: str) -> bool:
        """Says whether a path, or a folder above it, is in the list."""
        return any(part in self._paths for part in _and_above(path))

    def add(self, paths: Iterable[str]) -> None:
        """Puts paths into the list."""
        new = set(paths) - self._paths
        self._file.write("".join(f"{path}\n" for path in new))
        self._file.flush()
        self._paths |= new


def use(folder: Path, paths: Iterable[str]) -> None:
    """Notes that this process is about to use copies, so that none of them is evicted while it runs.

    Args:
        folder: The cache.
        paths: Files or folders, relative to it, whether they are there yet or not.
    """
    key = (os.getpid(), folder)
    wanted = [path for path in paths if key not in _held or not _held[key].covers(path)]
    if not wanted:
        return
    with os_errors("writing", folder), _alone(folder):
        if key not in _held:
            _held[key] = UsedPaths(folder)
        _held[key].add(wanted)


def make_room(folder: Path, needed: int) -> int:
    """Deletes the longest unused copies until so many bytes more stay below the limit.

    What running processes use stays, even where that alone is more than the limit.

    Args:
        folder: The cache.
        needed: Bytes that are about to be fetched.

    Returns:
        Bytes that were deleted.
    """
    limit = cache_limit()
    if not limit:
        return 0
    at, held = _counted.get(folder, (-COUNT_SECONDS, 0))
    if time.monotonic() - at < COUNT_SECONDS and held + needed <= limit:
        _counted[folder] = (at, held + needed)
        return 0
    sweep_folder(folder / TMP, ABANDONED_SECONDS)
    freed = 0
    with os_errors("writing", folder), _alone(folder):
        files = sorted(_copies(folder))
        held = sum(size for _, size, _ in files) + needed
        _counted[folder] = (time.monotonic(), held)
        excess = held - limit
        if excess <= 0:
            return 0
        used = _used(folder)
        for _, size, file in files:
            if freed >= excess:
                break
            if not used.intersection(_and_above(file.relative_to(folder).as_posix())):
                file.unlink(missing_ok=True)
                freed += size
    if freed < excess:
        _log.warning(
            "%s holds more than %s=%s: running processes use all that is left", folder, LIMIT,
            os.environ.get(LIMIT) or DEFAULT_LIMIT,
        )  # fmt: skip
    return freed


def _copies(folder: Path) -> list[tuple[int, int, Path]]:
    """(last use, bytes, file) of all copies."""
    found = []
    for top, _, names in os.walk(folder / COPIES):
        for name in names:
            file = Path(top, name)
            stat = file.lstat()
            found.append((stat.st_mtime_ns, stat.st_size, file))
    return found


def _used(folder: Path) -> set[str]:
    """What running processes use; the lists of dead ones are deleted."""
    used: set[str] = set()
    for listed in (folder / USED).glob("*"):
        with open(listed, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                listed.unlink()
            except BlockingIOError:
                used |= set(file.read().splitlines())
    return used


def _and_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _alone(folder: Path) -> AbstractContextManager[object]:
    """Keeps other processes and threads from listing and deleting meanwhile."""
    return hold_flock(folder / ".lock", "a look at the cache", wait_seconds=600, poll=0.01)


def touch(file: Path) -> None:
    """Notes that a copy was used just now."""
    os.utime(file, (time.time(), time.time()))
