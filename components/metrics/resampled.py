"""Metrics under group weights, vectorised: the engine of the bootstrap.

A resample of patients is a vector that says how often each patient was drawn. Every metric here is a function
of such vectors: it takes weights [R, G] and answers values [R] for R resamples at once, equal to the point
metric of `components.metrics.point` on the data in which each patient's patches are repeated that often. Metrics
that are sums over patches or come from counts need one matrix product; AUC and average precision need the
patches sorted once and cumulative weights in blocks that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from components.metrics.per_group import group_counts
from components.metrics.point import Array, multiclass_rates, patch_brier, patch_log_loss, rates, ratio

WeightedMetrics = Callable[[Array], dict[str, Array]]
"""From group weights [R, G] to metric name and values [R]."""

BLOCK_CELLS = 1 << 18  # float64 cells per block: 2 MiB, about what a core's own cache holds


def _blocks(weights: Array, patches: int) -> Iterator[Array]:
    rows = max(1, BLOCK_CELLS // max(1, patches))
    for start in range(0, max(1, len(weights)), rows):
        yield weights[start : start + rows].astype(float)


def weighted_auc(labels: Array, scores: Array, index: Array) -> Callable[[Array], Array]:
    """AUC under group weights.

    Args:
        labels: 0 or 1, [N].
        scores: [N].
        index: Position of each patch's group among the columns of the weights, [N].

    Returns:
        Function from weights [R, G] to AUC [R], NaN where a class has no weight.
    """
    y, scores = np.asarray(labels).astype(bool), np.asarray(scores)
    positive = np.flatnonzero(y)[np.argsort(scores[y], kind="stable")]
    # Sorting the negatives too makes the two look-ups below walk through memory in order.
    negative = np.flatnonzero(~y)[np.argsort(scores[~y], kind="stable")]
    below = np.searchsorted(scores[positive], scores[negative], "left")
    up_to = np.searchsorted(scores[positive], scores[negative], "right")
    tied = np.flatnonzero(below != up_to)
    of_positive, of_negative = index[positive], index[negative]

    def block(w: Array) -> Array:
        cumulative = np.zeros((len(w), positive.size + 1))
        np.cumsum(w[:, of_positive], axis=1, out=cumulative[:, 1:])
        negative_weight = w[:, of_negative]
        lost = np.einsum("rj,rj->r", cumulative[:, below], negative_weight)
        if tied.size:
            equal = cumulative[:, up_to[tied]] - cumulative[:, below[tied]]
            lost += np.einsum("rj,rj->r", equal, negative_weight[:, tied]) / 2
        pairs = cumulative[:, -1] * negative_weight.sum(axis=1)
        return 1.0 - ratio(lost, pairs)

    return lambda weights: np.concatenate([block(w) for w in _blocks(weights, y.size)])


def weighted_average_precision(labels: Array, scores: Array, index: Array) -> Callable[[Array], Array]:
    """Average precision under group weights.

    Arguments and answer as in `weighted_auc`; NaN without positives.
    """
    y, scores = np.asarray(labels).astype(bool), np.asarray(scores)
    order = np.argsort(-scores, kind="stable")
    group, falling = index[order], -scores[order]
    at = np.flatnonzero(y[order])
    # A threshold takes all patches of one score: precision is read at the last of them.
    last = np.searchsorted(falling, falling[at], "right") - 1
    last_positive = np.searchsorted(at, last, "right") - 1
    tied = bool((last_positive != np.arange(at.size)).any())

    def block(w: Array) -> Array:
        drawn = w[:, group]
        gain = drawn[:, at]
        hits = np.cumsum(gain, axis=1)
        total = hits[:, -1].copy() if at.size else np.zeros(len(w))
        called = np.cumsum(drawn, axis=1, out=drawn)[:, last]
        hits = hits[:, last_positive] if tied else hits
        # Where nothing was called, the gain is 0 too: a divisor of 1 leaves those terms at 0.
        np.divide(hits, np.maximum(called, 1.0, out=called), out=hits)
        return ratio(np.einsum("rj,rj->r", gain, hits), total)

    return lambda weights: np.concatenate([block(w) for w in _blocks(weights, y.size)])


def weighted_counts(weights: Array, counts: Array) -> Array:
    """Counts per resample, [R, K], from weights [R, G] and counts per group [G, K]."""
    total: Array = weights.astype(float) @ counts.astype(float)
    return total


def _sums(labels: Array, probability: Array, index: Array, n_groups: int) -> WeightedMetrics:
    def total(values: Array | None) -> Array:
        return np.bincount(index, weights=values, minlength=n_groups)

    columns = [
        total(patch_log_loss(labels, probability)),
        total(patch_brier(labels, probability)),
        total(None),
    ]
    per_group = np.stack(columns, axis=1)

    def evaluate(weights: Array) -> dict[str, Array]:
        loss, error, patches = weighted_counts(weights, per_group).T
        return {"log_loss": ratio(loss, patches), "brier": ratio(error, patches)}

    return evaluate


def weighted_binary(
    labels: npt.ArrayLike, probability: npt.ArrayLike, index: Array, n_groups: int, threshold: float | Array
) -> WeightedMetrics:
    """All binary metrics of `components.metrics.point.binary_metrics`, under group weights.

    Args:
        labels: 0 or 1, [N].
        probability: P(positive), [N].
        index: Position of each patch's group, [N].
        n_groups: Number of groups, G.
        threshold: The stored cut.
    """
    y, p = np.asarray(labels).astype(int), np.asarray(probability)
    per_group = group_counts(y * 2 + (p >= threshold), index, n_groups, 4)
    auc, pr_auc = weighted_auc(y, p, index), weighted_average_precision(y, p, index)
    sums = _sums(y, p, index, n_groups)

    def evaluate(weights: Array) -> dict[str, Array]:
        tn, fp, fn, tp = weighted_counts(weights, per_group).T
        curves = {"auc": auc(weights), "pr_auc": pr_auc(weights)}
        return {**curves, **sums(weights), **rates(tp, fp, tn, fn)}

    return evaluate


def weighted_multiclass(
    labels: npt.ArrayLike, probability: npt.ArrayLike, index: Array, n_groups: int
) -> WeightedMetrics:
    """Metrics of several classes by argmax (`components.metrics.point.multiclass_metrics`) under group weights.

    The mean one-vs-rest AUC is left out: rare classes are missing from too many resamples for it to mean the
    same thing in each.
    """
    y, p = np.asarray(labels).astype(int), np.asarray(probability)
    n_classes = p.shape[1]
    per_group = group_counts(y * n_classes + p.argmax(axis=1), index, n_groups, n_classes * n_classes)
    sums = _sums(y, p, index, n_groups)

    def evaluate(weights: Array) -> dict[str, Array]:
        confusion = weighted_counts(weights, per_group).reshape(-1, n_classes, n_classes)
        return {**multiclass_rates(confusion), **sums(weights)}

    return evaluate


def weighted_primary(
    labels: npt.ArrayLike, probability: npt.ArrayLike, index: Array, n_groups: int
) -> Callable[[Array], Array]:
    """The metric that the gate compares: AUC for P(positive) [N], macro-F1 by argmax for [N, C]."""
    y, p = np.asarray(labels).astype(int), np.asarray(probability)
    if p.ndim == 1:
        return weighted_auc(y, p, index)
    multiclass = weighted_multiclass(y, p, index, n_groups)
    return lambda weights: multiclass(weights)["macro_f1"]
