"""From raw to stated probabilities: temperature, threshold, and how far off the probabilities are."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from components.errors import DataError, UsageError
from components.metrics.point import Array, rates
from components.metrics.threshold_criterion import sensitivity_target

PROBABILITY_FLOOR = 1e-7  # float32 probabilities reach 0 and 1, where no logit exists
TEMPERATURE_RANGE = (0.05, 20.0)


@dataclasses.dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: Divides the logits; 1 changes nothing, more than 1 makes probabilities less extreme.
        note: Empty, or why the value is not an optimum: `no_optimum` (likelihood has no maximum, as where the
            split is classified without an error or all logits are 0: 1 is kept), `at_bound` (no better than
            chance: the largest value is taken).
    """

    value: float
    note: str = ""


def scores_from_probability(probability: npt.ArrayLike) -> Array:
    """Logits that a temperature divides.

    Args:
        probability: P(positive) [N], or [N, C].

    Returns:
        log(p / (1 - p)) [N], or log p [N, C] (logits up to a constant per row, which softmax ignores).
    """
    p = np.clip(np.asarray(probability, float), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    scores: Array = np.log(p) - np.log1p(-p) if p.ndim == 1 else np.log(p)
    return scores


def _probability(scores: Array) -> Array:
    if scores.ndim == 1:
        # Written over tanh because exp overflows for large negative scores.
        positive: Array = 0.5 * (1.0 + np.tanh(0.5 * scores))
        return positive
    shifted: Array = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def apply_temperature(probability: npt.ArrayLike, temperature: float) -> Array:
    """Probabilities after their logits are divided by the temperature; same shape."""
    return _probability(scores_from_probability(probability) / temperature)


def fit_temperature(labels: npt.ArrayLike, probability: npt.ArrayLike) -> Temperature:
    """Temperature that minimises the negative log likelihood.

    Guo et al. 2017, On Calibration of Modern Neural Networks. The likelihood is convex in 1/T, so the sign of
    its slope is bisected over log T within [0.05, 20]; this cannot diverge. Ranking, and with it AUC, stays
    as it is.

    Args:
        labels: Class numbers, [N].
        probability: P(positive) [N], or [N, C].

    Raises:
        DataError: No patches, or probabilities that are not finite.
    """
    y, p = np.asarray(labels).astype(int), np.asarray(probability)
    if not p.size or not np.isfinite(p).all():
        raise DataError(
            "Calibration of the eval split failed: it holds no patches, or the model gave probabilities that"
            " are not finite.",
            "Check the eval split, and the training history for a loss that diverged.",
        )
    scores = scores_from_probability(p)
    if scores.ndim == 2:
        scores = scores - scores.max(axis=1, keepdims=True)
    target = y.astype(float) if scores.ndim == 1 else np.eye(scores.shape[1])[y]

    def slope(log_temperature: float) -> float:
        """Derivative of the summed loss by 1/T: rises with 1/T, so it falls with T."""
        return float(np.sum((_probability(scores / np.exp(log_temperature)) - target) * scores))

    low, high = np.log(TEMPERATURE_RANGE[0]), np.log(TEMPERATURE_RANGE[1])
    if slope(high) > 0:
        return Temperature(TEMPERATURE_RANGE[1], "at_bound")
    if slope(low) <= 0:
        return Temperature(1.0, "no_optimum")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return Temperature(float(np.exp((low + high) / 2)))


def parse_criterion(text: str) -> tuple[str, float]:
    """Reads a threshold criterion.

    Args:
        text: `max balanced accuracy` (also with underscores), `f1`, `youden`, or `sensitivity=X` with 0 < X
            <= 1.

    Returns:
        Name and target (0 unless `sensitivity`).

    Raises:
        UsageError: Anything else.
    """
    name = " ".join(text.strip().lower().replace("_", " ").split())
    if name in ("max balanced accuracy", "f1", "youden"):
        return name, 0.0
    target = sensitivity_target(name)
    if target is not None:
        return "sensitivity", target
    raise UsageError(
        f"Threshold criterion {text!r} is not known.",
        "Use 'max balanced accuracy', 'f1', 'youden' or 'sensitivity=0.95' (a number above 0, at most 1).",
    )


def choose_threshold(
    labels: npt.ArrayLike, probability: npt.ArrayLike, criterion: str = "max balanced accuracy"
) -> float:
    """Cut on P(positive) that is best on the eval split.

    A cut lies half way between two neighbouring probabilities, so that rounding in another runtime cannot
    move a patch across it. Of cuts that are equally good the one nearest to 0.5 is taken, then the lower.
    `youden` (sensitivity + specificity - 1, Youden 1950) is best where balanced accuracy is. `sensitivity=X`
    takes the highest cut that reaches X, that is, the best specificity.

    Args:
        labels: 0 or 1, [N].
        probability: P(positive) of the exported model, [N].
        criterion: See `parse_criterion`.

    Returns:
        Threshold, exactly a float32: positive means `probability >= threshold`.

    Raises:
        DataError: A class is missing, or a probability is not finite.
    """
    name, target = parse_criterion(criterion)
    y = np.asarray(labels).astype(bool)
    p = np.asarray(probability, np.float32)
    if not y.any() or y.all() or not np.isfinite(p).all():
        raise DataError(
            "No threshold can be chosen: the eval split lacks a class, or the model gave probabilities that"
            " are not finite.",
            "Ingest with a split in which every class has groups in eval, and check the training history.",
        )
    values, inverse = np.unique(p, return_inverse=True)
    positive = np.bincount(inverse, weights=y, minlength=values.size)
    negative = np.bincount(inverse, weights=~y, minlength=values.size)
    fn, tn = np.cumsum(positive) - positive, np.cumsum(negative) - negative  # cut just below each value
    measured = rates(positive.sum() - fn, negative.sum() - tn, tn, fn)
    if name == "sensitivity":
        # The least sensitivity that counts as reached, allowing for the rounding of X itself.
        best = np.array([np.flatnonzero(measured["sensitivity"] >= target - 1e-12)[-1]])
    else:
        quality = measured["f1"] if name == "f1" else measured["balanced_accuracy"]
        best = np.flatnonzero(quality >= quality.max() - 1e-12)
    middle = ((values[1:].astype(float) + values[:-1]) / 2).astype(np.float32)
    # Neighbouring float32 have no number between them: the upper one is then the cut.
    cuts = np.append(np.float32(0), np.where(middle > values[:-1], middle, values[1:]))[best]
    return float(cuts[np.argmin(np.abs(cuts.astype(float) - 0.5))])


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
