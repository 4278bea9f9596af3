"""When a trial ends early: it is clearly behind, the budget is spent, or its rung is reached.

Clearly behind is a median rule (Golovin et al. 2017, Google Vizier, section 3.2.2) with a margin: from half of its
epochs on, a trial whose best value lies below the median of the finished ones at the same share of their epochs, by
more than their standard error, has no more to hope for.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

from components.sweeps.sweep_types import TrialRecord

BEGIN = 0.5
"""Share of its epochs that every trial gets."""

FINISHED = 3
"""Trials that must have been trained to their end before one is compared with them."""

BUDGET = "the budget of time was spent"
"""How the reason of a trial begins that may go on once there is more time."""

CUT = "cut by the budget"
"""What such a trial is called on pages, terminals and in JSON."""

Look = Callable[[Sequence[float], int], None]
"""Gets the curve of a trial and the epochs of its recipe."""


class EndedEarly(Exception):
    """Ends a trial; says why, in a sentence without its full stop."""


def was_cut(trial: TrialRecord) -> bool:
    """Whether the budget ended a trial, not what it had learnt."""
    return trial.state == "stopped" and trial.reason.startswith(BUDGET)


def outcome(trial: TrialRecord | None) -> str:
    """What became of a trial, in the words of pages, terminals and JSON; None for one that has not begun."""
    if trial is None:
        return "not begun"
    return CUT if was_cut(trial) else {"stopped": "ended early"}.get(trial.state, trial.state)


def best_until(curve: Sequence[float], share: float) -> float:
    """The best value of a curve up to a share of its epochs.

    Args:
        curve: One value per epoch.
        share: Above 0; at least the first epoch counts.
    """
    return max(curve[: max(1, math.ceil(share * len(curve)))])


def clearly_behind(curve: Sequence[float], epochs: int, finished: Sequence[TrialRecord], metric: str) -> str:
    """Why a trial is ended, empty where it goes on.

    Args:
        curve: Of the trial, one value per finished epoch.
        epochs: Of its whole recipe.
        finished: Trials that were trained to their end.
        metric: Primary metric, which the curves are of.
    """
    share = len(curve) / max(1, epochs)
    others = [trial for trial in finished if trial.state == "done" and trial.curve]
    errors = [trial.figures.get(metric, {}).get("standard_error") for trial in others]
    known = [float(error) for error in errors if error is not None]
    if share < BEGIN or share >= 1 or len(others) < FINISHED or not known:
        return ""
    median = statistics.median(best_until(trial.curve, share) for trial in others)
    margin = statistics.median(known)
    best = max(curve)
    if best >= median - margin:
        return ""
    return (
        f"clearly behind after {len(curve)} of {epochs} epochs: {best:.3f}, where half of the finished trials had"
        f" {median:.3f} or more by then (margin {margin:.3f})"
    )


def watch(
    *,
    finished: Callable[[], Sequence[TrialRecord]],
    metric: str,
    rung: int | None,
    seconds_left: float | None,
    note: Callable[[Sequence[float], int], None],
    clock: Callable[[], float] = time.monotonic,
) -> Look:
    """What looks at a trial after each epoch; raises `EndedEarly`.

    Args:
        finished: Reads the other trials as they are by then.
        metric: Primary metric.
        rung: Epochs after which it ends; None for none.
        seconds_left: Of the sweep's budget; None for no limit.
        note: Told first, with the same arguments.
        clock: Seconds.
    """
    started = clock()

    def look(curve: Sequence[float], epochs: int) -> None:
        note(curve, epochs)
        if len(curve) >= epochs:
            return
        if rung is not None and len(curve) >= rung:
            raise EndedEarly(f"its rung: {len(curve)} of {epochs} epochs, the better ones go on")
        if seconds_left is not None and clock() - started >= seconds_left:
            raise EndedEarly(f"{BUDGET} after {len(curve)} of {epochs} epochs")
        behind = clearly_behind(curve, epochs, finished(), metric) if rung is None else ""
        if behind:
            raise EndedEarly(behind)

    return look
