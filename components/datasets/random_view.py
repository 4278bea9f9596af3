"""A committed data set split at random by patch, as the leakage report needs it: only a view, nothing is copied."""

from __future__ import annotations

import hashlib

import numpy as np

from components.datasets.committed import DatasetFiles
from components.datasets.fold_view import RegroupedFiles, all_rows, view_of
from schemas.tables import SPLITS

_STREAM = 0x6C65616B
"""Parts these draws from all others that come from the same seed."""


def split_at_random(data: DatasetFiles, seed: int) -> RegroupedFiles:
    """Deals a data set's patches out anew, whoever they are of: each split holds as many of every class as before.

    Args:
        data: As it was committed, split by patient.
        seed: Of the draw.

    Raises:
        DataError: A sidecar does not fit the manifest.
    """
    rows = all_rows(data, ("label", "offset"))
    places = [np.full(shard.count, SPLITS.index(split), np.int8) for split, shard in data.manifest.all_shards()]
    place, labels = np.concatenate(places), rows["label"].to_numpy()
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, _STREAM))))
    for label in range(len(data.classes)):
        mine = np.flatnonzero(labels == label)
        place[mine] = generator.permutation(place[mine])
    return view_of(data, rows, place, hashlib.sha256(place.tobytes()).hexdigest())
