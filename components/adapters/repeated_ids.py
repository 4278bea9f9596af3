"""Patch ids that occur twice: a copy of the tree within the tree, or two files of one name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.sieve import Sieve, extract
from components.core import arrow_arrays
from components.core.array_types import Integers


def reject_repeated_ids(sieve: Sieve) -> int:
    """Keeps one file of each patch id: the one with the shortest way from the root, then the first by path.

    A file that repeats another one below a further folder (same path but for the added folders, same size) is
    `nested_copy`: the IDC download has been seen with the whole tree in it a second time. Any other
    repetition is `duplicate_id`.

    Args:
        sieve: Table with path (sorted), size and patch_id.

    Returns:
        How many of the patches that stay lie in a nested copy and nowhere else.
    """
    ids = _numbered(sieve.table["patch_id"].combine_chunks())
    rows = np.arange(len(ids))
    if len(ids) == 0 or ids.max() == len(ids) - 1:
        return 0
    paths = sieve.table["path"].combine_chunks()
    sizes = arrow_arrays.values(sieve.table["size"])
    depth = arrow_arrays.values(pc.count_substring(paths, "/"))
    order = np.lexsort((rows, depth, ids))
    starts = np.r_[True, ids[order][1:] != ids[order][:-1]]
    kept = np.empty_like(rows)  # for each row the row that stays in its place
    kept[order] = order[np.maximum.accumulate(np.where(starts, rows, 0))]
    again = np.flatnonzero(kept != rows)

    # Pairs of folders are few even where every file is there twice: Python looks at each pair once.
    parts = extract(paths, r"(?s)^(?P<folder>(?:.*/)?)(?P<name>[^/]*)$")
    encoded = pc.dictionary_encode(parts.field("folder"))
    folder, folders = arrow_arrays.values(encoded.indices), encoded.dictionary.to_pylist()
    pairs, pair_of = np.unique(folder[kept[again]].astype(np.int64) * len(folders) + folder[again], return_inverse=True)
    added = [_added_folder(folders[pair // len(folders)], folders[pair % len(folders)]) for pair in pairs.tolist()]
    names = parts.field("name")
    earlier, later = (pc.take(names, arrow_arrays.numbers(rows)) for rows in (kept[again], again))
    same_name = arrow_arrays.values(pc.equal(earlier, later))
    copied = np.array([bool(text) for text in added])[pair_of] & same_name & (sizes[kept[again]] == sizes[again])

    nested, repeated = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    nested[again[copied]] = True
    repeated[again[~copied]] = True
    copies = tuple({added[pair] for pair in np.unique(pair_of[copied])})
    in_copy = np.array([text.startswith(copies) for text in folders])[folder]
    sieve.reject(nested, "nested_copy", "in a second copy of the tree; the same path exists outside of it")
    if repeated.any():
        left = np.flatnonzero(~nested)
        stays = pc.binary_join_element_wise("same patch id as", paths.take(arrow_arrays.numbers(kept[left])), " ")
        sieve.reject(repeated[left], "duplicate_id", stays)
    return int(np.count_nonzero(in_copy & ~nested & ~repeated))


def _numbered(values: pa.Array) -> Integers:
    """Numbers equal values equally, from 0 without gaps."""
    # By sorting: a hash table of 277,524 ids costs 60 MB and five times as long.
    order = pc.sort_indices(values)
    ordered = pc.take(values, order)
    numbers = np.empty(len(values), np.int64)
    if len(values):
        changes = arrow_arrays.values(pc.not_equal(ordered[1:], ordered[:-1]))
        numbers[arrow_arrays.values(order)] = np.r_[0, np.cumsum(changes)]
    return numbers


def _added_folder(outer: str, inner: str) -> str:
    """Folder below which `inner` repeats `outer` (`a/b/`, `a/copy/b/`: `a/copy/`), else empty."""
    a, b = outer.split("/")[:-1], inner.split("/")[:-1]
    more = len(b) - len(a)
    for i in range(len(a) + 1):
        if more > 0 and a[:i] == b[:i] and a[i:] == b[i + more :]:
            return "/".join(b[: i + more]) + "/"
    return ""
