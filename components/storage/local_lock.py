"""Exclusive locks by flock(2): the kernel frees them when their process dies, however it dies.

On network file systems this holds only as far as the mount makes it: NFS (Linux clients, `local_lock=none`)
turns flock into a lock on the server, freed when the client's death is noticed; with `nolock` or
`local_lock=flock`, and on CIFS with `nobrl`, two machines do not see each other's locks: share such a
workspace on gs:// instead.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import HistolineError, TemporaryError, UsageError
from components.storage.atomic_files import os_errors

_locked: set[tuple[int, str]] = set()
_locked_mutex = threading.Lock()
os.register_at_fork(before=_locked_mutex.acquire, after_in_parent=_locked_mutex.release,
                    after_in_child=_locked_mutex.release)  # fmt: skip


@contextlib.contextmanager
def once_per_process(name: str) -> Iterator[None]:
    """Refuses a second lock of one name in this process: it would wait for itself.

    Raises:
        HistolineError: Where this process holds the lock already (a bug, exit 70).
    """
    key = (os.getpid(), name)  # a forked child does not hold what its parent holds
    with _locked_mutex:
        if key in _locked:
            raise HistolineError(f"This process already holds the lock {name}; locks are not re-entrant.")
        _locked.add(key)
    try:
        yield
    finally:
        with _locked_mutex:
            _locked.discard(key)


class Flock:
    """An flock that is held.

    The file is deleted at release, so a lock counts only while its name still leads to the locked file.
    """

    def __init__(self, file: Path, fd: int, owner: str) -> None:
        self.file, self.fd, self.pid = file, fd, os.getpid()
        self.info: dict[str, Any] = {
            "owner": owner,
            "pid": self.pid,
            "host": socket.gethostname(),
            "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }

    def current(self) -> bool:
        """Says whether the lock file is still the one that is locked."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(self.file))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """See `HeldLock.check`."""
        if not self.current():
            raise TemporaryError(f"The lock {self.file} was deleted while it was held.", "Run again.")

    def release(self) -> None:
        """Deletes the lock file and frees the lock."""
        if os.getpid() != self.pid:
            return  # a forked child that unwinds its parent's stack
        if self.current():
            with contextlib.suppress(OSError):
                self.file.unlink()
        fcntl.flock(self.fd, fcntl.LOCK_UN)  # frees it even if a child is between fork and exec
        with _fd_mutex:
            _lock_fds.discard(self.fd)
            os.close(self.fd)


# A forked child shares its parent's flock: it must let go, or the lock would outlive a killed parent.
_lock_fds: set[int] = set()
_fd_mutex = threading.Lock()


def _drop_in_child() -> None:
    for fd in _lock_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    _lock_fds.clear()
    _fd_mutex.release()


os.register_at_fork(
    before=_fd_mutex.acquire, after_in_parent=_fd_mutex.release, after_in_child=_drop_in_child
)


@contextlib.contextmanager
def hold_flock(file: Path, owner: str, wait_seconds: float, poll: float) -> Iterator[Flock]:
    """Holds the lock while the `with` block runs; threads of one process wait for each other.

    Args:
        file: The lock file; parents are made, and it is deleted at release.
        owner: Who holds it, as a waiting user should read it.
        wait_seconds: How long to wait for another owner.
        poll: Seconds between two looks.

    Raises:
        TemporaryError: Where the wait was in vain.
        UsageError: Where the file cannot be made, or its file system knows no locks.
    """
    deadline = time.monotonic() + wait_seconds
    with os_errors("locking", file):
        while (held := _try_flock(file, owner)) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise busy(str(file), _holder(file), wait_seconds)
            time.sleep(min(poll, left))
    try:
        yield held
    finally:
        held.release()


def _try_flock(file: Path, owner: str) -> Flock | None:
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with _fd_mutex:
                fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                _lock_fds.add(fd)
        except FileNotFoundError:
            continue  # the folder was deleted between the two calls
        held = Flock(file, fd, owner)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if held.current():
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(held.info).encode(), 0)
                return held
            _close(fd)  # its last holder deleted the file after we had opened it
        except BlockingIOError:
            _close(fd)
            return None
        except OSError as error:
            _close(fd)
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise UsageError(
                    f"The file system of {file} knows no locks ({error.strerror}).",
                    "Mount it with locking, or use another --workspace.",
                ) from error
            raise


def _close(fd: int) -> None:
    with _fd_mutex:
        _lock_fds.discard(fd)
        os.close(fd)


def read_info(data: bytes) -> dict[str, Any]:
    """Returns what a holder wrote into its lock; empty where that is not readable."""
    try:
        info = json.loads(data)
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


def _holder(file: Path) -> dict[str, Any]:
    try:
        return read_info(file.read_bytes())
    except OSError:
        return {}  # released this moment


def busy(name: str, info: dict[str, Any], waited: float) -> TemporaryError:
    """Returns the error of a lock that stayed taken, naming owner and start time."""
    return TemporaryError(
        f"{name} is locked by {info.get('owner', 'an unknown owner')} (process {info.get('pid', '?')} on "
        f"{info.get('host', '?')}) since {info.get('started', 'an unknown time')}; waited {waited:g} s.",
        "Wait until it has ended, or stop it, then run again.",
    )
