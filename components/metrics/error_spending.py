"""How certain a comparison must be at each look at a test split, so that many tries do not promote by luck.

The error that a test may make is spent over the looks at it, as group-sequential trials do (Lan and DeMets 1983,
doi:10.1093/biomet/70.3.659), and added up by Bonferroni's inequality, which holds however the looks depend on each
other: see docs/decisions/0038-error-over-looks.md.
"""

from __future__ import annotations

from components.metrics.intervals import Interval

LAST = 10
"""From this look on certainty rises no further: beyond it no real gain would ever be found."""


def confidence_at(look: int, confidence: float = 0.95) -> float:
    """Two-sided confidence of the limits that decide at a look.

    The first look has the whole error `a = 1 - confidence`; all later ones share another `a`: look k has
    `a / (k (k - 1))`, whose sum over k = 2, 3, ... is `a`. From look `LAST` on it stays.

    Args:
        look: 1 for the first.
        confidence: Of the first.
    """
    k = min(max(look, 1), LAST)
    return 1 - (1 - confidence) / max(1, k * (k - 1))


def limits_at(interval: Interval, confidence: float, wanted: float) -> tuple[float | None, float | None]:
    """Limits of a difference at another confidence, each from its own distance to the estimate.

    A limit far out in the tail rests on a handful of resamples, and with tens of patients on a handful of patients. So
    the limits at `confidence` are moved outwards by the ratio of Student's quantiles for G - 1 degrees of freedom.

    Args:
        interval: Of a difference, at `confidence`; one without limits stays so.
        confidence: Two-sided.
        wanted: Likewise.
    """
    if interval.low is None or interval.high is None:
        return None, None
    if wanted == confidence:
        return interval.low, interval.high
    from scipy.special import stdtrit

    free = max(1, interval.groups - 1)
    ratio = float(stdtrit(free, (1 + wanted) / 2) / stdtrit(free, (1 + confidence) / 2))
    low = interval.estimate - (interval.estimate - interval.low) * ratio
    high = interval.estimate + (interval.high - interval.estimate) * ratio
    return max(-1.0, low), min(1.0, high)
