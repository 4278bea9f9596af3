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


def expanded_tail(confidence: float, groups: int) -> float:
    """Tail probability at which percentiles are read so that few groups do not give too short an interval.

    The expanded percentile interval (Hesterberg 2015, What Teachers Should Know About the Bootstrap, section
    4.2): Phi(-sqrt(G / (G - 1)) * t), with t the Student quantile for G - 1 degrees of freedom. A percentile
    interval knows neither that the bootstrap's variance is short by (G - 1) / G nor that it is estimated.

    Args:
        confidence: Two-sided, such as 0.95.
        groups: Number of resampled groups, G.

    Returns:
        Probability in each tail: 0.0188 for 0.95 and 30 groups, 0.025 in the limit of many.
    """
    from scipy.special import stdtrit

    free = max(1, groups - 1)
    t = float(stdtrit(free, 1 - (1 - confidence) / 2))
    return statistics.NormalDist().cdf(-math.sqrt((free + 1) / free) * t)


def smallest_detectable_difference(
    standard_error: float, *, confidence: float = 0.95, power: float = 0.80
) -> float:
    """Smallest true difference that a test of this precision finds with the given power.

    (z[1 - (1 - confidence) / 2] + z[power]) * SE, that is (1.96 + 0.84) * SE = 2.80 * SE at 95 % and 80 %,
    from the bootstrap standard error of the paired difference.

    Args:
        standard_error: Of the difference.
        confidence: Two-sided confidence of the interval whose lower limit must pass 0.
        power: Probability of finding it.
    """
    normal = statistics.NormalDist()
    return (normal.inv_cdf(1 - (1 - confidence) / 2) + normal.inv_cdf(power)) * standard_error


def unpaired_standard_error(standard_error: float) -> float:
    """Standard error of the difference to a second, equally precise and independent model: sqrt(2) * SE.

    For the first model of a data set, when there is none to pair it with. Models on the same patches are
    positively correlated, so that this states too large, never too small, a detectable difference.
    """
    return math.sqrt(2.0) * standard_error
