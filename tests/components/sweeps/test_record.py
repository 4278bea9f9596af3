"""sweep.json and trial.json: their schemas, what a repeated sweep may change, names that are taken."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from components.errors import DataError, UsageError
from components.storage.base import Storage
from components.storage.open import open_storage
from components.sweeps import record
from components.sweeps.sweep_types import Choice, Search, SweepRecord, Trial, TrialFailure, TrialRecord
from tests.support import manifests, schemas

FOLDER = "sweeps/idc/binary/one"
SEARCH = Search("list", ("idc_cnn_105k",), minutes=1.0)
TRIALS = (Trial(0, "idc_cnn_105k", {"seed": "1"}, {"model": "cnn_105k"}, "a" * 64),)


def begin(storage: Storage, folder: str = FOLDER, search: Search = SEARCH, plan_id: str = "x") -> SweepRecord:
    manifest = manifests.manifest(plan_id=plan_id, manifest_digest=plan_id)
    return record.begin(storage, folder, f"datasets/idc/binary/{plan_id}", manifest, search, None, {}, TRIALS)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


def test_types_and_schemas_say_the_same() -> None:
    seal = ["document.document_digest is in one of the two only"]
    assert schemas.differences(SweepRecord, record.SCHEMA) == seal
    assert schemas.differences(TrialRecord, record.TRIAL_SCHEMA) == seal


def test_what_is_written_is_read_back(storage: Storage) -> None:
    made = begin(storage)
    assert record.read(storage, FOLDER) == made
    assert (made.metric, made.run_id, made.trials) == ("auc", "one-winner", TRIALS)
    trial = TrialRecord(
        record.FORMAT, 0, "failed", made.created, "", curve=(0.5, 0.75), figures={"auc": {"estimate": 0.75}},
        error=TrialFailure(65, "no"),
    )  # fmt: skip
    written = record.write_trial(storage, FOLDER, trial)
    assert record.read_trials(storage, FOLDER, made) == {0: written}
    assert dataclasses.replace(written, updated="") == trial


def test_a_repeated_sweep_keeps_its_trials_and_may_get_more_time_but_nothing_else(storage: Storage) -> None:
    made = begin(storage)
    more = begin(storage, search=dataclasses.replace(SEARCH, minutes=9.0))
    assert more.search.minutes == 9 and (more.created, more.trials) == (made.created, TRIALS)
    with pytest.raises(UsageError, match="begun with other options"):
        begin(storage, search=dataclasses.replace(SEARCH, seed=1))
    with pytest.raises(UsageError, match="begun with other data"):
        begin(storage, plan_id="y")


def test_more_time_after_the_choice_is_refused_and_a_repeated_sweep_is_not(storage: Storage) -> None:
    begin(storage)
    record.update(storage, FOLDER, state="done", choice=Choice(0, 0, "the only one", (0,), {}))
    with pytest.raises(UsageError, match="has chosen trial 0, and --minutes 9 would change nothing"):
        begin(storage, search=dataclasses.replace(SEARCH, minutes=9.0))
    assert begin(storage).search == begin(storage, search=dataclasses.replace(SEARCH, minutes=None)).search == SEARCH


def test_a_name_is_given_once_in_a_workspace(storage: Storage) -> None:
    begin(storage)
    with pytest.raises(UsageError, match="has the name 'one' already"):
        begin(storage, "sweeps/breakhis/binary/one")
    assert record.find_sweep(storage, "one") == FOLDER and record.find_sweep(storage, "two") is None
    assert len({record.new_sweep_id() for _ in range(20)}) > 15
    with pytest.raises(UsageError, match="not a run id"):
        record.sweep_dir("idc", "binary", "../one")


def test_an_edited_file_is_noticed(storage: Storage, tmp_path: Path) -> None:
    begin(storage)
    file = tmp_path / FOLDER / record.NAME
    file.write_text(file.read_text().replace('"list"', '"grid"'))
    with pytest.raises(DataError, match="edited"):
        record.read(storage, FOLDER)
