"""Reading raw image files, from a folder or from gs://, many at a time."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from components.core.regular_files import read_regular
from components.core.rejects import Rejected
from components.errors import HistolineError, TemporaryError
from components.storage.atomic_files import StorageMissing


class Source(Protocol):
    """A root under which raw images lie."""

    def read_many(self, paths: Sequence[str], sizes: Sequence[int]) -> Iterator[bytes | Rejected]:
        """Yields the bytes of each path (relative to the root), or why it can't be read, in order.

        Args:
            paths: POSIX paths relative to the root.
            sizes: Bytes that discovery saw.

        Raises:
            TemporaryError: A file has changed since discovery.
        """

    def read_any(self, path: str, limit: int) -> bytes | None:
        """The bytes of one path, whatever happened to it since; None where it can't be had or exceeds `limit`."""


@functools.lru_cache(maxsize=8)
def open_source(root: str) -> Source:
    """A folder or a gs:// prefix."""
    return GcsSource(root) if root.startswith("gs://") else FolderSource(root)


def _changed(root: str, path: str) -> TemporaryError:
    return TemporaryError(
        f"{path!r} under {root} has changed while it was being ingested.",
        "Let the copying or downloading end, then run again.",
    )


class FolderSource:
    """A local or mounted folder."""

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "")

    def read_many(self, paths: Sequence[str], sizes: Sequence[int]) -> Iterator[bytes | Rejected]:
        """See `Source`."""
        prefix, read, close, opened = self._root, os.read, os.close, os.open
        # The listing takes regular files only. What has become a FIFO since then gives nothing instead of waiting.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        for path, size in zip(paths, sizes):
            try:
                fd = opened(prefix + path, flags)
            except PermissionError:
                yield Rejected("unreadable", "permission denied")
                continue
            except FileNotFoundError:
                raise _changed(prefix, path) from None
            except OSError as error:  # such as a socket
                yield Rejected("unreadable", error.strerror or str(error))
                continue
            try:
                data = read(fd, size + 1)  # one byte more than expected shows a file that has grown
            except OSError as error:
                yield Rejected("unreadable", error.strerror or str(error))
                continue
            finally:
                close(fd)
            if len(data) != size:
                raise _changed(prefix, path)
            yield data

    def read_any(self, path: str, limit: int) -> bytes | None:
        """See `Source`."""
        try:
            return read_regular(self._root + path, limit)
        except (OSError, ValueError):
            return None


class GcsSource:
    """A prefix in a bucket; requests overlap, since each one waits for the network."""

    THREADS = 16

    def __init__(self, root: str) -> None:
        from components.adapters.listing import open_bucket

        self._root = root
        self._bucket, self._prefix = open_bucket(root)
        self._pool = ThreadPoolExecutor(self.THREADS)

    def _read(self, path: str) -> bytes:
        from components.storage.gcs_client import gcs_errors, retry_for

        with gcs_errors("reading", f"{self._root}/{path}"):
            return bytes(self._bucket.blob(self._prefix + path).download_as_bytes(retry=retry_for()))

    def read_many(self, paths: Sequence[str], sizes: Sequence[int]) -> Iterator[bytes | Rejected]:
        """See `Source`."""
        try:
            for path, size, data in zip(paths, sizes, self._pool.map(self._read, paths)):
                if len(data) != size:
                    raise _changed(self._root, path)
                yield data
        except StorageMissing as error:
            raise TemporaryError(f"{error.what} It was there when the folder was listed.", "Run again.") from None

    def read_any(self, path: str, limit: int) -> bytes | None:
        """See `Source`."""
        try:
            data = self._read(path)
        except HistolineError:
            return None
        return data if len(data) <= limit else None
