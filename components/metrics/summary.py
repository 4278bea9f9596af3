"""What run.json says of a split: metrics with intervals, per patient, per slice, and calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.metrics.bootstrap import BootstrapPlan, plan_resamples, split_intervals
from components.metrics.calibration import reliability, undo_calibration
from components.metrics.patient_level import patient_weighted_auc, patients
from components.metrics.per_group import per_group_metrics
from components.metrics.point import binary_metrics, multiclass_metrics, summary_over_groups
from components.metrics.recognition import recognition_rates
from components.metrics.selective import abstaining, aurc_interval, certainty

Array = npt.NDArray[Any]
ABSENT = ("", "-1")


@dataclasses.dataclass(frozen=True)
class ScoredSplit:
    """A split with a model's probabilities.

    Attributes:
        labels: Class numbers, [N].
        groups: Group of each patch, [N] str.
        probability: P(positive) [N], or [N, C].
        threshold: The stored cut, one or each patch's own, [N]; None for several classes.
        magnification: Objective magnification of each patch, [N]; -1 where unknown.
        tumor_type: [N] str, empty where unknown.
    """

    labels: Array
    groups: Array
    probability: Array
    threshold: float | Array | None
    magnification: Array
    tumor_type: Array

    @property
    def predicted(self) -> Array:
        """Class numbers at the stored threshold, or by argmax, [N]."""
        if self.threshold is None:
            return np.asarray(self.probability.argmax(axis=1))
        return (self.probability >= np.asarray(self.threshold, np.float32)).astype(int)

    def at(self, rows: Array) -> ScoredSplit:
        """The part where `rows` (bool [N]) holds."""
        arrays = ("labels", "groups", "probability", "magnification", "tumor_type")
        cut = self.threshold
        own = {"threshold": cut[rows]} if isinstance(cut, np.ndarray) else {}
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in arrays}, **own)


def with_intervals(split: ScoredSplit, plan: BootstrapPlan) -> dict[str, Any]:
    """Metrics of a split with their intervals, and what has to be said beside them."""
    values, resamples = split_intervals(split.labels, split.probability, split.groups, split.threshold, plan)
    if split.threshold is not None:
        values["patient_weighted_auc"] = patient_weighted_auc(split.labels, split.probability, resamples)
    return {
        "patches": len(split.labels),
        "groups": resamples.groups,
        "redrawn": resamples.redrawn,
        "weak": resamples.weak,
        "warnings": list(resamples.warnings),
        "values": {name: dataclasses.asdict(interval) for name, interval in values.items()},
    }


def per_group(split: ScoredSplit) -> dict[str, Any]:
    """Spread of the metrics of single patients."""
    _, columns = per_group_metrics(split.labels, split.probability, split.groups, split.threshold)
    return summary_over_groups(columns)


def patient_level(split: ScoredSplit, plan: BootstrapPlan) -> dict[str, Any]:
    """As `with_intervals`, of one decision per patient; empty where a patient has several labels, or each one patch.

    A patient's probability is that of the mean of its logits, and the stored threshold cuts it too.
    """
    whole = patients(split.labels, split.probability, split.groups)
    if whole is None or len(whole.labels) == len(split.labels):
        return {}
    cut = split.threshold
    if isinstance(cut, np.ndarray):  # the patches of a patient were all scored by one model
        cut = cut[np.unique(split.groups, return_index=True)[1]]
    values, resamples = split_intervals(whole.labels, whole.probability, whole.names, cut, plan)
    return {
        "patches": len(split.labels),
        "groups": resamples.groups,
        "redrawn": resamples.redrawn,
        "weak": resamples.weak,
        "warnings": list(resamples.warnings),
        "values": {name: dataclasses.asdict(interval) for name, interval in values.items()},
    }


def selective(split: ScoredSplit, plan: BootstrapPlan) -> dict[str, Any]:
    """What abstaining on the least certain patches gains: `aurc` with its interval, and `rows` by coverage."""
    n_classes = 2 if split.probability.ndim == 1 else split.probability.shape[1]
    certain, called = certainty(split.probability, split.threshold), split.predicted
    resamples = plan_resamples(split.labels, split.groups, n_classes, plan)
    rows = abstaining(split.labels, called, certain, n_classes)
    return {
        "aurc": dataclasses.asdict(aurc_interval(split.labels != called, certain, resamples)),
        "rows": [
            {"coverage": row.coverage, "patches": row.patches, "error": row.error, **row.figures} for row in rows
        ],
    }


def recognition(split: ScoredSplit, plan: BootstrapPlan) -> dict[str, Any]:
    """Recognition rates of Spanhol et al. 2016 per magnification; empty where no magnification is known."""
    if (split.magnification < 0).all():
        return {}
    rates = recognition_rates(split.labels, split.predicted, split.groups, split.magnification, plan)
    return {name: dataclasses.asdict(rate) for name, rate in rates.items()}


def calibration(
    splits: Mapping[str, ScoredSplit],
    temperature: float | None,
    bias: float | Sequence[float] | None,
    before: Mapping[str, Array] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """ECE, log loss and Brier score of each split, as served and without temperature and bias.

    Args:
        splits: Name to split.
        temperature: Of the model, None where it does not say.
        bias: Likewise; models had none before there was one.
        before: Probabilities without both, of splits that several models have scored.
    """
    found: dict[str, dict[str, dict[str, float]]] = {"served": {}, "uncalibrated": {}}
    for name, split in splits.items():
        raw = (before or {}).get(name)
        if raw is None:
            raw = undo_calibration(split.probability, temperature or 1.0, 0.0 if bias is None else bias)
        found["served"][name] = reliability(split.labels, split.probability)
        found["uncalibrated"][name] = reliability(split.labels, raw)
    return found


def slices(split: ScoredSplit, classes: list[str]) -> list[dict[str, Any]]:
    """Metrics per class, magnification and tumour type, at the stored threshold; a slice has no interval.

    Args:
        split: The whole split.
        classes: Class names in label order.
    """
    names = np.array(classes, object)[split.labels]
    found = []
    for by, column in (
        ("label", names),
        ("magnification", split.magnification.astype(str)),
        ("tumor_type", split.tumor_type),
    ):
        values = [str(value) for value in np.unique(column.astype(str)) if value not in ABSENT]
        for value in values if len(values) > 1 else []:
            part = split.at(column.astype(str) == value)
            if part.threshold is None:
                metrics = multiclass_metrics(part.labels, part.probability)
            else:
                metrics = binary_metrics(part.labels, part.probability, part.threshold)
            groups = int(np.unique(part.groups).size)
            found.append({"by": by, "value": value, "patches": len(part.labels), "groups": groups, "metrics": metrics})
    return found
