"""All objects below a prefix of a bucket, several prefixes listed side by side."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.api_core.retry import Retry
from google.cloud import storage

THREADS = 8
"""Requests at once: one waits for the network nearly all its time, and the client keeps ten connections."""

ENOUGH = 4 * THREADS
"""Prefixes from which on no level more is looked for: one large patient must not be what all wait for."""

_FIELDS = "items(name,size,generation),prefixes,nextPageToken"


class Object(NamedTuple):
    """An object as a listing shows it: its name in the bucket, bytes, generation."""

    name: str
    size: int
    generation: int


def list_objects(store: storage.Bucket, prefix: str, retry: Retry) -> Iterator[Object]:
    """Yields every object below a prefix, in the order of one listing: by name.

    A bucket answers a thousand names a request, and the next request needs the answer before. So prefixes that end
    in a slash are found level by level until there are enough of them, then listed side by side. A flat folder has
    none, and is listed as ever.

    Args:
        store: The bucket.
        prefix: Empty for the whole bucket, else with a trailing slash.
        retry: For every request.

    Raises:
        google.api_core.exceptions.GoogleAPICallError: As the client raises it.
    """

    def level(prefix: str) -> list[Object | str]:
        pages = store.list_blobs(prefix=prefix, delimiter="/", fields=_FIELDS, retry=retry)
        found: list[Object | str] = [_object(blob) for blob in pages]
        # A listing is in the order of UTF-8, which is that of code points.
        return sorted([*found, *pages.prefixes], key=_name)

    def below(prefix: str) -> list[Object]:
        return [_object(blob) for blob in store.list_blobs(prefix=prefix, fields=_FIELDS, retry=retry)]

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        entries: list[Object | str] = [prefix]
        while 0 < len(folders := [entry for entry in entries if isinstance(entry, str)]) < ENOUGH:
            levels = dict(zip(folders, pool.map(level, folders), strict=True))
            entries = [one for entry in entries for one in (levels[entry] if isinstance(entry, str) else (entry,))]
        rest = pool.map(below, folders)
        for entry in entries:
            if isinstance(entry, str):
                yield from next(rest)
            else:
                yield entry


def _object(blob: Any) -> Object:
    return Object(blob.name, int(blob.size), int(blob.generation))


def _name(entry: Object | str) -> str:
    return entry if isinstance(entry, str) else entry.name
