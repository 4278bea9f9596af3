"""Colours of what is predicted: measured where the pixels are at hand, kept as sums by group in each finished part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.datasets.layout import sidecar_path
from components.errors import DataError
from components.images.colour_features import block_features
from components.metrics import scored_drift
from components.metrics.scored_drift import IMAGE, WHOLE, ColourSums
from components.promotion.data_gates import STATISTICS
from components.storage.base import Storage
from schemas.tables import COLOUR_COLUMNS, COLOUR_FEATURES

BLOCK = 128
"""Images that are measured at once."""

FOLDER = "folder"
"""Unit where no image's patient or slide is known: all of them count as one."""

_ORDER = [COLOUR_FEATURES.index(name) for name in COLOUR_COLUMNS]


def read_statistics(model_dir: Path) -> dict[str, Any] | None:
    """Colour statistics of the data that a model was trained on; None where it carries none that can be read."""
    try:
        found = json.loads((model_dir / "assets.extra" / STATISTICS).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def unit_of(statistics: Mapping[str, Any] | None) -> str:
    """What the statistics' groups are: `patient`, `slide` or `image`; empty where nothing is to be measured."""
    return "" if statistics is None else str(statistics.get("group_unit") or "patient")


def group_names(rows: pa.RecordBatch, unit: str) -> list[str]:
    """Group under which each row is measured: patient, else slide, else `WHOLE`; where images are groups, always that.

    Args:
        rows: Of `PLAN_SCHEMA`.
        unit: As `unit_of` gives it.
    """
    if unit == IMAGE:
        return [WHOLE] * len(rows)
    group, slide = (arrow_arrays.python(rows.column(rows.schema.get_field_index(n))) for n in ("group_id", "slide_id"))
    return [g or s or WHOLE for g, s in zip(group, slide)]


class PartColours:
    """The colours of one part.

    Args:
        names: Group of each row of the part, from `group_names`.

    Attributes:
        sums: What was measured; whole after `flush`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.sums = ColourSums()
        self._names = names
        self._rows: list[int] = []
        self._pixels: list[npt.NDArray[np.uint8]] = []

    def see(self, row: int, pixels: npt.NDArray[np.uint8]) -> None:
        """Takes a patch as the model gets it, uint8[H, W, 3]."""
        self._rows.append(row)
        self._pixels.append(pixels)
        if len(self._rows) == BLOCK:
            self.flush()

    def flush(self) -> None:
        """Measures what was taken."""
        if self._rows:
            features = block_features(np.stack(self._pixels)).colour[:, _ORDER]
            self.sums.add([self._names[row] for row in self._rows], features)
            self._rows, self._pixels = [], []

    def see_records(self, storage: Storage, shard: str, offsets: Sequence[int]) -> None:
        """Takes records by what ingest has measured of them: the shard's sidecar holds it.

        Args:
            storage: Holds the data set.
            shard: Path of the shard there.
            offsets: Of the part's records, in its order.

        Raises:
            DataError: The sidecar does not know one of them.
        """
        folder, _, file = shard.rsplit("/", 2)
        table = pq.read_table(storage.local_copy(f"{folder}/{sidecar_path(file)}"), columns=["offset", *COLOUR_COLUMNS])
        known = arrow_arrays.values(table["offset"])
        order = np.argsort(known)
        at = np.minimum(np.searchsorted(known, offsets, sorter=order), len(known) - 1)
        if not len(known) or (known[order[at]] != np.asarray(offsets)).any():
            raise DataError(
                f"The sidecar of {storage.uri(shard)} lacks some of its records.",
                "Run `histoline verify` on the data set and ingest it again.",
            )
        features = np.stack([table[name].to_numpy() for name in COLOUR_COLUMNS], axis=1)
        self.sums.add(self._names, features[order[at]])


def to_meta(sums: ColourSums) -> dict[str, list[float]]:
    """Sums as plain JSON."""
    return {name: row.tolist() for name, row in sums.sums.items()}


def together(parts: Sequence[Mapping[str, Sequence[float]] | None]) -> ColourSums:
    """The sums of all parts; those that measured nothing are left out.

    Args:
        parts: What `to_meta` gave, in the order of the parts: it decides on the last bits.
    """
    whole = ColourSums()
    for part in parts:
        for name, row in (part or {}).items():
            values = np.asarray(row, np.float64)
            whole.sums[name] = whole.sums[name] + values if name in whole.sums else values
    return whole


def report(
    parts: Sequence[Mapping[str, Sequence[float]] | None], statistics: Mapping[str, Any] | None, version: str
) -> dict[str, Any]:
    """What the summary says of drift.

    Args:
        parts: What `to_meta` gave, in the order of the parts.
        statistics: Of the model, None where it carries none.
        version: What the model is called.
    """
    scored, unit = together(parts), unit_of(statistics)
    unknown = unit != IMAGE and set(scored.sums) == {WHOLE}
    return scored_drift.report(scored, statistics, version, FOLDER if unknown else unit)
