"""When training runs by itself: by cron, and where data stand untrained that came while it was paused."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction
from pendulum import DateTime

from histoline_dags.timetable import QUIET, CronOrUntrained, untrained_since

SUNDAYS = "0 3 * * 0"
NOW = pendulum.datetime(2026, 11, 25, 12)  # a Wednesday
SUNDAY = pendulum.datetime(2026, 11, 22, 3)
NO_LIMIT = TimeRestriction(earliest=None, latest=None, catchup=False)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.timetables import trigger

    monkeypatch.setattr(trigger, "utcnow", lambda: NOW)
    monkeypatch.setattr("histoline_dags.timetable.now", lambda: NOW)


def commit(workspace: Path, digest: str, at: datetime, task: str = "binary") -> None:
    file = workspace / "datasets" / "idc" / task / "latest.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"content_digest": digest}))
    os.utime(file, (at.timestamp(), at.timestamp()))


def train(workspace: Path, name: str, digest: str, at: datetime) -> None:
    file = workspace / "runs" / "idc" / "binary" / name / "run.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"content_digest": digest, "state": "done"}))
    os.utime(file, (at.timestamp(), at.timestamp()))


def following(workspace: Path, cron: str = SUNDAYS, last: DateTime | None = None) -> Any:
    made = CronOrUntrained(cron, str(workspace), "idc", "binary")
    interval = None if last is None else DataInterval.exact(last)
    info = made.next_dagrun_info(last_automated_data_interval=interval, restriction=NO_LIMIT)
    return None if info is None else info.run_after


def test_data_that_no_run_has_looked_at_are_untrained(tmp_path: Path) -> None:
    assert untrained_since(tmp_path, "idc", "binary") is None
    commit(tmp_path, "d2", NOW)
    train(tmp_path, "before", "d1", NOW - timedelta(days=1))
    assert untrained_since(tmp_path, "idc", "binary") == NOW
    train(tmp_path, "other", "d1", NOW + timedelta(hours=1))
    assert untrained_since(tmp_path, "idc", "binary") == NOW, "a run of other data says nothing of these"
    train(tmp_path, "since", "d2", NOW + timedelta(minutes=1))
    assert untrained_since(tmp_path, "idc", "binary") is None


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"content_digest": ""}', "[" * 100_000])
def test_what_can_not_be_read_starts_nothing(tmp_path: Path, damage: str) -> None:
    commit(tmp_path, "d1", NOW)
    (tmp_path / "datasets" / "idc" / "binary" / "latest.json").write_text(damage)
    assert untrained_since(tmp_path, "idc", "binary") is None
    assert following(tmp_path) == SUNDAY.add(weeks=1)


def test_untrained_data_wait_until_the_announcement_has_had_its_turn(tmp_path: Path) -> None:
    assert following(tmp_path) == SUNDAY.add(weeks=1)
    assert following(tmp_path, cron="") is None
    commit(tmp_path, "d1", NOW)
    assert following(tmp_path) == following(tmp_path, cron="") == NOW + QUIET
    assert following(tmp_path, last=SUNDAY) == NOW + QUIET


def test_each_commit_is_taken_once(tmp_path: Path) -> None:
    commit(tmp_path, "d1", NOW - timedelta(days=1))
    assert following(tmp_path, last=SUNDAY) == NOW - timedelta(days=1) + QUIET
    # Its run failed before it had a run.json, say.
    assert following(tmp_path, last=NOW - timedelta(days=1)) == SUNDAY.add(weeks=1)
    commit(tmp_path, "d2", NOW)
    assert following(tmp_path, last=NOW - timedelta(days=1)) == NOW + QUIET


def test_of_slots_that_have_passed_the_newest_stands_for_all(tmp_path: Path) -> None:
    """Paused for weeks: one run, whether the data came before the last Sunday or after."""
    commit(tmp_path, "d1", SUNDAY - timedelta(days=2))
    assert following(tmp_path, last=SUNDAY.subtract(weeks=3)) == SUNDAY
    assert following(tmp_path, last=SUNDAY) == SUNDAY.add(weeks=1)
    commit(tmp_path, "d1", SUNDAY + timedelta(days=1))
    assert following(tmp_path, last=SUNDAY.subtract(weeks=3)) == SUNDAY + timedelta(days=1) + QUIET


def test_the_scheduler_reads_it_back(tmp_path: Path) -> None:
    from airflow.sdk import Asset, AssetOrTimeSchedule
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    made = CronOrUntrained(SUNDAYS, str(tmp_path), "idc", "binary")
    both = AssetOrTimeSchedule(timetable=made, assets=[Asset("a")])
    read = decode_timetable(json.loads(json.dumps(encode_timetable(both))))
    assert read.timetable.serialize() == made.serialize()
    assert read.summary == f"Asset or {SUNDAYS}"
    assert read.description == (
        "Triggered by assets or 03:00, only on Sunday (UTC), or where data stand untrained for 10 minutes"
    )
    assert not read.periodic
