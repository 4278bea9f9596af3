"""A trial ends early where it is clearly behind, where time is spent, and at its rung; not otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from components.sweeps import stopping
from components.sweeps.sweep_types import TrialRecord


def finished(*curves: Sequence[float], error: float | None = 0.02) -> list[TrialRecord]:
    figures = {"auc": {"standard_error": error}}
    return [TrialRecord(1, n, "done", "", "", curve=tuple(curve), figures=figures) for n, curve in enumerate(curves)]


GOOD = finished([0.6, 0.8, 0.85, 0.9], [0.5, 0.82], [0.7, 0.8, 0.8, 0.81, 0.82, 0.83])


def test_a_trial_clearly_behind_the_median_at_the_same_share_is_ended() -> None:
    assert "0.700, where half of the finished trials had 0.800" in stopping.clearly_behind([0.6, 0.7], 4, GOOD, "auc")
    assert stopping.clearly_behind([0.6, 0.785], 4, GOOD, "auc") == ""  # within the margin
    assert stopping.clearly_behind([0.79, 0.6], 4, GOOD, "auc") == ""  # its best counts
    assert stopping.clearly_behind([0.1], 4, GOOD, "auc") == ""  # the first half is everyone's
    assert stopping.clearly_behind([0.1] * 4, 4, GOOD, "auc") == ""  # it is at its end anyway


def test_nothing_is_ended_before_enough_is_known() -> None:
    assert stopping.clearly_behind([0.1, 0.1], 4, GOOD[:2], "auc") == ""
    assert stopping.clearly_behind([0.1, 0.1], 4, finished([0.9], [0.9], [0.9], error=None), "auc") == ""
    early = [TrialRecord(1, 9, "stopped", "", "", curve=(0.9, 0.9)), *GOOD[:2]]
    assert stopping.clearly_behind([0.1, 0.1], 4, early, "auc") == ""


def test_the_watch_ends_a_trial_at_its_rung_and_where_time_is_spent() -> None:
    noted: list[int] = []
    now = [0.0]

    def look(rung: int | None = None, left: float | None = None) -> stopping.Look:
        return stopping.watch(
            finished=lambda: [], metric="auc", rung=rung, seconds_left=left,
            note=lambda curve, epochs: noted.append(len(curve)), clock=lambda: now[0],
        )  # fmt: skip

    look()([0.5], 4)
    with pytest.raises(stopping.EndedEarly, match="its rung: 2 of 4"):
        look(rung=2)([0.5, 0.5], 4)
    timed = look(left=10)
    timed([0.5], 4)
    now[0] = 11
    timed([0.5] * 4, 4)  # the last epoch is the end anyway
    with pytest.raises(stopping.EndedEarly, match=f"{stopping.BUDGET} after 2 of 4"):
        timed([0.5, 0.5], 4)
    assert noted == [1, 2, 1, 4, 2]
