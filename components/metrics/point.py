"""Point metrics in pure NumPy; where one is undefined the answer is NaN, never a silent 0.

Conventions, shared with `components.metrics.resampled` (the same metrics under group weights):

* `labels` are integers [N]; in the binary case 1 is positive.
* `probability` is P(positive) [N] in the binary case and one row per patch [N, C] for several classes.
* A patch is called positive when `probability >= threshold`, as in the exported model.

Names and definitions are those of scikit-learn, with which the values agree to 1e-9 wherever they are defined
(scikit-learn answers 0 with a warning where, for instance, nothing was called positive; here that is NaN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

THRESHOLD_METRICS = (
    "accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "balanced_accuracy",
    "mcc",
)
"""What needs a threshold, in the order in which reports show it."""


def ratio(numerator: Any, denominator: Any) -> Array:
    """Quotient of two arrays of one shape; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)


def roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: P(a positive scores above a negative), a tie counting one half.

    The Mann-Whitney statistic from mid-ranks (Hanley and McNeil 1982).

    Args:
        labels: 0 or 1, [N].
        scores: Higher means more positive, [N].

    Returns:
        AUC in [0, 1]; NaN where a class is missing.
    """
    y = np.asarray(labels).astype(bool)
    _, inverse, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(counts) - (counts - 1) / 2.0
    positives = int(y.sum())
    negatives = y.size - positives
    wins = mid_rank[inverse][y].sum() - positives * (positives + 1) / 2.0
    return float(ratio(wins, float(positives) * negatives))


def _cumulative_counts(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Distinct scores, falling, with the positives and negatives at or above each."""
    y = np.asarray(labels).astype(bool)
    s = np.asarray(scores)
    order = np.argsort(-s, kind="stable")
    s, y = s[order], y[order]
    last = np.flatnonzero(np.append(s[1:] != s[:-1], True)) if s.size else np.zeros(0, int)
    return s[last], np.cumsum(y)[last], np.cumsum(~y)[last]


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Points of the ROC curve, one per distinct score, from (0, 0) to (1, 1).

    Returns:
        False positive rate, true positive rate and threshold, each [K + 1]; the first threshold is infinite
        (nothing is called positive). A rate is NaN throughout where its class is missing.
    """
    s, tp, fp = _cumulative_counts(labels, scores)
    tp, fp = np.append(0, tp), np.append(0, fp)
    return ratio(fp, fp[-1]), ratio(tp, tp[-1]), np.append(np.inf, s)


def precision_recall_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Points of the precision-recall curve, one per distinct score, recall rising.

    Returns:
        Recall, precision and threshold, each [K]. Recall is NaN where there is no positive.
    """
    s, tp, fp = _cumulative_counts(labels, scores)
    return ratio(tp, tp[-1] if tp.size else 0), ratio(tp, tp + fp), s


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """PR-AUC as average precision, the step-wise sum of precision over the gains in recall.

    No interpolation, which would be optimistic (Davis and Goadrich 2006).

    Returns:
        Value in [0, 1]; NaN where there is no positive.
    """
    recall, precision, _ = precision_recall_curve(labels, scores)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision)) if recall.size else float("nan")


def patch_log_loss(labels: npt.ArrayLike, probability: npt.ArrayLike) -> Array:
    """Negative log likelihood of each patch in nats, [N], probabilities clipped by their type's epsilon."""
    p = np.asarray(probability)
    p = p if np.issubdtype(p.dtype, np.floating) else p.astype(float)
    epsilon = float(np.finfo(p.dtype).eps)
    y = np.asarray(labels).astype(int)
    p = p.astype(float)
    of_label = np.where(y == 1, p, 1.0 - p) if p.ndim == 1 else p[np.arange(y.size), y]
    loss: Array = -np.log(np.clip(of_label, epsilon, 1.0 - epsilon))
    return loss


def patch_brier(labels: npt.ArrayLike, probability: npt.ArrayLike) -> Array:
    """Squared error of each patch's probability, [N]; several classes: summed over classes (Brier 1950)."""
    p = np.asarray(probability, float)
    y = np.asarray(labels).astype(int)
    if p.ndim == 1:
        squared: Array = (p - y) ** 2
        return squared
    summed: Array = np.sum((p - np.eye(p.shape[1])[y]) ** 2, axis=1)
    return summed


