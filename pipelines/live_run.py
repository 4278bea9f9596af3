"""A training run as it is seen on a terminal: its stages, its epochs or folds, the best so far, the time left."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.core.text import number
from components.training import epoch_line
from components.training.epoch_line import EpochFacts
from components.training.run_types import STAGES
from pipelines import console, run_times
from pipelines.live import Screen, duration, grid, on_terminal

if TYPE_CHECKING:
    from components.storage.base import Storage
    from components.training.recipe import TrainingConfig

Log = Callable[[str], None]
Told = Callable[[str, str], None]
"""Gets a stage, and `running` or `done`."""

TITLES = {"loss": "train loss", "val_loss": "eval loss", "val_auc": "eval AUC", "val_macro_f1": "eval macro-F1"}
MAIN = ("val_auc", "val_macro_f1")
PASSING = re.compile(r"features: .*, about (\d+) s left")
"""Lines that the next of their kind makes old."""

SAID_BY_STAGES = re.compile(rf"({'|'.join(STAGES)}): (begins|done in \d+ s)")


@contextlib.contextmanager
def followed(storage: Storage, folder: str, config: TrainingConfig) -> Iterator[tuple[Log, Told]]:
    """Shows a run while the block works, where there is a terminal; elsewhere its lines are printed as they come.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
        config: Its recipe.

    Yields:
        What takes the run's lines, and what takes its stages.
    """
    if not on_terminal():
        yield console.log, lambda stage, state: None
        return
    past = run_times.past_seconds(storage, folder.rpartition("/")[0], config)
    view = RunView(config.early_stopping.monitor, past, config.folds if config.decision == "folds" else 0)
    with view.screen:
        try:
            yield view.log, view.stage
        except BaseException:
            view.fail()
            raise
        finally:
            view.end()


class RunView:
    """What is known of a run, and how it looks.

    Args:
        monitor: What early stopping watches; empty for nothing.
        past: Seconds of each stage in earlier runs.
        folds: How many are trained; 0 for none.
        now: The time in seconds.
    """

    def __init__(
        self,
        monitor: str,
        past: Mapping[str, float],
        folds: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.monitor, self.past, self.folds = monitor, past, folds
        self.screen = Screen(self.draw)
        self._now = now
        self._begun: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._epochs: dict[int, list[EpochFacts]] = {}
        self._clock = run_times.TrainingClock(now)
        self._passing = ""
        self._failed = self._over = False

    def log(self, line: str) -> None:
        """Takes a line: into the table, or above all."""
        fold, _, rest = epoch_line.split_fold(line)
        self._clock.enter_fold(fold)
        if (facts := epoch_line.parse(line)) is not None:
            self._epochs.setdefault(fold, []).append(facts)
            self._clock.add(facts)
        elif (passing := PASSING.fullmatch(rest)) is not None:
            self._passing = line
            self._clock.expect(float(passing[1]))
        elif not SAID_BY_STAGES.fullmatch(line):
            self._passing = ""
            self.screen.print(line)

    def stage(self, name: str, state: str) -> None:
        """Takes that a stage begins or is over."""
        self._passing = ""
        if state == "running":
            self._begun[name] = self._now()
        else:
            self._seconds[name] = self._now() - self._begun.get(name, self._now())

    def fail(self) -> None:
        """Takes that the run ends here, with an error or because somebody stops it."""
        self._failed = True

    def end(self) -> None:
        """Takes that nothing follows: what is drawn from now on stays on the terminal."""
        self._over = True

    def draw(self) -> Any:
        """What is to be seen now."""
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = []
        if 0 in self._epochs and not self.folds:
            parts.append(self._epoch_table(self._epochs[0]))
        elif self._epochs:
            parts.append(self._fold_table())
        if self._passing and not self._over:
            parts.append(Text(self._passing, style="dim"))
        left = "" if self._over else self.left()
        return Group(*parts, Text(""), self._stage_line(), *([Text(left)] if left else []))

    def _running(self) -> str:
        return next((name for name in reversed(STAGES) if name in self._begun and name not in self._seconds), "")

    def _stage_line(self) -> Any:
        from rich.text import Text

        marks, running, parts = self.screen.marks, self._running(), []
        for name in STAGES:
            if name in self._seconds:
                parts.append((f"{marks['done']} {name} {duration(self._seconds[name])}", "green"))
            elif name == running:
                state = "failed" if self._failed else "running"
                spent = duration(self._now() - self._begun[name])
                parts.append((f"{marks[state]} {name} {spent}", "bold red" if self._failed else "bold"))
            else:
                parts.append((f"{marks['waiting']} {name}", "dim"))
        return Text("   ").join(Text(*part) for part in parts)

    def left(self) -> str:
        """About how long the whole run still takes, in words; empty where nothing is known."""
        running = self._running()
        if not running:
            return ""
        training = self._clock.left(self.folds)
        elapsed = self._now() - self._begun[running]
        seconds, unknown = run_times.run_left(STAGES, self.past, running, elapsed, training)
        at_most = " at most" if running == "train" and training is not None and self.monitor else ""
        if seconds < 1:
            return ""
        known = f"about {duration(seconds)} left{at_most}"
        return f"{known}, not counting {', '.join(unknown)}" if unknown else known

    def _watched(self, facts: EpochFacts) -> str:
        """The figure that the best epoch is best by."""
        return self.monitor or next((name for name in MAIN if name in facts.figures), "val_loss")

    def _best(self, epochs: Sequence[EpochFacts]) -> EpochFacts | None:
        watched = self._watched(epochs[0])
        known = [facts for facts in epochs if watched in facts.figures]
        sign = -1.0 if watched.endswith("loss") else 1.0
        return max(known, key=lambda facts: sign * facts.figures[watched], default=None)

    def _epoch_table(self, epochs: Sequence[EpochFacts]) -> Any:
        from rich.text import Text

        main = next((name for name in MAIN if name in epochs[0].figures), "")
        names = [name for name in dict.fromkeys(("loss", "val_loss", main, self.monitor)) if name]
        phases = [("phase", "right")] if epochs[0].phases > 1 else []
        headings = [(TITLES.get(name, name.replace("val_", "eval ")), "right") for name in names]
        table = grid(("epoch", "right"), *phases, *headings, ("time", "right"), ("", "left"))
        best = self._best(epochs)
        for facts in _window(epochs, None if self._over else self.screen.rows, best):
            if facts is None:
                table.add_row("...")
                continue
            row = [f"{facts.epoch}/{facts.epochs}", *([f"{facts.phase}/{facts.phases}"] if phases else [])]
            row += [number(facts.figures.get(name), 4) for name in names]
            mark = self.screen.marks["best"] if facts is best else ""
            style = "bold green" if facts is best else ""
            table.add_row(*(Text(cell, style=style) for cell in [*row, f"{facts.seconds:.1f} s", mark]))
        return table

    def _fold_table(self) -> Any:
        first = next(iter(self._epochs.values()))[0]
        watched = self._watched(first)
        table = grid(
            ("fold", "right"), ("epoch", "right"), (f"best {TITLES.get(watched, watched)}", "right"),
            ("of epoch", "right"), ("training", "right"),
        )  # fmt: skip
        for fold, epochs in sorted(self._epochs.items(), key=lambda item: item[0] or self.folds + 1):
            last, best = epochs[-1], self._best(epochs)
            table.add_row(
                f"{fold}/{self.folds}" if fold else "all",
                f"{last.epoch}/{last.epochs}",
                number(best.figures[watched] if best else None, 4),
                str(best.epoch) if best else "",
                duration(sum(facts.seconds for facts in epochs)),
            )
        return table


def _window(epochs: Sequence[EpochFacts], rows: int | None, best: EpochFacts | None) -> list[EpochFacts | None]:
    """The epochs that there is room for: the last ones, and above them the best; None stands for those left out."""
    if rows is None or len(epochs) <= rows:
        return list(epochs)
    last = list(epochs[-(rows - 2) :])
    return [None, *last] if best is None or best in last else [best, None, *last]
