"""Opening files that somebody else named: never waits, and takes regular files only.

A FIFO that is opened for reading waits until somebody writes, a device may never end, and a sparse file of terabytes
costs nothing on the disk and everything in memory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

MAX_BYTES = 1 << 30
"""Largest file that is read whole: lists of hundreds of millions of patches are smaller."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading bytes.

    Raises:
        OSError: It can't be opened, or is a FIFO, socket, device or folder.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: str | os.PathLike[str], limit: int = MAX_BYTES) -> bytes:
    """Reads a regular file whole.

    Args:
        path: The file.
        limit: Bytes beyond which nothing is read.

    Raises:
        OSError: As `open_regular`, or the file is larger than `limit`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the {limit:,} that are read", os.fspath(path))
        return file.read(limit + 1)


def read_regular_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Text of a regular file, line ends as in text mode.

    Raises:
        OSError: As `read_regular`.
        UnicodeDecodeError: It is no such text.
    """
    return read_regular(path).decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
