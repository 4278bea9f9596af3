"""Which training patches an epoch uses where a recipe takes only so many of each class (`max_train_per_class`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.array_types import Array
from components.datasets.committed import DatasetFiles
from components.datasets.layout import shard_path
from components.datasets.tfrecord import read_at
from components.errors import DataError
from components.training.recipe_parts import ClassCap

_STREAM = 0x63617073
"""Parts these draws from those of the order, which come from the same seed and epoch."""


@dataclasses.dataclass(frozen=True)
class CappedClasses:
    """Draws the patches of an epoch.

    Attributes:
        cap: How many, and how often anew.
        by_class: Patches of an epoch per class in label order.
        labels: int32[N] of all training patches, in the order of the shards.
        groups: int[N], the number of each patch's patient (or slide).
        records: Where each one's record stands: shard and byte offset.
    """

    cap: ClassCap
    by_class: tuple[int, ...]
    labels: npt.NDArray[np.int32]
    groups: Array
    records: Sequence[tuple[Path, int]]

    def read(self, places: npt.NDArray[np.int64]) -> Array:
        """The serialised records at some places, as an array of bytes."""
        return np.array([read_at(*self.records[place]) for place in places], object)

    def members(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Sorted places of the patches of an epoch; equal seed and epoch give equal patches.

        Args:
            seed: Of the recipe.
            epoch: Its number.
        """
        number = epoch if self.cap.redraw == "epoch" else 0
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number, _STREAM))))
        drawn = [
            round_robin(np.flatnonzero(self.labels == label), self.groups, self.cap.count, rng)
            for label in np.unique(self.labels)
        ]
        return np.sort(np.concatenate(drawn))


def round_robin(
    places: npt.NDArray[np.int64], groups: Array, count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draws at most `count` of some places: one of each group in turn, so that no group gives many more than another.

    Args:
        places: int64[M], of one class.
        groups: int[N], the group of every place.
        count: How many at most.
        rng: Decides on the order of groups and within them.
    """
    shuffled = rng.permutation(places)
    _, mine = np.unique(groups[shuffled], return_inverse=True)
    turn = rng.permutation(int(mine.max()) + 1)[mine]  # when each group's turn comes
    order = np.argsort(mine, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(mine))[:-1]])
    rounds = np.empty(len(shuffled), np.int64)
    rounds[order] = np.arange(len(shuffled)) - starts[mine[order]]
    drawn: npt.NDArray[np.int64] = shuffled[np.lexsort((turn, rounds))[:count]]
    return drawn


def capped_classes(data: DatasetFiles, cap: ClassCap) -> CappedClasses | None:
    """What draws the training patches of an epoch; None where the recipe takes all of them.

    Raises:
        DataError: The sidecars do not agree with the manifest.
    """
    if not cap.count:
        return None
    split = data.splits["train"]
    table = data.table("train", ["split", "shard", "offset", "label", "group_id"])
    labels = table["label"].to_numpy().astype(np.int32)
    if tuple(np.bincount(labels, minlength=len(split.by_class))) != split.by_class:
        raise DataError(
            f"The sidecars and manifest.json of {data.folder} do not agree on the training split.",
            "Run histoline verify on the data set, then ingest again.",
        )
    groups = table["group_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    files = zip(table["split"].to_pylist(), table["shard"].to_pylist(), table["offset"].to_pylist(), strict=True)
    records = [(data.folder / shard_path(home, shard), offset) for home, shard, offset in files]
    by_class = tuple(min(count, cap.count) for count in split.by_class)
    return CappedClasses(cap, by_class, labels, groups, records)
