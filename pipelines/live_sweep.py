"""A sweep as it is seen on a terminal: its trials, the best so far, the time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from components.core.text import number
from components.sweeps import stopping
from components.sweeps.sweep_types import ADAPTIVE, SweepRecord, Trial, TrialRecord
from components.training import epoch_line
from pipelines.live import Screen, duration, grid, on_terminal

TITLES = {"auc": "AUC", "macro_f1": "macro-F1"}

if TYPE_CHECKING:
    from components.training.epoch_line import EpochFacts

Log = Callable[[str], None]


@contextlib.contextmanager
def followed(log: Log) -> Iterator[SweepView | None]:
    """Shows a sweep while the block works; None where there is no terminal, and its lines are printed as they come.

    Args:
        log: Of the command.
    """
    if not on_terminal():
        yield None
        return
    view = SweepView()
    with view.screen:
        try:
            yield view
        finally:
            view.end()


class SweepView:
    """What is known of a sweep's trials, and how it looks.

    Args:
        now: The time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.screen = Screen(self.draw)
        self._now = now
        self._sweep: SweepRecord | None = None
        self._known: dict[int, TrialRecord] = {}
        self._trial: Trial | None = None
        self._begun = 0.0
        self._last: EpochFacts | None = None
        self._left: Callable[[], float] = lambda: 0.0
        self._over = False

    def update(self, sweep: SweepRecord, known: dict[int, TrialRecord], left: float) -> None:
        """Takes what stands in the sweep's folder.

        Args:
            sweep: sweep.json.
            known: Trials that have begun, by number.
            left: Seconds that the sweep still takes; 0 for unknown.
        """
        at = self._now()
        self._sweep, self._known = sweep, known
        self._left = lambda: max(0.0, left - (self._now() - at))

    def begin(self, trial: Trial) -> None:
        """Takes that a trial begins here."""
        self._trial, self._begun, self._last = trial, self._now(), None

    def finish(self) -> None:
        """Takes that it is over."""
        self._trial = None

    def end(self) -> None:
        """Takes that nothing follows."""
        self._over = True

    def line(self, line: str) -> None:
        """Takes a line of the trial at hand; epochs go into its row, and only what is wrong is printed."""
        facts = epoch_line.parse(line)
        if facts is not None:
            self._last = facts
        elif line.startswith(("warning:", "error:")):
            self.screen.print(line)

    def log(self, line: str) -> None:
        """Takes a line of the sweep's own."""
        self.screen.print(line)

    def draw(self) -> Any:
        """What is to be seen now."""
        from rich.console import Group
        from rich.text import Text

        if self._sweep is None:
            return Text("")
        return Group(self._table(self._sweep), Text(""), Text(self.foot(self._sweep), style="bold"))

    def foot(self, sweep: SweepRecord) -> str:
        """How far the sweep is, in words."""
        over = sum(trial.over for trial in self._known.values())
        total = (sweep.search.trials or 0) if sweep.search.oracle in ADAPTIVE else len(sweep.trials)
        text = f"{over} of {total} trials" if total else f"{over} trials"
        best = self._best()
        if best is not None:
            text += f"   best: trial {best.number}, {TITLES[sweep.metric]} {number(best.score)}"
        left = 0.0 if self._over else self._left()
        return text + (f"   about {duration(left)} left" if left >= 1 else "")

    def _best(self) -> TrialRecord | None:
        done = [trial for trial in self._known.values() if trial.state == "done" and trial.score is not None]
        return max(done, key=lambda trial: trial.score or 0.0, default=None)

    def _table(self, sweep: SweepRecord) -> Any:
        from rich.text import Text

        table = grid(
            ("trial", "right"), ("recipe", "left"), ("state", "left"), ("epoch", "right"),
            (TITLES[sweep.metric], "right"), ("time", "right"), ("", "left"),
        )  # fmt: skip
        best = self._best()
        shown = list(sweep.trials)
        if not self._over and len(shown) > self.screen.rows:
            # Those around the one at hand, and the best.
            at = self._trial.number if self._trial else len(self._known)
            first = max(0, min(at - self.screen.rows // 2, len(shown) - self.screen.rows))
            shown = shown[first : first + self.screen.rows]
            if best is not None and best.number not in {trial.number for trial in shown}:
                shown[0] = sweep.trials[best.number]
        for trial in shown:
            row = self._row(sweep, trial)
            mine = best is not None and trial.number == best.number
            style = "bold green" if mine else "dim" if row[0] == "waits" else ""
            drawn = ", ".join(f"{name}={value}" for name, value in trial.values.items())
            cells = [str(trial.number), f"{trial.title}{f' ({drawn})' if drawn else ''}", *row]
            table.add_row(*(Text(cell, style=style) for cell in [*cells, self.screen.marks["best"] if mine else ""]))
        return table

    def _row(self, sweep: SweepRecord, trial: Trial) -> tuple[str, str, str, str]:
        """State, epoch, figure and time of a trial."""
        found = self._known.get(trial.number)
        if self._trial is not None and trial.number == self._trial.number:
            last = self._last
            fold = f"fold {last.fold}/{last.folds} " if last is not None and last.fold else ""
            epoch = f"{fold}{last.epoch}/{last.epochs}" if last is not None else ""
            figure = number(last.figures.get(f"val_{sweep.metric}") if last is not None else None, absent="")
            return "trains", epoch, figure, duration(self._now() - self._begun)
        if found is None:
            return "waits", "", "", ""
        state = "trains elsewhere" if not found.over else stopping.outcome(found)
        epochs = f"{found.epochs_run}/{found.epochs}" if found.epochs else ""
        return state, epochs, number(found.score, absent=""), duration(found.seconds)
