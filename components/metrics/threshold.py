"""The operating point of a binary model: the cut on P(positive), chosen on the eval split."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from components.core.text import plural
from components.errors import DataError, UsageError
from components.metrics.bootstrap import BootstrapPlan, percentile_interval, plan_resamples
from components.metrics.point import Array, rates, ratio
from components.metrics.threshold_criterion import sensitivity_target


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
    takes the best specificity with which X is reached, and of such cuts the lowest.

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
    cuts, measured = _cuts(labels, probability)
    if name == "sensitivity":
        return float(cuts[_free(measured, _highest(measured, target))])
    quality = measured["f1" if name == "f1" else "balanced_accuracy"]
    best = cuts[np.flatnonzero(quality >= quality.max() - 1e-12)]
    return float(best[np.argmin(np.abs(best.astype(float) - 0.5))])


def _cuts(labels: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[Array, dict[str, Array]]:
    """Every cut that parts patches, rising, float32 [K], and the rates at each."""
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
    middle = ((values[1:].astype(float) + values[:-1]) / 2).astype(np.float32)
    # Neighbouring float32 have no number between them: the upper one is then the cut.
    cuts = np.append(np.float32(0), np.where(middle > values[:-1], middle, values[1:]))
    return cuts, measured


def _highest(measured: dict[str, Array], target: float) -> int:
    """The last cut that reaches a sensitivity, allowing for the rounding of the target itself."""
    return int(np.flatnonzero(measured["sensitivity"] >= target - 1e-12)[-1])


def _free(measured: dict[str, Array], place: int) -> int:
    """The lowest cut of the same specificity: what is more sensitive at no cost."""
    return int(np.flatnonzero(measured["specificity"] >= measured["specificity"][place])[0])


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and how it came about.

    Attributes:
        threshold: Exactly a float32.
        note: Empty, or one sentence on the margin of `sensitivity=X`.
        met: Whether what was asked for is shown by the lower limit; True for criteria that ask for no number.
        sensitivity: Of the eval split at the threshold; `estimate`, `low` (None where there is no interval), `groups`
            with positives and `target`; empty unless `sensitivity=X`.
    """

    threshold: float
    note: str = ""
    met: bool = True
    sensitivity: dict[str, float | None] = dataclasses.field(default_factory=dict)


def operating_point(
    labels: npt.ArrayLike,
    probability: npt.ArrayLike,
    groups: npt.ArrayLike,
    criterion: str = "max balanced accuracy",
    *,
    plan: BootstrapPlan | None = None,
    unit: str = "patient",
) -> OperatingPoint:
    """As `choose_threshold`, but `sensitivity=X` holds with a margin for the patients that eval happens to have.

    The best specificity is taken at which the lower limit of the sensitivity, by bootstrap over the groups that have
    positives, reaches X. With fewer than five such groups there is no limit: then the most sensitive cut is taken, the
    highest one that misses no positive of eval, and the note says so. So it does where only that cut reaches X: the
    bootstrap sees no error there, and its limit means nothing.

    Args:
        labels: 0 or 1, [N].
        probability: P(positive) of the exported model, [N].
        groups: Group of each patch, [N].
        criterion: See `parse_criterion`.
        plan: How resamples are drawn; None for the gate's own.
        unit: What a group is called.

    Raises:
        DataError: A class is missing, or a probability is not finite.
    """
    name, target = parse_criterion(criterion)
    if name != "sensitivity":
        return OperatingPoint(choose_threshold(labels, probability, criterion))
    plan = plan or BootstrapPlan()
    cuts, measured = _cuts(labels, probability)
    positive = np.asarray(labels).astype(bool)
    p, of = np.asarray(probability, np.float32)[positive], np.asarray(groups)[positive].astype(str)
    resamples = plan_resamples(np.zeros(p.size, int), of, 1, plan)
    patches = np.bincount(resamples.index, minlength=resamples.groups)
    weights = resamples.weights.astype(float)

    def low(place: int) -> float:
        hits = np.bincount(resamples.index, weights=p >= cuts[place], minlength=resamples.groups)
        point = float(measured["sensitivity"][place])
        found = percentile_interval(point, ratio(weights @ hits, weights @ patches), resamples)
        return 0.0 if found.low is None else found.low

    # The limit falls as the cut rises, so the highest cut that holds it is found by halving.
    none_missed = _highest(measured, 1.0)
    holds, fails = none_missed, len(cuts)
    while not resamples.reason and fails - holds > 1:
        middle = (holds + fails) // 2
        holds, fails = (middle, fails) if low(middle) >= target - 1e-12 else (holds, middle)
    met = not resamples.reason and holds > none_missed
    place = _free(measured, holds)
    reached, limit = float(measured["sensitivity"][place]), low(place) if met else None
    reported = {"target": target, "estimate": reached, "low": limit, "groups": float(resamples.groups)}
    whom = plural(resamples.groups, unit)
    if met:
        note = (
            f"Sensitivity {reached:.3f} on eval; its lower {plan.confidence * 100:g} % limit over {whom} with"
            f" positives is {limit:.3f}, where {target:g} was asked for."
        )
    else:
        why = "no lower limit" if resamples.reason else "no cut that misses any of them and still holds the limit"
        note = (
            f"A sensitivity of {target:g} can't be shown on eval: with {whom} with positives there is {why}. The"
            " threshold is the highest that misses no positive of eval; more patients may need a lower one."
        )
    return OperatingPoint(float(cuts[place]), note, met, reported)
