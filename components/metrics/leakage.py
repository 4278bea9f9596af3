"""What a random split promises against what new patients get: two test parts, one way of drawing patients.

The test part of the patient split holds some patients whole; that of a random split holds patches of nearly all. Both
figures come from the same resamples: the patients of the former are drawn among themselves, all others among
themselves, so that patients who are in both test parts count alike in both and the gap has one interval.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from components.metrics.bootstrap import TOO_FEW_GROUPS, BootstrapPlan, Resamples, draw_groups, percentile_interval
from components.metrics.intervals import Interval
from components.metrics.per_group import group_counts
from components.metrics.point import Array
from components.metrics.resampled import WeightedMetrics, weighted_binary, weighted_multiclass


@dataclasses.dataclass(frozen=True)
class TestPart:
    """What one model says of its own test part.

    Attributes:
        labels: Class numbers, [N].
        groups: Patient of each patch, [N] str.
        probability: P(positive) [N], or [N, C].
        threshold: The model's own cut; None for several classes.
    """

    __test__ = False  # no test of pytest's

    labels: Array
    groups: Array
    probability: Array
    threshold: float | None


@dataclasses.dataclass(frozen=True)
class Gap:
    """One metric under both splits, as a mean over seeds.

    Attributes:
        random: On the random splits' test parts.
        patient: On the patient split's.
        gap: Random minus patient: what a random split promises too much (of a loss, too little).
        random_seeds: Estimate of each seed.
        patient_seeds: Likewise.
    """

    random: Interval
    patient: Interval
    gap: Interval
    random_seeds: tuple[float, ...]
    patient_seeds: tuple[float, ...]


def leakage_gap(patient: Sequence[TestPart], random: Sequence[TestPart], plan: BootstrapPlan) -> dict[str, Gap]:
    """Compares the splits.

    Args:
        patient: Of the models that were trained on the patient split, one for each seed.
        random: Of those on random splits, likewise.
        plan: Numbers, limits and seed of the resamples; with fewer patients of a class in the patient split's test part
            than it asks for there is no interval.

    Returns:
        Metric to what it is under both.
    """
    tested = np.unique(np.concatenate([part.groups.astype(str) for part in patient]))
    others = np.setdiff1d(np.concatenate([part.groups.astype(str) for part in random]), tested)
    names = np.concatenate([tested, others])
    reason = _reason(patient[0], tested, plan)
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    drawn = [draw_groups(generator, plan.resamples, len(part)) for part in (tested, others) if len(part)]
    weights = np.concatenate(drawn, axis=1)
    found = [_of_seeds(parts, names, weights) for parts in (random, patient)]
    counted = len(tested), len(names)

    def interval(estimate: float, values: Array, groups: int) -> Interval:
        nowhere = np.zeros(0, int)  # where patches stand matters to the metrics alone
        resamples = Resamples(weights, nowhere, groups, 0, reason, False, plan.confidence)
        return percentile_interval(estimate, values, resamples)

    gaps = {}
    for name in found[0]:
        (points_r, values_r), (points_p, values_p) = (of[name] for of in found)
        mean_r, mean_p = float(np.mean(points_r)), float(np.mean(points_p))
        gaps[name] = Gap(
            random=interval(mean_r, values_r, counted[1]),
            patient=interval(mean_p, values_p, counted[0]),
            gap=interval(mean_r - mean_p, values_r - values_p, counted[0]),
            random_seeds=points_r,
            patient_seeds=points_p,
        )
    return gaps


def _reason(part: TestPart, tested: Array, plan: BootstrapPlan) -> str:
    n_classes = 2 if part.probability.ndim == 1 else part.probability.shape[1]
    index = np.searchsorted(tested, part.groups.astype(str))
    present = group_counts(part.labels.astype(int), index, tested.size, n_classes) > 0
    return TOO_FEW_GROUPS if (present.sum(axis=0) < plan.min_groups_per_class).any() else ""


def _of_seeds(
    parts: Sequence[TestPart], names: Array, weights: Array
) -> Mapping[str, tuple[tuple[float, ...], Array]]:
    """Metric to its estimate for each seed, and the mean over seeds in every resample, [R]."""
    order = np.argsort(names)
    points: dict[str, list[float]] = {}
    values: dict[str, Array] = {}
    for part in parts:
        index = order[np.searchsorted(names, part.groups.astype(str), sorter=order)]
        metrics: WeightedMetrics
        if part.threshold is None:
            metrics = weighted_multiclass(part.labels, part.probability, index, names.size)
        else:
            metrics = weighted_binary(part.labels, part.probability, index, names.size, part.threshold)
        for name, value in metrics(np.ones((1, names.size))).items():
            points.setdefault(name, []).append(float(value[0]))
        for name, value in metrics(weights).items():
            values[name] = values.get(name, 0.0) + value / len(parts)
    return {name: (tuple(points[name]), values[name]) for name in points}
