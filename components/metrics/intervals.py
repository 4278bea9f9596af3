"""An estimate with its interval, and what follows from a standard error."""

from __future__ import annotations

import dataclasses
import math
import statistics


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: On the data themselves; NaN where undefined.
        low: Lower limit, None where there is no interval.
        high: Upper limit, likewise.
        standard_error: Standard deviation over the resamples, None likewise.
        reason: Why there is no interval: `too_few_groups`, `class_rarely_drawn`, `undefined`; else empty.
        groups: Groups that were resampled.
        weak: Pooled over classes with too few groups: weak evidence, to be said wherever it is shown.
        undefined: Resamples in which the figure does not exist (left out of the interval).
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    reason: str = ""
    groups: int = 0
    weak: bool = False
    undefined: int = 0


def critical_value(confidence: float, groups: int) -> float:
    """How many standard errors an expanded limit lies from the estimate: sqrt(G / (G - 1)) * t.

    t is the Student quantile for G - 1 degrees of freedom (Hesterberg 2015, What Teachers Should Know About the
    Bootstrap, section 4.2). A percentile interval knows neither that the bootstrap's variance is short by (G - 1) / G
    nor that it is estimated.

    Args:
        confidence: Two-sided, such as 0.95.
        groups: Number of resampled groups, G.
    """
    from scipy.special import stdtrit

    free = max(1, groups - 1)
    return math.sqrt((free + 1) / free) * float(stdtrit(free, (1 + confidence) / 2))


def expanded_tail(confidence: float, groups: int) -> float:
    """Tail probability at which percentiles are read so that few groups do not give too short an interval.

    The expanded percentile interval: Phi(-critical value).

    Args:
        confidence: Two-sided, such as 0.95.
        groups: Number of resampled groups, G.

    Returns:
        Probability in each tail: 0.0188 for 0.95 and 30 groups, 0.025 in the limit of many.
    """
    return statistics.NormalDist().cdf(-critical_value(confidence, groups))


def smallest_detectable_difference(
    standard_error: float, groups: int, *, confidence: float = 0.95, power: float = 0.80
) -> float:
    """Smallest true difference that a test of this precision finds with the given power.

    (critical value + z[power]) * SE, from the bootstrap standard error of the paired difference: 2.80 * SE at 95 % and
    80 % for many groups, 2.92 * SE for 30.

    Args:
        standard_error: Of the difference.
        groups: That were resampled.
        confidence: Two-sided confidence of the interval whose lower limit must pass 0.
        power: Probability of finding it.
    """
    return (critical_value(confidence, groups) + statistics.NormalDist().inv_cdf(power)) * standard_error


def groups_needed(
    standard_error: float, groups: int, difference: float, confidence: float, *, power: float = 0.80
) -> int | None:
    """Groups at which a true difference would probably be found; None where no number of them finds it.

    A standard error over G groups falls as 1 / sqrt(G), so that (critical value + z[power]) * SE reaches the difference
    at G * ((critical value + z[power]) * SE / difference)^2. The critical value of today's number of groups is used:
    that of more is a little smaller.

    Args:
        standard_error: Of the difference, today.
        groups: That it was measured on.
        difference: The true one, with the margin where one is allowed.
        confidence: Two-sided, of the interval whose lower limit must pass 0.
        power: Probability of finding it.
    """
    if difference <= 0:
        return None
    least = smallest_detectable_difference(standard_error, groups, confidence=confidence, power=power)
    return max(1, math.ceil(groups * (least / difference) ** 2))


def chance_of_passing(standard_error: float, groups: int, difference: float, confidence: float) -> float:
    """Probability that the lower limit of a difference lies above 0, where the true difference is this.

    Phi(difference / SE - critical value). For "not more than a margin below", the margin is added to the difference.

    Args:
        standard_error: Of the difference.
        groups: That were resampled.
        difference: The true one, with the margin.
        confidence: Two-sided confidence of the interval.
    """
    if standard_error <= 0:
        return float(difference > 0)
    return statistics.NormalDist().cdf(difference / standard_error - critical_value(confidence, groups))


def unpaired_standard_error(standard_error: float) -> float:
    """Standard error of the difference to a second, equally precise and independent model: sqrt(2) * SE.

    For the first model of a data set, when there is none to pair it with. Models on the same patches are
    positively correlated, so that this states too large, never too small, a detectable difference.
    """
    return math.sqrt(2.0) * standard_error
