"""Files that are there whole or not at all: fsync, rename, and what the operating system's refusals mean."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from components.errors import TemporaryError, UsageError

TMP = ".tmp"
"""Name of every folder that holds temporaries; listings leave it out."""

# What the system's refusals mean, by error number; `os_errors` says it.
FULL = {errno.ENOSPC, errno.EDQUOT}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISSING = {errno.ENOENT}
_BAD_NAME = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class StorageMissing(UsageError):
    """The path to be read does not exist (exit 64)."""


class StorageConflict(TemporaryError):
    """Somebody else changed the path since it was read, or made it first (exit 75)."""


@contextlib.contextmanager
def os_errors(doing: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what the operating system refuses into sentences with the right exit code.

    Args:
        doing: Present participle for the sentence: `writing`, `reading`.
        path: What it is done to.

    Raises:
        StorageMissing: Where the path does not exist.
        UsageError: Where rights, a read-only file system or the name are in the way.
        TemporaryError: Where the disk is full or failed in a way that may pass. Anything else passes through.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            raise TemporaryError(
                f"The disk is full while {doing} {path}: {reason}.",
                "Free space and run again; finished shards are kept.",
            ) from error
        if error.errno in FORBIDDEN:
            raise UsageError(
                f"No permission for {doing} {path}: {reason}.",
                "Give the user who runs this write access, or choose another --workspace.",
            ) from error
        if error.errno in _MISSING:
            raise StorageMissing(f"{path} does not exist ({doing}).", "Check the path.") from error
        if error.errno == errno.EFBIG and doing == "writing":
            raise UsageError(
                f"{path} may not become so large: {reason}.",
                "Raise the limit of file sizes (ulimit -f), or choose a file system that takes such files.",
            ) from error
        if error.errno in _BAD_NAME:
            raise UsageError(f"{path} cannot be used for {doing}: {reason}.", "Choose another name.") from error
        if error.errno in PASSING:
            raise TemporaryError(f"{doing.capitalize()} {path} failed: {reason}.", "Run again.") from error
        raise


def fsync_file(fd: int) -> None:
    """Forces an open file's data to disk: where it is open anyway, then `publish(..., synced=True)`."""
    os.fsync(fd)


def fsync_dir(folder: str | os.PathLike[str]) -> None:
    """Forces a folder's entries to disk; without it a rename may be undone by a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # CIFS and some FUSE file systems cannot sync a folder; the rename itself is all that they offer.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(fd)


def make_dirs(folder: Path) -> None:
    """Makes a folder and its parents, and forces each new entry to disk."""
    if not folder.is_dir():
        make_dirs(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_dir(folder.parent)


def publish(tmp: Path, dst: Path, *, synced: bool = False) -> None:
    """Moves a finished file to its name so that readers see the old file or the whole new one, never a part.

    Args:
        tmp: The finished file; gone afterwards. From another file system it is copied first.
        dst: Its final name; parents are made, an existing file is replaced.
        synced: True where the caller has fsynced tmp already.

    Raises:
        OSError: As the system gave it; wrap in `os_errors`.
    """
    make_dirs(dst.parent)
    if not synced:
        fd = os.open(tmp, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fsync_file(fd)
        finally:
            os.close(fd)
    try:
        os.replace(tmp, dst)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = tmp_near(dst)
        make_dirs(near.parent)
        try:
            shutil.copyfile(tmp, near)
            publish(near, dst)
        finally:
            near.unlink(missing_ok=True)
        tmp.unlink()
        return
    fsync_dir(dst.parent)


def copy_tree(source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2) -> Path:
    """Copies a folder.

    Unlike `shutil.copytree`, which gathers errors in one that has lost their numbers, it stops at the first.

    Args:
        source: The folder.
        target: New folder; parents are made.
        copy: Copies one file.

    Returns:
        The target.

    Raises:
        UsageError, TemporaryError: As `os_errors`.
    """
    with os_errors("writing", target):
        target.mkdir(parents=True)
        for entry in sorted(source.iterdir()):
            if entry.is_dir():
                copy_tree(entry, target / entry.name, copy)
            else:
                copy(str(entry), str(target / entry.name))
    return target


def tmp_near(dst: Path) -> Path:
    """Returns an unused name in the closest `.tmp` beside dst that is not inside a Split folder.

    Every file in a Split folder is read as records, so a temporary must never appear in one.
    """
    folder = dst.parent
    while folder.name.startswith("Split-"):
        folder = folder.parent
    return folder / TMP / f"{dst.name}.{uuid.uuid4().hex[:12]}"
