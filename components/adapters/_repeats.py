"""Patch ids that occur twice: a copy of the tree within the tree, or two files of one name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.adapters._tables import Sieve, extract


def reject_repeated_ids(sieve: Sieve) -> int:
    """Keeps one file of each patch id: the one with the shortest way from the root, then the first by path.

    A file that repeats another one below a further folder (same path but for the added folders, same size) is
    `nested_copy`: the IDC download has been seen with the whole tree in it a second time. Any other repetition
    is `duplicate_id`.

    Returns:
        How many patches that are left lie below a folder that also holds a nested copy.
    """
    encoded = sieve.table["patch_id"].combine_chunks().dictionary_encode()
    ids = encoded.indices.to_numpy()
    if len(encoded.dictionary) == len(ids):
        return 0
    paths = sieve.table["path"].combine_chunks()
    depth = pc.count_substring(paths, "/").to_numpy()
    order = np.lexsort((np.arange(len(ids)), depth, ids))  # rows are sorted by path already
    first = np.ones(len(ids), bool)
    first[1:] = ids[order][1:] != ids[order][:-1]
    kept = np.empty(len(ids), np.int64)
    kept[order] = np.maximum.accumulate(np.where(first, np.arange(len(ids)), 0))
    kept = order[kept]  # for each row the row that stays in its place
    again = np.flatnonzero(kept != np.arange(len(ids)))

    split = extract(paths, r"(?s)^(?P<folder>(?:.*/)?)(?P<name>[^/]*)$")
    folders = split.field("folder").dictionary_encode()
    folder, names = folders.indices.to_numpy(), folders.dictionary.to_pylist()
    pairs, of_pair = np.unique(np.stack([folder[kept[again]], folder[again]]), axis=1, return_inverse=True)
    below = [_added_folder(names[a], names[b]) for a, b in pairs.T]
    is_copy = np.array([bool(text) for text in below], bool)[of_pair.ravel()]
    sizes = sieve.table["size"].to_numpy()
    same_name = pc.equal(split.field("name").take(pa.array(kept)), split.field("name")).to_numpy(False)
    is_copy &= (sizes[kept] == sizes)[again] & same_name[again]

    nested, repeated = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    nested[again[is_copy]] = True
    repeated[again[~is_copy]] = True
    stays = pc.binary_join_element_wise("same patch id as", paths.take(pa.array(kept)), ", which stays", " ")
    copy_folders = tuple({text for text, used in zip(below, np.bincount(of_pair.ravel()[is_copy], minlength=len(below)))
                          if used})
    only_there = pa.array(np.zeros(len(ids), bool))
    for name in copy_folders:
        only_there = pc.or_(only_there, pc.starts_with(paths, name))
    only = pc.sum(pc.and_(only_there, pa.array(~(nested | repeated)))).as_py() or 0
    keep = pa.array(~nested)
    sieve.reject(nested, "nested_copy", stays)
    sieve.reject(pa.array(repeated).filter(keep), "duplicate_id", stays.filter(keep))
    return only


def _added_folder(outer: str, inner: str) -> str:
    """Folder below which `inner` repeats `outer` (`a/b/`, `a/copy/b/` -> `a/copy/`); empty where it does not."""
    a, b = outer.split("/")[:-1], inner.split("/")[:-1]
    more = len(b) - len(a)
    for i in range(len(a) + 1):
        if more > 0 and a[:i] == b[:i] and a[i:] == b[i + more :]:
            return "/".join(b[: i + more]) + "/"
    return ""
