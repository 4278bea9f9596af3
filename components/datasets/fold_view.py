"""A committed data set split anew by group: records are picked from the shards of all splits, and nothing is copied."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.core.array_types import Array, Bools, Integers
from components.datasets.committed import DatasetFiles, Split
from components.datasets.sidecars import read_sidecars
from components.errors import DataError
from schemas.tables import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class RegroupedFiles(DatasetFiles):
    """A data set of which each group stands where a plan says; read like any other.

    Attributes:
        chosen: Split to which rows of all sidecars, one after the other, belong to it; bool [patches].
    """

    chosen: Mapping[str, Bools] = dataclasses.field(default_factory=dict)

    def groups(self, *splits: str) -> list[str]:
        """Sorted groups that have patches in any of these splits."""
        return sorted({group for split in splits for group in self.table(split, ["group_id"])["group_id"].to_pylist()})

    def table(self, split: str, columns: Sequence[str]) -> pa.Table:
        """Columns of the sidecars of a split, in the order in which its records are read."""
        import pyarrow as pa

        return all_rows(self, columns).filter(pa.array(self.chosen[split]))


def regroup(data: DatasetFiles, split_of: Mapping[str, str]) -> RegroupedFiles:
    """Splits a data set anew.

    Args:
        data: As it was committed.
        split_of: Group to `train`, `eval` or `test`; patches of all other groups are left out.

    Raises:
        DataError: A sidecar does not fit the manifest.
    """
    rows = all_rows(data, ("group_id", "label", "offset"))
    coded = rows["group_id"].combine_chunks().dictionary_encode()
    places = np.array([_place(split_of.get(group)) for group in coded.dictionary.to_pylist()], np.int8)
    place = places[coded.indices.to_numpy()] if len(places) else np.zeros(0, np.int8)
    part = hashlib.sha256(json.dumps(sorted(split_of.items())).encode()).hexdigest()
    return view_of(data, rows, place, part)


def view_of(data: DatasetFiles, rows: pa.Table, place: Array, part: str) -> RegroupedFiles:
    """A view in which each record stands where it is told.

    Args:
        data: As it was committed.
        rows: Its sidecars, `label` and `offset` at least, as `all_rows` gives them.
        place: Of each row the number of its split in `SPLITS`; -1 for none.
        part: Digest of who is where.
    """
    labels, offsets = rows["label"].to_numpy(), rows["offset"].to_numpy()
    chosen = {name: place == number for number, name in enumerate(SPLITS)}
    stored = [(split, shard) for split, shard in data.manifest.all_shards()]
    ends = np.cumsum([shard.count for _, shard in stored])
    paths = [data.folder / data.manifest.path(split, shard) for split, shard in stored]
    splits = {}
    by_shard = np.split(offsets, ends[:-1])
    for name, mine in chosen.items():
        parts: list[Integers] = [held[keep] for held, keep in zip(by_shard, np.split(mine, ends[:-1]), strict=True)]
        with_some = [number for number, held in enumerate(parts) if len(held)]
        splits[name] = Split(
            name,
            tuple(paths[number] for number in with_some),
            tuple(int(n) for n in np.bincount(labels[mine], minlength=len(data.classes))),
            tuple(parts[number] for number in with_some),
        )
    return RegroupedFiles(data.folder, data.manifest, splits, part, chosen)


def all_rows(data: DatasetFiles, columns: Sequence[str]) -> pa.Table:
    """Columns of all sidecars, in the order of the manifest's shards.

    Raises:
        DataError: There are more or fewer rows than records.
    """
    shards = [shard for _, shard in data.manifest.all_shards()]
    table = read_sidecars([data.folder / data.manifest.sidecar(shard) for shard in shards], columns)
    if len(table) != sum(shard.count for shard in shards):
        raise DataError(
            f"The sidecars of {data.folder} hold {len(table)} rows, but its manifest says"
            f" {sum(shard.count for shard in shards)}.",
            "Run `histoline verify` on it; ingest again where it fails.",
        )
    return table


def _place(split: str | None) -> int:
    return -1 if split is None else SPLITS.index(split)
