"""Where an exported model looked when it was wrong: Grad-CAM of the worst errors, with a control by random weights.

A map that stays the same when the weights are shuffled tells of the image's edges, not of the model (Adebayo et al.
2018, arXiv:1810.03292): its rank correlation with the maps of shuffled networks is therefore kept beside it.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.array_types import Array, Pixels
from components.promotion.served_model import ServedModel

NAME = "error_maps.parquet"
"""In the run folder: one row per patch, the grey map as a PNG file of at most `SIDE` pixels a side."""

SCHEMA = pa.schema(
    [
        pa.field("patch_id", pa.string(), nullable=False),
        pa.field("called", pa.int32(), nullable=False),
        pa.field("map", pa.binary(), nullable=False),
    ]
)
CONTROL = b"control"
"""Key of the table's metadata with the control, as JSON."""

SIDE = 64
DRAWS = 3
CONTROLLED = 24
"""Patches whose maps are compared with those of shuffled networks."""


@dataclasses.dataclass(frozen=True)
class Control:
    """Do the maps depend on the weights?

    Attributes:
        correlation: Median over patches and draws of Spearman's rank correlation between the map and that of the
            same network with shuffled weights, both with what spoke against the class; 1 would be the same map.
        patches: Compared.
        draws: Shuffled networks.
    """

    correlation: float
    patches: int
    draws: int


@dataclasses.dataclass(frozen=True)
class ErrorMaps:
    """The maps of one run.

    Attributes:
        maps: Grey map uint8[h, w] of each patch and called class, 255 where the map is largest.
        control: Likewise.
    """

    maps: Mapping[tuple[str, int], Pixels]
    control: Control


def write(
    model: ServedModel, records: Sequence[bytes], names: Sequence[str], called: Array, batch: int, file: Path
) -> None:
    """Makes and writes the maps of some patches.

    Args:
        model: The exported model; its weights are shuffled and put back.
        records: Serialised Examples, N of them, at least one.
        names: Their patch ids.
        called: Class number that the model gave to each, [N].
        batch: Patches at once.
        file: Where to.

    Raises:
        NotServable: The model can't be asked.
    """
    maps = _maps(model, records, called, batch)
    rows = np.unique(np.linspace(0, len(records) - 1, CONTROLLED).round().astype(int))
    chosen = [records[row] for row in rows]
    correlations: list[float] = []
    for seed in range(DRAWS):
        with model.shuffled(seed):
            others = _maps(model, chosen, called[rows], batch)
        correlations += [rank_correlation(maps[row], other) for row, other in zip(rows, others, strict=True)]
    control = Control(round(float(np.median(correlations)), 4), len(rows), DRAWS)
    columns = [pa.array(names), pa.array(called, pa.int32()), pa.array([_png(one) for one in maps], pa.binary())]
    schema = SCHEMA.with_metadata({CONTROL: json.dumps(dataclasses.asdict(control))})
    pq.write_table(pa.table(columns, schema=schema), file)


def read(file: Path) -> ErrorMaps:
    """The maps of a run.

    Raises:
        ValueError: The file is damaged (pa.ArrowInvalid is one).
        OSError: Likewise.
    """
    from PIL import Image

    table = pq.read_table(file)
    control = Control(**json.loads((table.schema.metadata or {})[CONTROL]))
    names, called, maps = (table[name].to_pylist() for name in SCHEMA.names)
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("L")) for data in maps]
    return ErrorMaps(dict(zip(zip(names, called, strict=True), pixels, strict=True)), control)


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's rank correlation of two maps; 0 where either is the same everywhere."""
    from scipy.stats import rankdata

    a, b = (rankdata(one).astype(float) for one in (first, second))
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _maps(model: ServedModel, records: Sequence[bytes], called: Array, batch: int) -> Array:
    parts = [
        model.explain(records[start : start + batch], called[start : start + batch])
        for start in range(0, len(records), batch)
    ]
    return np.concatenate(parts)


def _png(values: Array) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.maximum(values, 0))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    small = np.asarray(image)
    peak = float(small.max())
    image = Image.fromarray((255 * (small / peak if peak > 0 else small)).round().astype(np.uint8))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
