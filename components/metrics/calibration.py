"""Stated probabilities: logits scaled and shifted, and how far off the probabilities are."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from components.metrics.point import Array, brier, log_loss

PROBABILITY_FLOOR = 1e-7  # float32 probabilities reach 0 and 1, where no logit exists


def scores_from_probability(probability: npt.ArrayLike) -> Array:
    """Logits that a calibration scales and shifts.

    Args:
        probability: P(positive) [N], or [N, C].

    Returns:
        log(p / (1 - p)) [N], or log p [N, C] (logits up to a constant per row, which softmax ignores).
    """
    p = np.clip(np.asarray(probability, float), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    scores: Array = np.log(p) - np.log1p(-p) if p.ndim == 1 else np.log(p)
    return scores


def probability_of(scores: Array) -> Array:
    """Sigmoid of logits [N], or softmax of [N, C]."""
    if scores.ndim == 1:
        # Written over tanh because exp overflows for large negative scores.
        positive: Array = 0.5 * (1.0 + np.tanh(0.5 * scores))
        return positive
    shifted: Array = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def apply_calibration(probability: npt.ArrayLike, temperature: float, bias: npt.ArrayLike = 0.0) -> Array:
    """Probabilities after their logits are divided by the temperature and the bias is added; same shape.

    Args:
        probability: P(positive) [N], or [N, C].
        temperature: Divides the logits.
        bias: A number for [N], one per class for [N, C].
    """
    return probability_of(scores_from_probability(probability) / temperature + np.asarray(bias, float))


def undo_calibration(probability: npt.ArrayLike, temperature: float, bias: npt.ArrayLike = 0.0) -> Array:
    """What `apply_calibration` was given, from what it answers."""
    scores: Array = (scores_from_probability(probability) - np.asarray(bias, float)) * temperature
    return probability_of(scores)


@dataclasses.dataclass(frozen=True)
class ReliabilityBins:
    """A reliability diagram as numbers; every array [B], NaN means for an empty bin.

    Attributes:
        lower: Lower edge of each bin; a value on an inner edge belongs to the lower bin.
        count: Patches.
        stated: Mean probability that the model stated.
        observed: Fraction that came true.
    """

    lower: Array
    count: Array
    stated: Array
    observed: Array


def _binned(labels: npt.ArrayLike, probability: npt.ArrayLike, bins: int) -> tuple[Array, Array, Array]:
    """Stated probability, whether it came true, and bin of each patch, all [N]; see `reliability_bins`."""
    y, p = np.asarray(labels).astype(int), np.asarray(probability, float)
    stated, came_true = (p, y == 1) if p.ndim == 1 else (p.max(axis=1), p.argmax(axis=1) == y)
    return stated, came_true, np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)


def reliability_bins(labels: npt.ArrayLike, probability: npt.ArrayLike, bins: int = 15) -> ReliabilityBins:
    """Stated against observed frequency in equal-width bins over [0, 1].

    Binary: P(positive) against the fraction of positives, since such a model is cut at its own threshold. Several
    classes: the probability of the predicted class against the fraction of correct predictions (Guo et al. 2017).

    Args:
        labels: Class numbers, [N].
        probability: P(positive) [N], or [N, C].
        bins: Number of bins, B.
    """
    stated, came_true, bin_of = _binned(labels, probability, bins)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        return ReliabilityBins(
            lower=np.arange(bins) / bins,
            count=count,
            stated=np.bincount(bin_of, weights=stated, minlength=bins) / count,
            observed=np.bincount(bin_of, weights=came_true, minlength=bins) / count,
        )


def expected_calibration_error(labels: npt.ArrayLike, probability: npt.ArrayLike, bins: int = 15) -> float:
    """ECE (Guo et al. 2017): mean gap between stated and observed frequency, weighted by patches.

    Returns:
        0 to 1; NaN without patches.
    """
    table = reliability_bins(labels, probability, bins)
    if not table.count.sum():
        return float("nan")
    filled = table.count > 0
    gap = np.abs(table.stated - table.observed)[filled]
    return float(np.sum(gap * table.count[filled]) / table.count.sum())


def calibration_gaps(
    labels: npt.ArrayLike, probability: npt.ArrayLike, index: Array, n_groups: int, bins: int = 15
) -> Array:
    """Sum over patches of stated probability minus what came true, by group and bin, [G, B].

    Sums of its rows over resampled groups give the ECE of the resample: sum of |gaps| / patches.

    Args:
        labels: Class numbers, [N].
        probability: P(positive) [N], or [N, C].
        index: Position of each patch's group, [N].
        n_groups: Number of groups, G.
        bins: Number of bins, B; see `reliability_bins`.
    """
    stated, came_true, bin_of = _binned(labels, probability, bins)
    gaps = np.bincount(index * bins + bin_of, weights=stated - came_true, minlength=n_groups * bins)
    return gaps.reshape(n_groups, bins)


def reliability(labels: npt.ArrayLike, probability: npt.ArrayLike) -> dict[str, float]:
    """How good probabilities are as probabilities: `ece`, `log_loss` and `brier`; NaN without patches."""
    return {
        "ece": expected_calibration_error(labels, probability),
        "log_loss": log_loss(labels, probability),
        "brier": brier(labels, probability),
    }
