"""sweep.json and the trial.json of each trial: read and written, each under a lock of its own.

`sweeps/DATASET/TASK/SWEEP_ID/` holds sweep.json, index.html, winner.yaml and `trials/N/`. sweep.json is changed under
the sweep's lock, which is held for moments; a trial's folder belongs to whoever holds the trial's lock, for as long as
it trains. So several processes may work on the trials of one sweep.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from components.core import json_documents
from components.datasets.manifest import Manifest
from components.errors import UsageError
from components.storage.atomic_files import StorageMissing
from components.storage.base import HeldLock, Storage
from components.sweeps.sweep_types import Search, SweepRecord, Trial, TrialRecord
from components.training.run_record import check_run_id, find_named, find_run
from components.version import __version__

FORMAT = 1
NAME, TRIAL = "sweep.json", "trial.json"
SCHEMA, TRIAL_SCHEMA = "sweep.schema.json", "trial.schema.json"
PAGE, WINNER, PREDICTIONS = "index.html", "winner.yaml", "predictions.parquet"

_DAMAGED = "Start a new sweep with another --sweep-id."


def new_sweep_id() -> str:
    """A SWEEP_ID that sorts by time; no two are the same."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"sweep-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def sweep_dir(dataset: str, task: str, sweep_id: str) -> str:
    """Folder of a sweep, relative to the workspace.

    Raises:
        UsageError: The id is none.
    """
    return f"sweeps/{dataset}/{task}/{check_run_id(sweep_id)}"


def trial_dir(folder: str, number: int) -> str:
    """Folder of a trial, relative to the workspace.

    Args:
        folder: Of the sweep.
        number: Of the trial.
    """
    return f"{folder}/trials/{number}"


def find_sweep(storage: Storage, sweep_id: str) -> str | None:
    """Folder of the sweep of this name under any data set and task; None where there is none."""
    return find_named(storage, "sweeps", sweep_id, NAME)


def begin(
    storage: Storage, folder: str, dataset_dir: str, manifest: Manifest, search: Search, folds: int | None,
    options: Mapping[str, Any], trials: tuple[Trial, ...] = (),
) -> SweepRecord:  # fmt: skip
    """Writes sweep.json of a new sweep, or gives that of the same sweep back; the caller holds the sweep's lock.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        dataset_dir: Folder of the data set, relative to the workspace.
        manifest: Its manifest.
        search: What is looked through.
        folds: Folds that a trial is scored on; None for the eval split.
        options: What is no part of the search.
        trials: That are known by now; a sweep that was begun keeps its own.

    Raises:
        UsageError: A sweep of this name was begun with other data or options, or a run has its name.
    """
    sweep_id = folder.rsplit("/", 1)[1]
    if storage.exists(f"{folder}/{NAME}"):
        record = read(storage, folder)
        # A budget may grow: an interrupted sweep goes on with more time than it was given first.
        given = dataclasses.replace(search, minutes=None)
        same_search = dataclasses.replace(record.search, minutes=None) == given and record.folds == folds
        same_data = record.manifest_digest == manifest.manifest_digest
        if not (same_search and same_data and record.options == options):
            raise UsageError(
                f"Sweep {sweep_id!r} was begun with other {'options' if same_data else 'data'}.",
                "Choose another --sweep-id, or none.",
            )
        if record.choice is not None:
            if search.minutes not in (None, record.search.minutes):
                raise UsageError(
                    f"Sweep {sweep_id!r} has chosen trial {record.choice.winner}, and --minutes {search.minutes:g}"
                    " would change nothing: no trial of it runs any more.",
                    "Start a new sweep with another --sweep-id, or repeat this one without --minutes.",
                )
            return record
        return record if record.search == search else update(storage, folder, search=search)
    for other in (find_run(storage, sweep_id), find_sweep(storage, sweep_id)):
        if other is not None:
            raise UsageError(f"{storage.uri(other)} has the name {sweep_id!r} already.", "Choose another --sweep-id.")
    moment = json_documents.now()
    record = SweepRecord(
        format=FORMAT, histoline_version=__version__, sweep_id=sweep_id, dataset=manifest.dataset, task=manifest.task,
        created=moment, updated=moment, state="running", dataset_dir=dataset_dir, plan_id=manifest.plan_id,
        content_digest=manifest.content_digest, manifest_digest=manifest.manifest_digest,
        group_unit=manifest.group_unit,  # type: ignore[arg-type]  # one of the three, by the manifest's schema
        classes=manifest.classes, metric="macro_f1" if len(manifest.classes) > 2 else "auc", folds=folds,
        options=dict(options), search=search, trials=trials, run_id=check_run_id(f"{sweep_id[:93]}-winner"),
    )  # fmt: skip
    return _write(storage, folder, record)


