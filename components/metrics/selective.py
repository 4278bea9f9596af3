"""Risk and coverage: what is gained when a model abstains on the patches that it is least certain of.

El-Yaniv and Wiener 2010, On the Foundations of Noise-free Selective Classification; the area under the curve (AURC)
as in Geifman, Uziel and El-Yaniv 2019, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from components.metrics.bootstrap import Resamples, percentile_interval
from components.metrics.calibration import scores_from_probability
from components.metrics.intervals import Interval
from components.metrics.point import Array, confusion_matrix, multiclass_rates, rates, ratio
from components.metrics.resampled import BLOCK_CELLS

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the patches that are still answered, in the table."""


def certainty(probability: npt.ArrayLike, threshold: float | Array | None) -> Array:
    """How far a patch is from being called otherwise, [N]; only the order counts.

    Args:
        probability: P(positive) [N], or [N, C].
        threshold: The stored cut of a binary model, one or each patch's own: certainty is the distance of the logits
            from it. Several classes: the probability of the predicted one.
    """
    p = np.asarray(probability, float)
    if p.ndim == 2:
        highest: Array = p.max(axis=1)
        return highest
    cut = np.atleast_1d(np.asarray(np.nan if threshold is None else threshold, float))
    distance: Array = np.abs(scores_from_probability(p) - scores_from_probability(cut))
    return distance


def _errors_by_certainty(wrong: Array, certain: Array, weight: Array) -> tuple[Array, Array]:
    """Patches by falling certainty: how many are kept, and how many of them are wrong, [K + 1], one step per value.

    Args:
        wrong: Whether each is called wrongly, [N].
        certain: How certain, [N].
        weight: Of each, [N].
    """
    _, block = np.unique(-certain, return_inverse=True)
    kept = np.cumsum(np.bincount(block, weights=weight))
    errors = np.cumsum(np.bincount(block, weights=weight * wrong))
    return np.append(0.0, kept), np.append(0.0, errors)


def risk_coverage(wrong: npt.ArrayLike, certain: npt.ArrayLike) -> tuple[Array, Array]:
    """The curve: share of the patches that is answered, and the error among them, one point per certainty.

    Args:
        wrong: Whether each patch is called wrongly, [N].
        certain: From `certainty`, [N].

    Returns:
        Coverage, rising to 1, and error, each [K].
    """
    errors_of = np.asarray(wrong, float)
    kept, errors = _errors_by_certainty(errors_of, np.asarray(certain), np.ones(errors_of.size))
    return kept[1:] / max(1, errors_of.size), ratio(errors[1:], kept[1:])


def weighted_aurc(wrong: npt.ArrayLike, certain: npt.ArrayLike, index: Array) -> Callable[[Array], Array]:
    """Area under the risk-coverage curve, under group weights.

    The mean over all patches of the error among those at least as certain (equally certain ones are answered
    together). 0 is perfect; a certainty that says nothing gives the error of the whole.

    Args:
        wrong: Whether each patch is called wrongly, [N].
        certain: From `certainty`, [N].
        index: Position of each patch's group among the columns of the weights, [N].

    Returns:
        Function from weights [R, G] to AURC [R].
    """
    order = np.argsort(-np.asarray(certain), kind="stable")
    group, falling = index[order], -np.asarray(certain)[order]
    errors = np.asarray(wrong, float)[order]
    last = np.searchsorted(falling, falling, "right") - 1

    def block(w: Array) -> Array:
        drawn = w[:, group]
        kept, hit = np.cumsum(drawn, axis=1)[:, last], np.cumsum(drawn * errors, axis=1)[:, last]
        risk = np.divide(hit, kept, out=np.zeros_like(hit), where=kept > 0)
        return ratio(np.einsum("rj,rj->r", drawn, risk), drawn.sum(axis=1))

    rows = max(1, BLOCK_CELLS // max(1, order.size))
    return lambda weights: np.concatenate(
        [block(weights[i : i + rows].astype(float)) for i in range(0, max(1, len(weights)), rows)]
    )


def aurc_interval(wrong: npt.ArrayLike, certain: npt.ArrayLike, resamples: Resamples) -> Interval:
    """AURC with its interval over groups.

    Args:
        wrong: Whether each patch is called wrongly, [N].
        certain: From `certainty`, [N].
        resamples: Of the same patches.
    """
    aurc = weighted_aurc(wrong, certain, resamples.index)
    estimate = float(aurc(np.ones((1, resamples.groups)))[0])
    return percentile_interval(estimate, aurc(resamples.weights), resamples)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is left when the least certain patches get no answer.

    Attributes:
        coverage: Share that was asked to be answered.
        patches: How many are, the most certain ones; equally certain ones in their order.
        error: Share of them that is called wrongly.
        figures: Binary: `sensitivity` and `specificity` among them; several classes: `balanced_accuracy` and
            `macro_f1`. NaN where undefined.
    """

    coverage: float
    patches: int
    error: float
    figures: dict[str, float]


def abstaining(
    labels: npt.ArrayLike, predicted: npt.ArrayLike, certain: npt.ArrayLike, n_classes: int
) -> list[Kept]:
    """Figures at each of `COVERAGES`.

    Args:
        labels: Class numbers, [N].
        predicted: As the model calls them, [N].
        certain: From `certainty`, [N].
        n_classes: Classes of the task.
    """
    y, called = np.asarray(labels).astype(int), np.asarray(predicted).astype(int)
    order = np.argsort(-np.asarray(certain), kind="stable")
    found = []
    for coverage in COVERAGES:
        rows = order[: int(np.ceil(coverage * y.size - 1e-9))]
        table = confusion_matrix(y[rows], called[rows], n_classes)
        if n_classes == 2:
            (tn, fp), (fn, tp) = table
            figures, names = rates(tp, fp, tn, fn), ("sensitivity", "specificity")
        else:
            figures, names = multiclass_rates(table), ("balanced_accuracy", "macro_f1")
        error = float(ratio((y[rows] != called[rows]).sum(), rows.size))
        found.append(Kept(coverage, rows.size, error, {name: float(figures[name]) for name in names}))
    return found
