"""When DATASET_train runs by itself, beside the announcements of assets: by cron, and where data stand untrained.

Airflow drops what is announced to a paused DAG. So a data set that `latest.json` names and no run has looked at becomes
a slot of the timetable, at the time when it was committed: it is taken as soon as the DAG is unpaused.
"""

from __future__ import annotations

import datetime
import heapq
import json
import os
from pathlib import Path
from typing import Any

from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.timetables.trigger import CronTriggerTimetable
from pendulum import UTC, DateTime, now

QUIET = datetime.timedelta(minutes=10)
"""From the commit: the announcement, or whoever ingests and trains by the command line, comes first."""

LOOK_AT = 200
"""Runs, the newest first, that are looked through for one of the latest data."""

MAX_BYTES = 32 * 1024 * 1024


class CronOrUntrained(Timetable):
    """Slots of a cron expression, and one for each data set that was committed and is not trained on.

    Registered by the plugin `histoline_reports`, since the scheduler reads it back from its serialised form.

    Args:
        cron: Expression, UTC; empty for none.
        workspace: The workspace.
        dataset: Name of the data set.
        task: Whose data set is looked at: the form's default.
    """

    periodic = False

    def __init__(self, cron: str, workspace: str, dataset: str, task: str) -> None:
        self.cron, self.workspace, self.dataset, self.task = cron, workspace, dataset, task
        self._cron = CronTriggerTimetable(cron, timezone="UTC") if cron else None
        clock = f"{self._cron.description.removeprefix('At ')} (UTC), " if self._cron else ""
        self.description = f"{clock}or where data stand untrained for {QUIET.seconds // 60} minutes"

    @property
    def summary(self) -> str:
        """Shown where there is little room."""
        return self.cron or "untrained data"

    def serialize(self) -> dict[str, Any]:
        """Arguments of `deserialize`."""
        return {"cron": self.cron, "workspace": self.workspace, "dataset": self.dataset, "task": self.task}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CronOrUntrained:
        """The timetable of what `serialize` gave."""
        return cls(**data)

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """A run by hand belongs to its own moment."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next slot; of several that have passed the newest, since one training takes all data.

        Args:
            last_automated_data_interval: Of the last run that this timetable has started.
            restriction: Start, end and catchup of the DAG.
        """
        slots = []
        if self._cron is not None:
            slots.append(
                self._cron.next_dagrun_info(
                    last_automated_data_interval=last_automated_data_interval, restriction=restriction
                )
            )
        committed = untrained_since(Path(self.workspace), self.dataset, self.task)
        last = last_automated_data_interval
        if committed is not None and (last is None or committed > last.end):
            slots.append(DagRunInfo(run_after=committed + QUIET, data_interval=DataInterval.exact(committed)))
        known = sorted((slot for slot in slots if slot is not None), key=lambda slot: slot.run_after)
        passed = [slot for slot in known if slot.run_after <= now()]
        return passed[-1] if passed else next(iter(known), None)


def untrained_since(workspace: Path, dataset: str, task: str) -> DateTime | None:
    """When the latest data set was committed; None where there is none, or a run has looked at it since.

    Args:
        workspace: The workspace, a folder.
        dataset: Name of the data set.
        task: Its task.
    """
    pointer = workspace / "datasets" / dataset / task / "latest.json"
    latest = _read(pointer)
    digest = latest.get("content_digest")
    if not digest:
        return None
    committed = pointer.stat().st_mtime
    for changed, record in _newest(workspace / "runs" / dataset / task):
        if changed < committed:
            break
        if _read(record).get("content_digest") == digest:
            return None
    return DateTime.fromtimestamp(committed, tz=UTC)


def _newest(runs: Path) -> list[tuple[float, Path]]:
    """The last change and the run.json of each of the newest runs."""
    found = []
    try:
        names = os.listdir(runs)
    except OSError:
        return []
    for name in names:
        record = runs / name / "run.json"
        try:
            found.append((record.stat().st_mtime, record))
        except OSError:
            continue
    return heapq.nlargest(LOOK_AT, found)


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where it can't be read."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return {}
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
