"""predictions.parquet as Arrow: probabilities of one class or several in one column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from components.core import arrow_arrays
from components.core.array_types import Array
from schemas import tables


def probability_column(probability: Array) -> pa.Array:
    """Probabilities as an Arrow column: float32 [N], or a list of C float32 each.

    Args:
        probability: [N] or [N, C].
    """
    flat = arrow_arrays.numbers(np.ascontiguousarray(probability, np.float32).reshape(-1))
    if probability.ndim == 1:
        return flat
    offsets = arrow_arrays.numbers(np.arange(len(probability) + 1, dtype=np.int32) * probability.shape[1])
    return pa.ListArray.from_arrays(offsets, flat)


def probability_values(column: pa.ChunkedArray) -> Array:
    """The values of such a column, float32 [N] or [N, C]."""
    if pa.types.is_list(column.type):
        flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
        rows: Array = flat.reshape(len(column), -1)
        return rows
    return np.asarray(column.to_numpy())


def predictions_schema(n_classes: int) -> pa.Schema:
    """Columns of predictions.parquet."""
    if n_classes == 2:
        return tables.PREDICTIONS
    place = tables.PREDICTIONS.get_field_index("probability")
    return tables.PREDICTIONS.set(place, pa.field("probability", pa.list_(pa.float32()), nullable=False))


def predictions_table(
    columns: Mapping[str, Any], probability: Array, model_version: str, n_classes: int, fold: Array | None = None
) -> pa.Table:
    """predictions.parquet of one model, or of the models of folds.

    Args:
        columns: patch_id, group_id, slide_id, split (each a column or list of str) and label (numbers; negative
            where unknown).
        probability: [N] or [N, C].
        model_version: RUN_ID or VERSION.
        n_classes: C.
        fold: Fold whose model scored each patch, [N]; 0 for the served model. None: no such column.
    """
    label = np.asarray(columns["label"], np.int32)
    # Through bytes, not a mask: `pa.array` would load pandas.
    known = pa.py_buffer(np.packbits(label >= 0, bitorder="little"))
    made = {name: columns[name] for name in ("patch_id", "group_id", "slide_id", "split")}
    made["label"] = pa.Array.from_buffers(pa.int32(), len(label), [known, pa.py_buffer(label)])
    made["probability"] = probability_column(probability)
    made["model_version"] = [model_version] * len(label)
    table = arrow_arrays.table(made, predictions_schema(n_classes))
    return table if fold is None else table.append_column("fold", arrow_arrays.numbers(np.asarray(fold, np.int32)))


def comparison_table(patch_ids: Any, probabilities: Mapping[str, Array | None], n_classes: int) -> pa.Table:
    """comparison.parquet: what other models say of the test patches.

    Args:
        patch_ids: patch_id of each test patch (a column or list of str), [N].
        probabilities: `champion`, `best_ever` and `baseline` to [N] or [N, C]; None where there is no such model.
        n_classes: C.
    """
    kind = pa.float32() if n_classes == 2 else pa.list_(pa.float32())
    ids = patch_ids if isinstance(patch_ids, (pa.Array, pa.ChunkedArray)) else arrow_arrays.strings(patch_ids)
    columns: dict[str, Any] = {"patch_id": ids}
    for name, probability in probabilities.items():
        column = pa.nulls(len(ids), kind) if probability is None else probability_column(probability)
        columns[f"{name}_probability"] = column
    return pa.table(columns)
