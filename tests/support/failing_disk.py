"""A disk that fails at its n-th operation, below one folder: SQLite's way to try every place where work can stop.

The real code runs on the real disk. An audit hook of the interpreter sees `open`, `rename`, `remove`, `mkdir`, `rmdir`,
`link` and `flock` whatever module calls them, before they happen; `fsync`, `pwrite` and the files that `open` gives are
wrapped. What native libraries write themselves (Arrow's Parquet files, in `.tmp`) is not seen: it is unsynced until
somebody syncs it, which `Cut` does see.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import errno
import fcntl
import io
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

Kind = Literal["EIO", "ENOSPC", "kill", "cut"]
"""`EIO`: the n-th operation fails, and only that; `ENOSPC`: from the n-th on nothing that needs room succeeds; `kill`:
the process ends there, without any clean-up, a write half done; `cut`: likewise, and what was not synced is lost."""

KINDS: tuple[Kind, ...] = ("EIO", "ENOSPC", "kill", "cut")
ENDED = 99
"""Exit code of a process that `kill` or `cut` has ended."""

_NEEDS_ROOM = frozenset({"open", "write", "mkdir", "rename", "link", "fsync"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_active: FailingDisk | None = None


class FailingDisk:
    """Counts the operations below a folder while it is entered, and lets the n-th fail.

    Args:
        folder: Only what happens below it counts.
        at: The operation that fails, from 1 on; 0 for none.
        kind: How.

    Attributes:
        count: Operations so far.
        failed: The one that failed, for people; empty where none did.
    """

    def __init__(self, folder: Path, at: int = 0, kind: Kind = "EIO") -> None:
        self.folder, self.at, self.kind = os.path.realpath(folder), at, kind
        self.count = 0
        self.failed = ""
        self._lock = threading.RLock()
        self._undo = _Undo(self.folder) if kind == "cut" else None

    def __enter__(self) -> FailingDisk:
        global _active
        _install()
        assert _active is None
        self._patches = contextlib.ExitStack()
        for module, name, made in (
            (os, "fsync", self._fsync),
            (os, "pwrite", self._pwrite),
            (builtins, "open", self._open(builtins.open)),
            (io, "open", self._open(io.open)),
        ):
            self._patches.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, made)
        _active = self
        return self

    def __exit__(self, *_: object) -> None:
        global _active
        _active = None
        self._patches.close()

    def happens(self, operation: str, path: str, torn: Callable[[], None] = lambda: None) -> None:
        """Counts an operation that is about to happen, and lets it fail where it is its turn.

        Args:
            operation: Its name.
            path: What it is done to.
            torn: Does half of it.
        """
        if not self.covers(path):
            return
        with self._lock:
            self.count += 1
            due = self.at and (self.count == self.at or (self.count > self.at and self.kind == "ENOSPC"))
            if not due or (self.kind == "ENOSPC" and operation not in _NEEDS_ROOM):
                return
            self.failed = self.failed or f"{operation} {os.path.relpath(path, self.folder)}"
            if self.kind in ("kill", "cut"):
                with _paused():
                    torn()
                    if self._undo is not None:
                        self._undo.lose()
                os.write(2, f"{self.failed}\n".encode())
                os._exit(ENDED)
            if self.kind == "ENOSPC" and operation == "write":
                with _paused():
                    torn()
        code = errno.EIO if self.kind == "EIO" else errno.ENOSPC
        raise OSError(code, os.strerror(code), path)

    def covers(self, path: str) -> bool:
        """Whether a path lies below the folder."""
        return path.startswith(self.folder + os.sep)

    def seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Takes an event of the interpreter's audit."""
        if event == "open":
            path, mode, flags = arguments
            writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool(flags & _WRITES)
            if not isinstance(path, int):
                self.happens("open" if writes else "read", _name(path))
        elif event == "os.rename":
            source, target, source_dir, target_dir = arguments
            self.happens("rename", _name(target, target_dir))
            if self._undo is not None:
                self._undo.renaming(_name(source, source_dir), _name(target, target_dir))
        elif event in ("os.remove", "os.mkdir", "os.rmdir"):
            self.happens(event[3:], _name(arguments[0], arguments[-1]))
        elif event == "os.link":
            self.happens("link", _name(arguments[1]))
        elif event == "fcntl.flock" and arguments[1] != fcntl.LOCK_UN:
            self.happens("lock", _name(arguments[0]))

    def _fsync(self, fd: int) -> None:
        self.happens("fsync", _name(fd))
        _real_fsync(fd)
        if self._undo is not None:
            self._undo.synced(fd)

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self.happens("write", _name(fd), lambda: _real_pwrite(fd, data[: len(data) // 2], offset) and None)
        return _real_pwrite(fd, data, offset)

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opening(*args: Any, **more: Any) -> Any:
            file = real(*args, **more)
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if file.writable() and self.covers(_name(file.fileno())):
                    return _File(file, self, _name(file.fileno()))
            return file

        return opening


class _File:
    """An open file whose writes count."""

    def __init__(self, file: Any, disk: FailingDisk, path: str) -> None:
        self._file, self._disk, self._path = file, disk, path

    def write(self, data: Any) -> int:
        def torn() -> None:
            with contextlib.suppress(OSError):
                self._file.write(data[: len(data) // 2])
                self._file.flush()

        self._disk.happens("write", self._path, torn)
        written: int = self._file.write(data)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


class _Undo:
    """What a power cut takes away: content of files that was not synced, renames whose folder was not."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._kept = f"{folder}.before"
        os.makedirs(self._kept, exist_ok=True)
        self._safe = {_state(os.stat(file)) for file in _files(folder)}
        self._numbers = itertools.count()
        self._renamed: list[tuple[str, str, str]] = []

    def synced(self, fd: int) -> None:
        """A file's content, or a folder's entries, are on the disk."""
        status = os.fstat(fd)
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            self._renamed = [each for each in self._renamed if os.path.dirname(each[1]) != _name(fd)]
        else:
            self._safe.add(_state(status))

    def renaming(self, source: str, target: str) -> None:
        """A rename is about to happen; what it replaces is kept."""
        kept = ""
        if os.path.isfile(target):
            kept = os.path.join(self._kept, str(next(self._numbers)))
            with _paused():
                os.link(target, kept)
        self._renamed.append((source, target, kept))

    def lose(self) -> None:
        """Takes it away."""
        for source, target, kept in reversed(self._renamed):
            if not os.path.lexists(target):
                continue
            os.makedirs(os.path.dirname(source), exist_ok=True)
            os.rename(target, source)
            if kept:
                os.rename(kept, target)
        for file in _files(self.folder):
            if _state(os.stat(file)) not in self._safe:
                os.truncate(file, 0)


@dataclasses.dataclass(frozen=True)
class _State:
    inode: int
    size: int
    changed: int


def _state(status: os.stat_result) -> _State:
    return _State(status.st_ino, status.st_size, status.st_mtime_ns)


def _files(folder: str) -> list[str]:
    return [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names]


def _name(path: Any, folder: Any = -1) -> str:
    """Full name of a path, relative to a folder's descriptor or not, or of a descriptor."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    text = os.fsdecode(path)
    if os.path.isabs(text):
        return text
    return os.path.join(_name(folder) if isinstance(folder, int) and folder >= 0 else os.getcwd(), text)


@contextlib.contextmanager
def _paused() -> Iterator[None]:
    global _active
    before, _active = _active, None
    try:
        yield
    finally:
        _active = before


_real_fsync, _real_pwrite = os.fsync, os.pwrite
_installed = False


def _install() -> None:
    """A hook can't be taken away again: there is one, which does nothing while no disk fails."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    disk = _active
    if disk is not None and (event == "open" or event.startswith(("os.", "fcntl."))):
        disk.seen(event, arguments)


def in_child(work: Callable[[], Any], seconds: int = 60) -> tuple[int, str]:
    """Runs something in a fork of this process, as a kill needs it.

    Args:
        work: What is run.
        seconds: Then it is ended.

    Returns:
        Exit code (0 done, 1 an exception, ENDED, negative a signal), and what it wrote to standard error.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.alarm(seconds)
            os.dup2(writing, 2)
            work()
        except BaseException:
            import traceback

            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
