"""What a pruning is asked for, and what it says of each thing: goes or stays, how large, and why."""

from __future__ import annotations

import dataclasses
import datetime
import re

from components.errors import UsageError

KINDS = ("runs", "checkpoints", "sweeps", "artifacts", "datasets", "cache")
"""What there is to prune, in the order in which it is deleted: what needs something goes before what it needs."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What may go.

    Attributes:
        kinds: Some of `KINDS`.
        dataset: Only of this data set; empty for all.
        task: Only of this task; empty for all.
        keep_runs: Newest runs to keep of each data set and task; those that found nothing new by themselves.
        keep_sweeps: Newest sweeps, likewise.
        keep_datasets: Newest committed data sets, likewise, the latest included.
        older_than: Nothing that was changed within so many seconds goes.
        abandoned_after: A run or sweep that is not over, and that nobody has worked on for so many seconds, counts as
            one that is; None: what is not over stays.
        now: Unix time.
    """

    kinds: tuple[str, ...] = KINDS
    dataset: str = ""
    task: str = ""
    keep_runs: int = 10
    keep_sweeps: int = 3
    keep_datasets: int = 2
    older_than: float = 7 * 86400.0
    abandoned_after: float | None = None
    now: float = 0.0

    def young(self, changed: float) -> str:
        """Why something stays for its age; empty where it is old enough.

        Args:
            changed: Unix time of its last change.
        """
        is_young = max(self.now - changed, 0.0) < self.older_than
        return f"changed within the last {duration(self.older_than)}" if is_young else ""

    def is_abandoned(self, changed: float) -> bool:
        """Whether what is not over counts as abandoned; see `young` for the argument."""
        return self.abandoned_after is not None and self.now - changed >= self.abandoned_after


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is said of one thing.

    Attributes:
        kind: One of `KINDS`.
        path: Relative to the workspace, or to its working folder where it lies there.
        goes: Whether it is to be deleted.
        why: It goes, or stays; a clause.
        bytes: That it takes.
        changed: When it was last changed, Unix time.
    """

    kind: str
    path: str
    goes: bool
    why: str
    bytes: int
    changed: float

    @property
    def dataset(self) -> str:
        """Data set and task that it belongs to, as `DATASET/TASK`; of a cache what stands there."""
        return "/".join(self.path.split("/")[1:3])


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What should have gone, and did not.

    Attributes:
        path: As in `Verdict`.
        why: A sentence.
    """

    path: str
    why: str


def parse_age(text: str) -> float:
    """Seconds of an age such as `30d`.

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if match is None:
        raise UsageError(f"{text!r} is no age.", "Write a number and s, m, h, d or w, such as 30d or 12h.")
    return float(match[1]) * _UNITS[match[2]]


def duration(seconds: float) -> str:
    """Seconds as people say them: `3 days`, `5 hours`, `1 minute`."""
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count:,} {name}{'' if count == 1 else 's'}"
    return f"{int(seconds)} s"


def unix_time(moment: str) -> float:
    """Unix time of an ISO 8601 moment; 0 where it is none."""
    try:
        return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0

