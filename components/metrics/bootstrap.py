"""Confidence intervals by bootstrap over groups (patients), and paired differences of two models.

Patches of one patient resemble each other, so patients are drawn, not patches (the cluster bootstrap: Field
and Welsh 2007). All figures of a comparison come from the same resamples, so that what two models share
cancels out. Expanded percentile intervals: see docs/decisions/0010-gate-statistics.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from components.metrics.intervals import Interval, expanded_tail
from components.metrics.per_group import group_counts, group_index
from components.metrics.point import Array
from components.metrics.resampled import WeightedMetrics, weighted_binary, weighted_multiclass, weighted_primary

FEW_GROUPS = 20
"""Below this many groups an interval comes with a warning: percentile intervals are then somewhat too
short."""

TOO_FEW_GROUPS = "too_few_groups"
CLASS_RARELY_DRAWN = "class_rarely_drawn"
UNDEFINED = "undefined"

REDRAW_ROUNDS = 100
MAX_UNDEFINED = 0.05


@dataclasses.dataclass(frozen=True)
class BootstrapPlan:
    """How resamples are drawn.

    Attributes:
        resamples: Number of resamples.
        confidence: Coverage of the two-sided interval.
        min_groups_per_class: With fewer groups in any class there is no interval, unless `pool` allows it.
        min_groups_pooled: Groups of all classes together that a pooled bootstrap needs.
        pool: Where a class has too few groups, draw from all groups together and accept resamples that lack
            classes (weak evidence). For macro averages over several classes only.
        seed: Of the PCG64 generator.
    """

    resamples: int = 2000
    confidence: float = 0.95
    min_groups_per_class: int = 5
    min_groups_pooled: int = 10
    pool: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.confidence < 1 or self.min_groups_per_class < 1:
            raise ValueError(f"resamples and groups must be positive, confidence between 0 and 1: {self}")


@dataclasses.dataclass(frozen=True)
class Resamples:
    """Resamples of groups, drawn once and shared by every metric and model of a comparison.

    Attributes:
        weights: How often each group was drawn, [R, G] uint16; no rows where `reason` says why there are
            none.
        index: Position of each patch's group among the columns, [N].
        groups: Number of groups, G.
        redrawn: Resamples that lacked a class and were drawn again.
        reason: Empty, `too_few_groups` or `class_rarely_drawn`.
        weak: True where a class had too few groups and all were pooled instead.
        confidence: As in the plan.
        warnings: Sentences to show beside every interval.
    """

    weights: Array
    index: Array
    groups: int
    redrawn: int
    reason: str
    weak: bool
    confidence: float
    warnings: tuple[str, ...] = ()


def draw_groups(generator: np.random.Generator, resamples: int, groups: int) -> Array:
    """Draws `groups` groups with replacement, `resamples` times: counts, [R, G] uint16."""
    weights = np.empty((resamples, groups), np.uint16)
    rows = max(1, (1 << 22) // max(1, groups))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.integers(0, groups, size=(count, groups))
        drawn += np.arange(count)[:, None] * groups
        counts = np.bincount(drawn.reshape(-1), minlength=count * groups)
        weights[start : start + count] = counts.reshape(count, groups)
    return weights


def plan_resamples(
    labels: npt.ArrayLike, groups: npt.ArrayLike, n_classes: int, plan: BootstrapPlan
) -> Resamples:
    """Draws the resamples, or says why none can be drawn.

    A resample that lacks a class is drawn again and counted, at most 100 times over; a class that is so rare
    gives no interval. The same labels, groups and plan give the same resamples.

    Args:
        labels: Class numbers, [N].
        groups: Group of each patch, [N].
        n_classes: Classes of the task; one without patches has no groups.
        plan: Numbers, limits and seed.
    """
    y = np.asarray(labels).astype(int)
    names, index = group_index(groups)
    present = group_counts(y, index, names.size, n_classes) > 0
    per_class = present.sum(axis=0)
    warnings: list[str] = []
    if names.size < FEW_GROUPS:
        warnings.append(f"Only {names.size} groups: the interval is likely too short.")
    scarce = bool((per_class < plan.min_groups_per_class).any())
    weak = scarce and plan.pool
    none = np.zeros((0, names.size), np.uint16)
    result = Resamples(none, index, int(names.size), 0, "", weak, plan.confidence, tuple(warnings))
    if (scarce and not plan.pool) or (weak and names.size < plan.min_groups_pooled):
        return dataclasses.replace(result, reason=TOO_FEW_GROUPS)
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    weights = draw_groups(generator, plan.resamples, names.size)
    redrawn = 0
    if not weak:
        for _ in range(REDRAW_ROUNDS):
            drawn = weights.astype(np.float32) @ present.astype(np.float32)
            lacking = np.flatnonzero((drawn == 0).any(axis=1))
            if not lacking.size:
                break
            redrawn += int(lacking.size)
            weights[lacking] = draw_groups(generator, lacking.size, names.size)
        else:
            return dataclasses.replace(result, reason=CLASS_RARELY_DRAWN, redrawn=redrawn)
    return dataclasses.replace(result, weights=weights, redrawn=redrawn)


def percentile_interval(estimate: float, values: Array, resamples: Resamples) -> Interval:
    """Two-sided expanded percentile interval of values [R] (see `expanded_tail`).

    NaN values are left out and counted; more than 5 % undefined values give no interval (`undefined`).
    """
    none = Interval(estimate, groups=resamples.groups, weak=resamples.weak)
    if resamples.reason:
        return dataclasses.replace(none, reason=resamples.reason)
    defined = values[~np.isnan(values)]
    undefined = int(values.size - defined.size)
    if np.isnan(estimate) or defined.size < 2 or undefined > MAX_UNDEFINED * values.size:
        return dataclasses.replace(none, reason=UNDEFINED, undefined=undefined)
    tail = expanded_tail(resamples.confidence, resamples.groups)
    low, high = np.quantile(defined, (tail, 1 - tail))
    return dataclasses.replace(
        none,
        low=float(low),
        high=float(high),
        standard_error=float(defined.std(ddof=1)),
        undefined=undefined,
    )


def _once(resamples: Resamples) -> Array:
    return np.ones((1, resamples.groups))


def metric_intervals(metrics: WeightedMetrics, resamples: Resamples) -> dict[str, Interval]:
    """Estimate and interval of every metric of one model.

    Args:
        metrics: From `weighted_binary` or `weighted_multiclass`, over the same patches and group positions.
        resamples: From `plan_resamples`.
    """
    values = metrics(resamples.weights)
    return {
        name: percentile_interval(float(point[0]), values[name], resamples)
        for name, point in metrics(_once(resamples)).items()
    }


def split_intervals(
    labels: npt.ArrayLike,
    probability: npt.ArrayLike,
    groups: npt.ArrayLike,
    threshold: float | Array | None,
    plan: BootstrapPlan,
) -> tuple[dict[str, Interval], Resamples]:
    """All metrics of a split with intervals: what run.json and the report show.

    Args:
        labels: Class numbers, [N].
        probability: P(positive) [N], or [N, C].
        groups: Group of each patch, [N].
        threshold: The stored cut; None for several classes.
        plan: How resamples are drawn.

    Returns:
        Metric to interval, and the resamples (redraws, warnings).

    Raises:
        ValueError: Binary without a threshold.
    """
    p = np.asarray(probability)
    resamples = plan_resamples(labels, groups, 2 if p.ndim == 1 else p.shape[1], plan)
    if p.ndim == 2:
        multiclass = weighted_multiclass(labels, p, resamples.index, resamples.groups)
        return metric_intervals(multiclass, resamples), resamples
    if threshold is None:
        raise ValueError("binary metrics need the stored threshold")
    binary = weighted_binary(labels, p, resamples.index, resamples.groups, threshold)
    return metric_intervals(binary, resamples), resamples


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """The primary metric of two models on the same resamples.

    Attributes:
        first: Of the candidate, with its interval.
        second: Of the model it is compared with.
        difference: First minus second.
    """

    first: Interval
    second: Interval
    difference: Interval


def paired_difference(
    labels: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike,
    plan: BootstrapPlan,
) -> PairedDifference:
    """Compares two models by the primary metric (AUC, or macro-F1 for several classes) on the same resamples.

    Args:
        labels: Class numbers, [N].
        first: Probabilities of the one model, [N] or [N, C].
        second: Probabilities of the other, same shape.
        groups: Group of each patch, [N].
        plan: How resamples are drawn.

    Raises:
        ValueError: The shapes differ.
    """
    p_first, p_second = np.asarray(first), np.asarray(second)
    if p_first.shape != p_second.shape:
        raise ValueError(f"the two models answer in different shapes: {p_first.shape} and {p_second.shape}")
    if not p_first.size:
        nothing = Interval(float("nan"), reason=TOO_FEW_GROUPS)
        return PairedDifference(nothing, nothing, nothing)
    resamples = plan_resamples(labels, groups, 2 if p_first.ndim == 1 else p_first.shape[1], plan)

    def evaluate(probability: Array) -> tuple[float, Array]:
        metric: Callable[[Array], Array] = weighted_primary(
            labels, probability, resamples.index, resamples.groups
        )
        return float(metric(_once(resamples))[0]), metric(resamples.weights)

    (point_1, values_1), (point_2, values_2) = evaluate(p_first), evaluate(p_second)
    return PairedDifference(
        first=percentile_interval(point_1, values_1, resamples),
        second=percentile_interval(point_2, values_2, resamples),
        difference=percentile_interval(point_1 - point_2, values_1 - values_2, resamples),
    )