def read(storage: Storage, folder: str) -> SweepRecord:
    """Reads sweep.json.

    Raises:
        UsageError: There is no such sweep, or the file is of a newer format.
        DataError: The file is damaged.
    """
    try:
        data = storage.read_bytes(f"{folder}/{NAME}")
    except StorageMissing:
        raise UsageError(f"There is no sweep in {storage.uri(folder)}.", "Run `histoline sweep` first.") from None
    return SweepRecord.from_document(json_documents.parse(data, SCHEMA, storage.uri(f"{folder}/{NAME}"), _DAMAGED))


def update(storage: Storage, folder: str, **changes: Any) -> SweepRecord:
    """Changes fields of sweep.json; the caller holds the sweep's lock."""
    record = dataclasses.replace(read(storage, folder), **changes, updated=json_documents.now())
    return _write(storage, folder, record)


def _write(storage: Storage, folder: str, record: SweepRecord) -> SweepRecord:
    data = json_documents.dump(dataclasses.asdict(record), SCHEMA)
    storage.write_atomic(f"{folder}/{NAME}", data, tmp_dir=f"{folder}/.tmp")
    return SweepRecord.from_document(json.loads(data))


def lock(storage: Storage, folder: str, owner: str) -> AbstractContextManager[HeldLock]:
    """The lock of sweep.json."""
    return storage.lock(f"{folder}/.lock", owner=owner)


def trial_lock(
    storage: Storage, folder: str, number: int, owner: str, wait_seconds: float = 60
) -> AbstractContextManager[HeldLock]:
    """The lock of a trial, held while it trains."""
    return storage.lock(f"{trial_dir(folder, number)}/.lock", owner=owner, wait_seconds=wait_seconds)


def read_trial(storage: Storage, folder: str, number: int) -> TrialRecord | None:
    """trial.json of a trial; None before it has begun.

    Raises:
        DataError: The file is damaged.
    """
    path = f"{trial_dir(folder, number)}/{TRIAL}"
    try:
        data = storage.read_bytes(path)
    except StorageMissing:
        return None
    fix = "Delete the trial's folder: it is trained anew."
    return TrialRecord.from_document(json_documents.parse(data, TRIAL_SCHEMA, storage.uri(path), fix))


def read_trials(storage: Storage, folder: str, record: SweepRecord) -> dict[int, TrialRecord]:
    """trial.json of all trials that have begun, by number."""
    found = ((trial.number, read_trial(storage, folder, trial.number)) for trial in record.trials)
    return {number: trial for number, trial in found if trial is not None}


def write_trial(storage: Storage, folder: str, record: TrialRecord) -> TrialRecord:
    """Writes trial.json; the caller holds the trial's lock."""
    record = dataclasses.replace(record, updated=json_documents.now())
    home = trial_dir(folder, record.number)
    data = json_documents.dump(dataclasses.asdict(record), TRIAL_SCHEMA)
    storage.write_atomic(f"{home}/{TRIAL}", data, tmp_dir=f"{home}/.tmp")
    return record
