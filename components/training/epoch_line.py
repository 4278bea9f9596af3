"""The line that training says after each epoch: written here, and read back here by whoever shows it otherwise.

A line rather than a call: it comes through TFX, through processes of their own and out of folds all the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class EpochFacts:
    """What is said of an epoch.

    Attributes:
        epoch: Its number over all phases, from 1.
        epochs: Of all phases, at most.
        figures: Keras' names to values; those that begin with `val_` are of the eval split.
        seconds: That it took.
        images_per_second: In training.
        learning_rate: At its end.
        phase: From 1.
        phases: How many there are.
        fold: Of several, from 1; 0 where there are none.
        folds: How many.
    """

    epoch: int
    epochs: int
    figures: Mapping[str, float]
    seconds: float
    images_per_second: float
    learning_rate: float
    phase: int = 1
    phases: int = 1
    fold: int = 0
    folds: int = 0

    def to_line(self) -> str:
        """The line; of folds without their number, which who trains them puts before each of its lines."""
        phase = f", phase {self.phase}/{self.phases}" if self.phases > 1 else ""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in self.figures.items())
        return (
            f"epoch {self.epoch}/{self.epochs}{phase}  {figures}  "
            f"{self.seconds:.1f} s  {self.images_per_second:,.0f} images/s  learning rate {self.learning_rate:.2e}"
        )


_FOLD = re.compile(r"fold (\d+)/(\d+): (.*)")
_EPOCH = re.compile(
    r"epoch (\d+)/(\d+)(?:, phase (\d+)/(\d+))?  (.*)  ([\d.]+) s  ([\d,]+) images/s  learning rate (\S+)"
)


def split_fold(line: str) -> tuple[int, int, str]:
    """Number of the fold that a line is of, how many there are, and the rest of it; zeros where it is of none."""
    found = _FOLD.fullmatch(line)
    return (int(found[1]), int(found[2]), found[3]) if found else (0, 0, line)


def parse(line: str) -> EpochFacts | None:
    """What `to_line` was told, rounded as it stands there; None for any other line.

    Args:
        line: Of a log; may begin with the number of a fold.
    """
    fold, folds, rest = split_fold(line)
    found = _EPOCH.fullmatch(rest)
    if found is None:
        return None
    epoch, epochs, phase, phases, figures, seconds, speed, rate = found.groups()
    try:
        pairs = [text.rsplit(" ", 1) for text in figures.split("  ") if text]
        return EpochFacts(
            int(epoch), int(epochs), {name: float(value) for name, value in pairs}, float(seconds),
            float(speed.replace(",", "")), float(rate), int(phase or 1), int(phases or 1), fold, folds,
        )  # fmt: skip
    except ValueError:
        return None
