"""Same pixels twice: which copies stay, and which pairs only look alike.

Pure functions over columns of the sidecars. Identical pixels may never stand in two splits nor under two labels;
constant (blank) images are exempt, since glass looks like glass in every patient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.tables import SPLITS

ON_DUPLICATE = ("keep-train", "fail")
ON_CONFLICT = ("reject-all", "fail")
PREFERENCE = ("train", "test", "eval")
"""Under `keep-train`, the copy in the first of these stays."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Columns of N records, in one order.

    Attributes:
        patch_id: string[N].
        path: string[N].
        split: int8[N], index into `SPLITS`.
        label: int32[N].
        pixel_hash: uint64[N, 2].
        constant: bool[N].
    """

    patch_id: pa.ChunkedArray
    path: pa.ChunkedArray
    split: npt.NDArray[np.int8]
    label: npt.NDArray[np.int32]
    pixel_hash: npt.NDArray[np.uint64]
    constant: npt.NDArray[np.bool_]

    def id(self, row: int) -> str:
        """patch_id of a row."""
        return str(self.patch_id[int(row)].as_py())

    def name(self, row: int) -> str:
        """Path of a row."""
        return str(self.path[int(row)].as_py())


@dataclasses.dataclass(frozen=True)
class Drop:
    """A record that a policy takes out.

    Attributes:
        row: Position in `Rows`.
        code: `duplicate` or `label_conflict`.
        detail: Which other image it equals.
    """

    row: int
    code: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Resolution:
    """What the policies decided.

    Attributes:
        drops: Records to take out, in the order of rows.
        violations: Sentences about what a policy of `fail` found.
        within_split: Copies that stay, since they share split and label with their twins.
        blank_copies: Constant images that equal another one and are exempt.
    """

    drops: list[Drop]
    violations: list[str]
    within_split: int
    blank_copies: int


def _runs(pixel_hash: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.intp]]:
    """Yields the rows of each hash that occurs more than once."""
    order = np.lexsort((pixel_hash[:, 1], pixel_hash[:, 0]))
    ordered = pixel_hash[order]
    same = (ordered[1:] == ordered[:-1]).all(1)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    for first, last in edges.reshape(-1, 2):
        yield order[first : last + 1]


def resolve(rows: Rows, on_duplicate: str = "keep-train", on_conflict: str = "reject-all") -> Resolution:
    """Applies the policies to identical pixels.

    `keep-train`: the copies in the first split of `PREFERENCE` stay; copies within one split and one label all stay.
    `reject-all`: pixels under two labels are rejected wherever they stand, since nobody knows which label is right.

    Args:
        rows: All records of the data set, those included that an earlier try has dropped already.
        on_duplicate: One of `ON_DUPLICATE`.
        on_conflict: One of `ON_CONFLICT`.

    Raises:
        ValueError: Unknown policy.
    """
    if on_duplicate not in ON_DUPLICATE or on_conflict not in ON_CONFLICT:
        raise ValueError(f"unknown policy: {on_duplicate!r}, {on_conflict!r}")
    rank = [PREFERENCE.index(split) for split in SPLITS]
    drops: list[Drop] = []
    violations: list[str] = []
    within = blank = 0
    for run in _runs(rows.pixel_hash):
        if rows.constant[run[0]]:
            blank += len(run) - 1
            continue
        run = np.array(sorted(run, key=lambda r: (rank[rows.split[r]], rows.id(r))))
        labels, splits = len(np.unique(rows.label[run])), len(np.unique(rows.split[run]))
        if labels > 1:
            if on_conflict == "fail":
                names = ", ".join(f"{rows.name(r)} (label {rows.label[r]})" for r in run[:4])
                violations.append(f"the same pixels under {labels} labels: {names}")
            drops += _conflicting(rows, run)
        elif splits > 1:
            if on_duplicate == "fail":
                names = ", ".join(f"{rows.name(r)} ({SPLITS[rows.split[r]]})" for r in run[:4])
                violations.append(f"the same pixels in {splits} splits: {names}")
            gone = _in_other_splits(rows, run)
            drops += gone
            within += len(run) - len(gone) - 1
        else:
            within += len(run) - 1
    return Resolution(sorted(drops, key=lambda d: d.row), violations, within, blank)


def _conflicting(rows: Rows, run: npt.NDArray[np.intp]) -> list[Drop]:
    """All copies, each with another one that has another label."""
    drops = []
    for row in run:
        other = next(o for o in run if rows.label[o] != rows.label[row])
        detail = f"same pixels as {rows.name(other)}, which has label {rows.label[other]}"
        drops.append(Drop(int(row), "label_conflict", detail))
    return drops


def _in_other_splits(rows: Rows, run: npt.NDArray[np.intp]) -> list[Drop]:
    """The copies that are not in the split of the first one, which stays."""
    keeper = run[0]
    detail = f"same pixels as {rows.name(keeper)} in {SPLITS[rows.split[keeper]]}"
    return [Drop(int(row), "duplicate", detail) for row in run[rows.split[run] != rows.split[keeper]]]


NEAR_BITS = 2
"""Hashes that differ in at most this many of 64 bits are taken for the same picture."""

NEAR_LEVELS = 6.0
"""... if their mean colours also differ by at most this many grey levels."""

MIN_TISSUE = 0.25
"""Patches with less tissue are too plain for their hash to mean anything."""

_BANDS = ((0, 22), (22, 21), (43, 21))
_MAX_BUCKET = 64


def near_duplicates(
    perceptual_hash: npt.NDArray[np.uint64],
    split: npt.NDArray[np.int8],
    mean_rgb: npt.NDArray[np.float32],
    tissue: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.intp], bool]:
    """Finds pairs across splits that look alike though their pixels differ (a re-saved or re-cropped copy).

    Hashes within two bits of each other agree in at least one of three bands (pigeonhole), so only patches that share
    a band are compared. A band value shared by more than 64 patches is a plain texture and is passed over.

    Args:
        perceptual_hash: uint64[N].
        split: int8[N].
        mean_rgb: float32[N, 3], grey levels.
        tissue: float32[N], fraction of the patch.

    Returns:
        intp[M, 2] of row pairs, sorted, and whether crowded band values were passed over.
    """
    usable = np.flatnonzero(tissue >= MIN_TISSUE)
    found: list[npt.NDArray[np.intp]] = []
    crowded = False
    for shift, bits in _BANDS:
        band = perceptual_hash[usable] >> np.uint64(shift) & np.uint64((1 << bits) - 1)
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        sizes = np.diff(np.concatenate((starts, [len(ordered)])))
        crowded |= bool((sizes > _MAX_BUCKET).any())
        size_of_row = np.repeat(np.where(sizes > _MAX_BUCKET, 0, sizes), sizes)
        for step in range(1, _MAX_BUCKET):
            # Row i against row i + step: the same bucket, which must hold more than `step` rows.
            left = np.flatnonzero(size_of_row[:-step] > step) if step < len(ordered) else np.empty(0, np.intp)
            left = left[ordered[left] == ordered[left + step]]
            if not len(left):
                continue
            pairs = np.stack((usable[order[left]], usable[order[left + step]]), 1)
            # At once: of millions of rows, many more pairs share a band by chance than are alike.
            pairs = pairs[split[pairs[:, 0]] != split[pairs[:, 1]]]
            found.append(pairs[_alike(pairs[:, 0], pairs[:, 1], perceptual_hash, mean_rgb)])
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.intp)
    return (np.unique(np.sort(pairs, axis=1), axis=0) if len(pairs) else pairs), crowded


def _alike(
    a: npt.NDArray[np.intp],
    b: npt.NDArray[np.intp],
    perceptual_hash: npt.NDArray[np.uint64],
    mean_rgb: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    """Whether rows a[i] and b[i] differ in at most NEAR_BITS bits and NEAR_LEVELS grey levels: bool[N]."""
    different = perceptual_hash[a] ^ perceptual_hash[b]
    for _ in range(NEAR_BITS):
        different &= different - np.uint64(1)  # takes out the lowest bit that is set
    alike: npt.NDArray[np.bool_] = different == 0
    alike[alike] = np.abs(mean_rgb[a[alike]] - mean_rgb[b[alike]]).max(1, initial=0) <= NEAR_LEVELS
    return alike
