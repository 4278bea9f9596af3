"""A trial by folds inside train and eval: every patient there is scored by a model that has never seen it.

The folds are those of `histoline train --folds K --holdout test`: the data set's own test split takes part in none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.core.array_types import Array
from components.splits.fold_assignment import FoldAssignment
from components.sweeps.stopping import Look
from components.sweeps.tuning_data import TuningFiles
from components.training.recipe import TrainingConfig

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Folded:
    """What the models of all folds say of the patients that they have not seen.

    Attributes:
        table: patch_id, group_id and label, by patch_id.
        probability: P(positive) [N], or [N, C].
        centred: P(positive) moved so that each fold's own threshold is at one half, [N]; None for several classes.
        curve: Mean of the folds' primary metric on their eval parts, epoch by epoch.
        epochs: Of all folds together.
        parameters: Weights of one network.
        pixels: Image area that it works on for one image.
    """

    table: pa.Table
    probability: Array
    centred: Array | None
    curve: tuple[float, ...]
    epochs: int
    parameters: int | None
    pixels: int | None


def train(
    config: TrainingConfig, data: TuningFiles, folds: FoldAssignment, work: Path, watched: str, look: Look, log: Log
) -> Folded:
    """Trains what is missing of the folds, one after the other.

    Args:
        config: The recipe.
        data: Train and eval of the data set.
        folds: Who is where.
        work: Local folder of the trial.
        watched: Quantity of the history that stands for a fold, such as `val_auc`.
        look: Told after each epoch, all folds counted together; may end the trial.
        log: Takes progress.
    """
    from components.training.fold_training import train_fold

    results: list[Any] = []
    for fold in range(1, folds.folds + 1):
        before = sum(result.epochs_run for result in results)

        def watch(position: Any, epochs: int, before: int = before) -> None:
            best = max(position.history.get(watched, [0.0]))
            look([best] * (before + position.epoch), folds.folds * epochs)

        results.append(train_fold(config, data, folds, fold, work, log=log, watch=watch))
    return _pooled(folds, work, results, watched)


def _pooled(folds: FoldAssignment, work: Path, results: Sequence[Any], watched: str) -> Folded:
    import pyarrow.parquet as pq

    from components.promotion.prediction_tables import probability_values
    from components.training.fold_training import OUT_OF_FOLD, fold_dir

    tables = [pq.read_table(fold_dir(work, fold) / OUT_OF_FOLD) for fold in range(1, folds.folds + 1)]
    probability = np.concatenate([probability_values(table["probability"]) for table in tables])
    cuts = np.repeat([result.threshold or 0.5 for result in results], [len(table) for table in tables])
    whole = pa.concat_tables([table.select(["patch_id", "group_id", "label"]) for table in tables])
    order = np.argsort(np.array(whole["patch_id"].to_pylist(), object).astype(str), kind="stable")
    curves = [result.history.get(watched, []) for result in results]
    length = min(map(len, curves))
    return Folded(
        whole.take(pa.array(order)),
        probability[order],
        centred(probability, cuts)[order] if probability.ndim == 1 else None,
        tuple(float(np.mean([curve[i] for curve in curves])) for i in range(length)),
        sum(result.epochs_run for result in results),
        results[0].parameters,
        results[0].pixels,
    )


def centred(probability: Array, cuts: Array) -> Array:
    """Probabilities moved on the logit scale so that their own thresholds lie at one half.

    Args:
        probability: [N].
        cuts: Threshold of each, [N].
    """
    p, c = (np.clip(np.asarray(values, float), 1e-7, 1 - 1e-7) for values in (probability, cuts))
    moved: Array = 1 / (1 + np.exp(np.log(c / (1 - c)) - np.log(p / (1 - p))))
    # Rounding must move no call across the cut.
    return np.where(np.asarray(probability) >= cuts, np.maximum(moved, 0.5), np.minimum(moved, np.nextafter(0.5, 0)))
