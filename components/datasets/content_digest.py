"""What a data set holds, as one number: the same for the same patches, whatever their names and shards."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core import arrow_arrays
from components.core.json_documents import canonical
from schemas.tables import SPLITS

_ROWS = 1 << 14
"""Rows that are hashed at a time, so that no second copy of all is made."""


def hash_pairs(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint64]:
    """fixed_size_binary(16) column -> uint64[N, 2]."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else arrow_arrays.digests([], 16)
    if not len(values):
        return np.empty((0, 2), np.uint64)
    data = np.frombuffer(values.buffers()[1], np.uint8)[values.offset * 16 : (values.offset + len(values)) * 16]
    return data.view(np.uint64).reshape(-1, 2)


class ContentDigest:
    """SHA-256 over the set of (pixels, label, group, split): independent of names, order, shards and times."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._parts: list[npt.NDArray[np.uint64]] = []

    def add(
        self, hashes: npt.NDArray[np.uint64], labels: npt.NDArray[np.int32], groups: pa.ChunkedArray, split: str
    ) -> None:
        """Adds the records of one shard: uint64[N, 2], int32[N], string[N]."""
        coded = pc.dictionary_encode(pa.concat_arrays(groups.chunks)) if groups.num_chunks else None
        if coded is None or not len(coded):
            return
        known = [self._codes.setdefault(g, len(self._codes)) for g in coded.dictionary.to_pylist()]
        codes = np.array(known, np.uint64)[arrow_arrays.values(coded.indices)]
        place = np.full(len(labels), SPLITS.index(split), np.uint64)
        self._parts.append(np.column_stack([hashes, labels.astype(np.uint64), codes, place]))

    def hexdigest(self) -> str:
        """The digest of all that was added."""
        names = sorted(self._codes)
        rank = np.empty(len(names), np.uint64)
        rank[[self._codes[n] for n in names]] = np.arange(len(names), dtype=np.uint64)
        rows = np.concatenate([np.empty((0, 5), np.uint64), *self._parts])
        rows[:, 3] = rank[rows[:, 3].astype(np.int64)]
        digest = hashlib.sha256(canonical(names))
        order = np.lexsort(rows.T[::-1])
        for start in range(0, len(order), _ROWS):
            digest.update(np.ascontiguousarray(rows[order[start : start + _ROWS]], "<u8").data)
        return digest.hexdigest()
