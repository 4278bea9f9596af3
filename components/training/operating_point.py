"""Calibration on the eval split: temperature and bias of the serving graph, then its threshold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from components.core.array_types import Array
from components.core.machine import exact_float32
from components.core.text import number
from components.datasets.committed import DatasetFiles
from components.errors import DataError
from components.metrics import calibration
from components.metrics.calibration_fit import fit_calibration, weights_bias
from components.metrics.threshold import operating_point
from components.training.export import logits_of
from components.training.input_pipeline import Reader
from components.training.recipe import TrainingConfig
from components.training.serving_graph import ServingGraph


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """What was set in the serving graph; the fields of `TrainResult` of these names.

    Attributes:
        temperature: Divides the logits.
        bias: Added after that: a number for binary, one per class for subtype.
        threshold: P(positive) from which a patch is positive; None for subtype.
        threshold_note: How `sensitivity=X` was met, or that it was not; else empty.
        calibration: What `TrainResult` says of it.
    """

    temperature: float
    bias: float | list[float]
    threshold: float | None
    threshold_note: str
    calibration: dict[str, Any]


def calibrate(
    serving: ServingGraph,
    evaluation: Reader,
    data: DatasetFiles,
    config: TrainingConfig,
    weights: Mapping[int, float] | None = None,
) -> Calibrated:
    """Sets temperature and bias, then the threshold, of a serving graph on the eval split.

    Args:
        serving: The graph; answers uncalibrated until now.
        evaluation: Reads the eval split.
        data: The data set, whose sidecars name the patients of eval.
        config: The recipe.
        weights: Class weights that training gave the patches, by weight or by sampling.

    Raises:
        DataError: Probabilities that are not finite, or a class that eval lacks.
    """
    exact_float32()
    batch = max(32, config.batch_size)
    labels, logits = logits_of(serving, evaluation.evaluation(batch))
    raw = serving.probability(logits).numpy()
    groups = eval_groups(data, labels)
    fitted = fit_calibration(labels, raw, groups, weights_bias(weights, len(data.classes)))
    serving.set_calibration(fitted.temperature, fitted.bias)
    calibrated = serving.probability(logits).numpy()
    record: dict[str, Any] = {
        "before": _reliability(labels, raw),
        "after": _reliability(labels, calibrated),
        "note": fitted.note,
        "expected_bias": [round(value, 6) for value in fitted.expected],
        "groups": int(np.unique(groups).size),
    }
    threshold, note = None, ""
    if calibrated.ndim == 1:
        chosen = operating_point(labels, calibrated, groups, config.threshold, unit=data.manifest.group_unit)
        threshold, note = chosen.threshold, chosen.note
        serving.threshold.assign(threshold)
        if chosen.sensitivity:
            record["threshold"] = {**chosen.sensitivity, "met": chosen.met}
    temperature, bias = serving.calibration()
    return Calibrated(temperature, bias, threshold, note, record)


def eval_groups(data: DatasetFiles, labels: Array) -> Array:
    """Group of each patch of the eval split, in the order of its records, [N] str.

    Args:
        data: The data set.
        labels: Those that were read from the records, [N].

    Raises:
        DataError: The sidecars hold other labels than the shards.
    """
    table = data.table("eval", ("group_id", "label"))
    if not np.array_equal(table["label"].to_numpy(), labels):
        raise DataError(
            f"The sidecars of {data.folder} hold other labels of the eval split than its shards.",
            "Run histoline verify on the data set, then ingest again.",
        )
    return _groups(table)


def split_groups(data: DatasetFiles, split: str) -> Array:
    """Group of each patch of a split, in the order of its records, [N] str."""
    return _groups(data.table(split, ("group_id",)))


def _groups(table: Any) -> Array:
    return np.array(table["group_id"].to_pylist(), object).astype(str)


def describe(fitted: Calibrated) -> str:
    """What was found, for the log."""
    parts = [fitted.bias] if isinstance(fitted.bias, float) else fitted.bias
    text = f"temperature {fitted.temperature:.3f}, bias {' '.join(number(value, sign=True) for value in parts)}"
    if fitted.threshold is not None:
        text += f", threshold {fitted.threshold:.4f}"
    return f"{text}. {fitted.threshold_note}" if fitted.threshold_note else text


def _reliability(labels: Array, probability: Array) -> dict[str, float]:
    values = calibration.reliability(labels, probability)
    if not all(math.isfinite(v) for v in values.values()):
        raise DataError("Calibration on the eval split gave no finite figures.", "Check the training history.")
    return {k: float(np.round(v, 6)) for k, v in values.items()}
