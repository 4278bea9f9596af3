"""Reads files of the workspace by names that came from elsewhere: no way leads out of it, not even by a link."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}", re.ASCII)
"""A folder or file that is ever served: no dot file, no separator, no per cent sign, nothing beyond ASCII."""

REPORT_BYTES = 32 * 1024 * 1024
JSON_BYTES = 32 * 1024 * 1024


def is_name(text: object) -> bool:
    """Says whether a text is one plain name."""
    return isinstance(text, str) and NAME.fullmatch(text) is not None


@contextlib.contextmanager
def _opened(root: Path, parts: tuple[str, ...], folder: bool) -> Iterator[int | None]:
    """Descriptor of root/parts, each part opened relative to the one before without following links; else None."""
    if not all(is_name(part) for part in parts):
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            for number, part in enumerate(parts, start=1):
                # A pipe that somebody left there must not block.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                if folder or number < len(parts):
                    flags |= os.O_DIRECTORY
                fd = os.open(part, flags, dir_fd=fd)
                stack.callback(os.close, fd)
        except OSError:
            yield None
            return
        yield fd


def read_bytes(root: Path, *parts: str, limit: int) -> bytes | None:
    """Content of a regular file below `root`; None where there is none, or it is larger than the limit."""
    with _opened(root, parts, folder=False) as fd:
        if fd is None:
            return None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        with open(fd, "rb", closefd=False) as file:
            return file.read(limit)


def read_json(root: Path, *parts: str) -> dict[str, Any] | None:
    """A JSON object below `root`; None where there is none."""
    data = read_bytes(root, *parts, limit=JSON_BYTES)
    try:
        value = json.loads(data) if data is not None else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def exists(root: Path, *parts: str) -> bool:
    """Says whether a regular file is there that `read_bytes` may read."""
    with _opened(root, parts, folder=False) as fd:
        return fd is not None and stat.S_ISREG(os.fstat(fd).st_mode)


def is_locked(root: Path, *parts: str) -> bool:
    """Says whether a process holds the lock of a run's folder; the kernel frees it however its holder dies.

    A shared lock is tried and let go at once: who wants the folder in that moment tries again.
    """
    with _opened(root, parts, folder=True) as folder:
        if folder is None:
            return False
        try:
            fd = os.open(".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # not to be read: say nothing that may be wrong
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False


def folders(root: Path, *parts: str) -> list[tuple[str, float]]:
    """Plainly named folders (no links) below root/parts, with the time of their last change."""
    with _opened(root, parts, folder=True) as fd:
        if fd is None:
            return []
        with os.scandir(fd) as entries:
            return sorted(
                (entry.name, entry.stat(follow_symlinks=False).st_mtime)
                for entry in entries
                if is_name(entry.name) and entry.is_dir(follow_symlinks=False)
            )