def log_loss(labels: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Mean negative log likelihood in nats; NaN without patches."""
    losses = patch_log_loss(labels, probability)
    return float(losses.mean()) if losses.size else float("nan")


def brier(labels: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Brier score: 0 to 1 for binary, 0 to 2 for several classes (Brier 1950); NaN without patches."""
    errors = patch_brier(labels, probability)
    return float(errors.mean()) if errors.size else float("nan")


def rates(tp: Any, fp: Any, tn: Any, fn: Any) -> dict[str, Array]:
    """Threshold metrics from the four counts, which may be arrays of one shape (patients, resamples).

    NaN means that the figure does not exist: sensitivity without positives, specificity without negatives,
    PPV where nothing and NPV where everything is called positive, F1 where neither label nor call is
    positive, balanced accuracy without one of the classes, MCC where a row or column of the table is empty.

    Returns:
        Name (`THRESHOLD_METRICS`) to values of the counts' shape.
    """
    tp, fp, tn, fn = (np.asarray(count, float) for count in (tp, fp, tn, fn))
    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {
        "accuracy": ratio(tp + tn, tp + fp + tn + fn),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "mcc": ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
    }


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int) -> Array:
    """Counts [C, C]: rows are labels, columns are predictions."""
    cell = np.asarray(labels).astype(int) * n_classes + np.asarray(predicted).astype(int)
    return np.bincount(cell, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def class_f1(confusion: Array) -> Array:
    """F1 of each class, [..., C], from confusion matrices [..., C, C]; NaN for a class without patches."""
    confusion = np.asarray(confusion, float)
    support = confusion.sum(axis=-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return ratio(2 * hits, np.where(support > 0, support + confusion.sum(axis=-2), 0.0))


def mean_of_defined(values: Array) -> Array:
    """Mean over the last axis that leaves NaN out; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def macro_f1(confusion: Array) -> Array:
    """Unweighted mean of the F1 of the classes that have patches, from confusion matrices [..., C, C].

    A class without patches is left out (scikit-learn: `labels=` the classes present), so that a resample that
    lost a rare class is not scored 0 for it.

    Returns:
        Values [...]; NaN for an empty matrix.
    """
    return mean_of_defined(class_f1(confusion))


def agreement(confusion: Array) -> dict[str, Array]:
    """What calls and labels agree in beyond chance, from confusion matrices [..., C, C].

    Returns:
        `mcc`, Matthews' correlation for several classes (Gorodkin 2004: the covariance of the two over their
        deviations), and `kappa` (Cohen 1960), each [...]. 0 is chance, 1 is perfect; `mcc` is NaN where all
        labels or all calls are of one class, `kappa` where both are of the same one.
    """
    confusion = np.asarray(confusion, float)
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    labels, calls, total = confusion.sum(axis=-1), confusion.sum(axis=-2), confusion.sum(axis=(-2, -1))
    by_chance = (labels * calls).sum(axis=-1)
    spread = (total**2 - (labels**2).sum(axis=-1)) * (total**2 - (calls**2).sum(axis=-1))
    return {
        "mcc": ratio(hits * total - by_chance, np.sqrt(spread)),
        "kappa": ratio(hits * total - by_chance, total**2 - by_chance),
    }


def multiclass_rates(confusion: Array) -> dict[str, Array]:
    """Accuracy, balanced accuracy (mean recall of the classes present), macro-F1, MCC and kappa from [..., C, C]."""
    confusion = np.asarray(confusion, float)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    return {
        "accuracy": ratio(hits.sum(axis=-1), support.sum(axis=-1)),
        "balanced_accuracy": mean_of_defined(ratio(hits, support)),
        "macro_f1": macro_f1(confusion),
        **agreement(confusion),
    }


def one_vs_rest_auc(labels: npt.ArrayLike, probability: npt.ArrayLike) -> Array:
    """AUC of each class against all others, [C]; NaN for a class without patches or without others."""
    y, p = np.asarray(labels), np.asarray(probability)
    return np.array([roc_auc(y == k, p[:, k]) for k in range(p.shape[1])])


def binary_metrics(labels: npt.ArrayLike, probability: npt.ArrayLike, threshold: float | Array) -> dict[str, float]:
    """All binary metrics of a split at the stored threshold.

    Args:
        labels: 0 or 1, [N].
        probability: P(positive), [N].
        threshold: Cut at or above which a patch is called positive; there is no default of 0.5 on purpose.
    """
    y = np.asarray(labels).astype(bool)
    called = np.asarray(probability) >= threshold
    counts = ((y & called).sum(), (~y & called).sum(), (~y & ~called).sum(), (y & ~called).sum())
    return {
        "auc": roc_auc(y, probability),
        "pr_auc": average_precision(y, probability),
        "log_loss": log_loss(y, probability),
        "brier": brier(y, probability),
        **{name: float(value) for name, value in rates(*counts).items()},
    }


def multiclass_metrics(labels: npt.ArrayLike, probability: npt.ArrayLike) -> dict[str, float]:
    """All metrics of a split of several classes, predictions by argmax.

    Args:
        labels: Class numbers, [N].
        probability: [N, C], rows sum to 1.

    Returns:
        `macro_f1`, `accuracy`, `balanced_accuracy`, `mcc`, `kappa`, `log_loss`, `brier` and `macro_auc`, the mean of
        the one-vs-rest AUCs that exist.
    """
    p = np.asarray(probability)
    confusion = confusion_matrix(labels, p.argmax(axis=1), p.shape[1])
    return {
        **{name: float(value) for name, value in multiclass_rates(confusion).items()},
        "macro_auc": float(mean_of_defined(one_vs_rest_auc(labels, p))),
        "log_loss": log_loss(labels, p),
        "brier": brier(labels, p),
    }


def summary_over_groups(per_group: Mapping[str, npt.ArrayLike]) -> dict[str, dict[str, float]]:
    """Spread of per-patient metrics over patients.

    Args:
        per_group: Metric to values [G], NaN where a patient has none
            (`components.metrics.per_group.per_group_metrics`).

    Returns:
        Metric to `groups` (how many have the figure), `mean`, `median`, `q25`, `q75`, `min`; NaN where none
        has.
    """
    summary = {}
    for name, values in per_group.items():
        defined = np.asarray(values, float)
        defined = defined[~np.isnan(defined)]
        q25, median, q75 = np.quantile(defined, (0.25, 0.5, 0.75)) if defined.size else (np.nan,) * 3
        summary[name] = {
            "groups": float(defined.size),
            "mean": float(defined.mean()) if defined.size else float("nan"),
            "median": float(median),
            "q25": float(q25),
            "q75": float(q75),
            "min": float(defined.min()) if defined.size else float("nan"),
        }
    return summary
