"""What a trial is worth: its exported model on eval, or its folds' models on patients that they have not seen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.core import json_documents
from components.core.array_types import Array
from components.datasets.sidecars import read_sidecars
from components.datasets.tfrecord import read_records
from components.errors import DataError
from components.metrics.bootstrap import BootstrapPlan, split_intervals
from components.sweeps.tuning_data import TuningFiles

COLUMNS = ("patch_id", "group_id", "label")
BATCH_PIXELS = 1 << 22
WITHOUT_CUT = ("auc", "pr_auc", "log_loss", "brier")


@dataclasses.dataclass(frozen=True)
class Scored:
    """What models say of patches, and what that is worth.

    Attributes:
        table: Columns `COLUMNS`.
        probability: P(positive) [N], or [N, C].
        figures: Metric to interval by patient.
        milliseconds: That a patch took; None where it was not measured.
    """

    table: pa.Table
    probability: Array
    figures: dict[str, dict[str, Any]]
    milliseconds: float | None = None


def of_model(model_dir: Path, data: TuningFiles, threshold: float | None) -> Scored:
    """Asks an exported model about the eval split.

    Args:
        model_dir: The SavedModel.
        data: The data set.
        threshold: Of the model; None for several classes.

    Raises:
        DataError: The model does not answer.
    """
    from components.promotion.served_model import NotServable, ServedModel

    manifest = data.manifest
    table = read_sidecars([data.folder / manifest.sidecar(shard) for shard in manifest.shards("eval")], COLUMNS)
    width, height = data.stored_size
    try:
        model = ServedModel(model_dir)
        started = time.monotonic()
        probability = model.probabilities(_batches(data, max(1, min(256, BATCH_PIXELS // (width * height)))))
        seconds = time.monotonic() - started
    except NotServable as error:
        raise DataError(f"The exported model can't be used: {error}.", "See the training history.") from error
    figures = _figures(table, probability, threshold)
    return Scored(table, probability, figures, round(1000 * seconds / len(table), 3))


def of_folds(table: pa.Table, probability: Array, centred: Array | None) -> Scored:
    """Measures what the models of all folds say, pooled.

    Args:
        table: Columns `COLUMNS`.
        probability: P(positive) [N], or [N, C].
        centred: P(positive) with each fold's own threshold at one half, for the figures that need a cut; None for
            several classes.
    """
    figures = _figures(table, probability, None if centred is None else 0.5)
    if centred is not None:
        cut = _figures(table, centred, 0.5)
        figures |= {name: value for name, value in cut.items() if name not in WITHOUT_CUT}
    return Scored(table, probability, figures)


def _figures(table: pa.Table, probability: Array, threshold: float | None) -> dict[str, dict[str, Any]]:
    groups = np.array(table["group_id"].to_pylist(), object).astype(str)
    plan = BootstrapPlan(pool=probability.ndim == 2)
    intervals, _ = split_intervals(table["label"].to_numpy(), probability, groups, threshold, plan)
    figures: dict[str, dict[str, Any]] = json_documents.plain(
        {name: dataclasses.asdict(value) for name, value in intervals.items()}
    )
    return figures


def _batches(data: TuningFiles, size: int) -> Iterator[Sequence[bytes]]:
    batch: list[bytes] = []
    for shard in data.splits["eval"].shards:
        for _, record in read_records(shard):
            batch.append(record)
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch
