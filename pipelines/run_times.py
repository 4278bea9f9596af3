"""How long a run still takes, by its epochs and by the runs before it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from components.errors import HistolineError

if TYPE_CHECKING:
    from components.storage.base import Storage
    from components.training.epoch_line import EpochFacts
    from components.training.recipe import TrainingConfig
    from components.training.run_types import RunRecord

LOOK_AT = 20
"""Runs before this one, the last ones by name."""


def past_seconds(storage: Storage, home: str, config: TrainingConfig) -> dict[str, float]:
    """Median seconds of each stage in earlier runs: of this recipe, else of its model, else (but for train) of any.

    Args:
        storage: The workspace.
        home: `runs/DATASET/TASK`.
        config: The recipe of the run at hand.
    """
    from components.training import run_record

    found: list[RunRecord] = []
    for name in sorted(storage.list_dirs(home), reverse=True)[:LOOK_AT]:
        try:
            record = run_record.read(storage, f"{home}/{name}")
        except HistolineError:  # another program's folder, or a damaged one
            continue
        if record.state == "done" and record.decision in ("promoted", "refused"):
            found.append(record)
    recipe = config.making_digest()
    same = [record for record in found if record.digests.get("recipe") == recipe]
    alike = [record for record in found if record.config.get("model") == config.model]
    seconds = {**_medians(found), **_medians(alike), **_medians(same)}
    return seconds if same or alike else {stage: value for stage, value in seconds.items() if stage != "train"}


def _medians(records: Sequence[RunRecord]) -> dict[str, float]:
    by_stage: dict[str, list[float]] = {}
    for record in records:
        for name, entry in record.stages.items():
            if entry.state == "done" and entry.seconds is not None:
                by_stage.setdefault(name, []).append(entry.seconds)
    return {name: statistics.median(values) for name, values in by_stage.items()}


class TrainingClock:
    """How long training still takes: the epochs that are left, at the pace of those before.

    Args:
        now: The time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: tuple[EpochFacts, float] | None = None
        self._pace: list[float] = []
        self._folds: dict[int, float] = {}
        self._until: float | None = None

    def enter_fold(self, fold: int) -> None:
        """Notes that lines of a fold have begun."""
        if fold and fold not in self._folds:
            self._folds[fold] = self._now()
            self._last, self._pace = None, []

    def add(self, facts: EpochFacts) -> None:
        """Notes an epoch."""
        self._last = (facts, self._now())
        self._pace = [*self._pace[-4:], facts.seconds]

    def expect(self, seconds: float) -> None:
        """Notes what training itself says it will take."""
        self._until = self._now() + seconds

    def left(self, folds: int = 0) -> float | None:
        """Seconds, where every phase goes on to its last epoch; None while nothing is known.

        Args:
            folds: How many are trained one after another; 0 for none.
        """
        begun = sorted(self._folds.values())
        whole = statistics.mean(b - a for a, b in zip(begun, begun[1:], strict=False)) if len(begun) > 1 else None
        if self._last is None and self._until is not None:
            return max(0.0, self._until - self._now())
        if self._last is None:
            return None if whole is None else whole * (folds - len(begun) + 1)
        facts, at = self._last
        pace = statistics.median(self._pace)
        rest = max(0.0, (facts.epochs - facts.epoch) * pace - (self._now() - at))
        following = max(0, folds - max(self._folds, default=folds))
        return rest + following * (facts.epochs * pace if whole is None else whole)


def run_left(
    stages: Sequence[str],
    past: Mapping[str, float],
    running: str,
    elapsed: float,
    training: float | None,
) -> tuple[float, list[str]]:
    """Seconds that the rest of a run takes, and the stages of which nobody knows.

    Args:
        stages: All of them, in order.
        past: Seconds by stage.
        running: The stage at hand.
        elapsed: Seconds that it has taken.
        training: What is left of training, where it runs and that is known.
    """
    seconds, unknown = 0.0, []
    if running == "train" and training is not None:
        seconds = training
    elif running in past:
        seconds = max(0.0, past[running] - elapsed)
    else:
        unknown.append(running)
    for stage in stages[stages.index(running) + 1 :]:
        if stage in past:
            seconds += past[stage]
        else:
            unknown.append(stage)
    return seconds, unknown
