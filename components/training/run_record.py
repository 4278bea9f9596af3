"""run.json: what a training run was asked for, how far it came, and what was decided.

`validate` creates it and freezes configuration and data set; the later steps read only that and add what they found.
Every change happens under the lock of the run folder, which a step holds for its whole life.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from components.core import json_documents
from components.datasets.manifest import Manifest
from components.errors import EXIT_BUG, HistolineError, UsageError
from components.storage.atomic_files import StorageMissing
from components.storage.base import HeldLock, Storage
from components.training.run_types import STAGES, Failure, RunRecord, StageEntry
from components.version import __version__

FORMAT = 1
NAME = "run.json"
SCHEMA = "run.schema.json"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DAMAGED = "Start a new run with another --run-id."
_MERGED = ("digests", "paths", "timings", "versions", "stages")


def check_run_id(run_id: str) -> str:
    """Gives a RUN_ID back.

    Raises:
        UsageError: It does not match `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"{run_id!r} is not a run id.",
            "Use up to 100 letters, digits, dots, hyphens and underscores, beginning with a letter or digit.",
        )
    return run_id


def run_dir(dataset: str, task: str, run_id: str) -> str:
    """Folder of a run, relative to the workspace."""
    return f"runs/{dataset}/{task}/{check_run_id(run_id)}"


def find_run(storage: Storage, run_id: str) -> str | None:
    """Folder of the run of this name under any data set and task; None where there is none.

    Args:
        storage: The workspace.
        run_id: RUN_ID, unique in a workspace.
    """
    return find_named(storage, "runs", run_id, NAME)


def find_named(storage: Storage, home: str, name: str, document: str) -> str | None:
    """Folder HOME/DATASET/TASK/NAME that holds a document, under any data set and task; None where there is none.

    Args:
        storage: The workspace.
        home: Such as `runs`.
        name: RUN_ID, or what follows the same rules.
        document: File that makes the folder one.

    Raises:
        UsageError: It can't be a name.
    """
    check_run_id(name)
    for dataset in storage.list_dirs(home):
        for task in storage.list_dirs(f"{home}/{dataset}"):
            folder = f"{home}/{dataset}/{task}/{name}"
            if storage.exists(f"{folder}/{document}"):
                return folder
    return None


def create(
    storage: Storage,
    folder: str,
    *,
    config: Mapping[str, Any],
    dataset_dir: str,
    manifest: Manifest,
    options: Mapping[str, Any] | None = None,
    digests: Mapping[str, str] | None = None,
) -> RunRecord:
    """Writes the first run.json: configuration and data set, frozen.

    Args:
        storage: The workspace.
        folder: As `run_dir` gives it.
        config: The TrainingConfig as a JSON object.
        dataset_dir: Folder of the data set, relative to the workspace.
        manifest: Its manifest.
        options: What was asked for beside the recipe, such as `{"accept_drift": "new scanner"}`.
        digests: More digests to keep, such as `{"source": ...}`.

    Raises:
        UsageError: A run of this name exists under another data set or task.
    """
    _, dataset, task, run_id = folder.split("/")
    other = find_run(storage, run_id)
    if other not in (None, folder):
        raise UsageError(
            f"A run {run_id!r} exists already: {storage.uri(str(other))}.", "Choose another --run-id."
        )
    moment = json_documents.now()
    record = RunRecord(
        format=FORMAT,
        histoline_version=__version__,
        run_id=run_id,
        dataset=dataset,
        task=task,
        created=moment,
        updated=moment,
        state="running",
        stage="validate",
        stages={},
        error=None,
        decision=None,
        code="",
        reason="",
        config=dict(config),
        options=dict(options or {}),
        dataset_dir=dataset_dir,
        plan_id=manifest.plan_id,
        content_digest=manifest.content_digest,
        manifest_digest=manifest.manifest_digest,
        group_unit=manifest.group_unit,  # type: ignore[arg-type]  # one of the three, by the manifest's schema
        classes=manifest.classes,
        flags=manifest.flags,
        drawn=manifest.drawn,
        digests=dict(digests or {}),
        versions={"histoline": __version__},
    )
    return _write(storage, folder, record.to_document())


def exists(storage: Storage, folder: str) -> bool:
    """Says whether the run has begun."""
    return storage.exists(f"{folder}/{NAME}")


def read(storage: Storage, folder: str) -> RunRecord:
    """Reads a run's record.

    Raises:
        UsageError: There is no such run, or the file is of a newer format.
        DataError: The file is damaged.
    """
    try:
        data = storage.read_bytes(f"{folder}/{NAME}")
    except StorageMissing:
        raise UsageError(
            f"There is no run in {storage.uri(folder)}.", "Run `histoline step validate` (or train) first."
        ) from None
    return RunRecord.from_document(json_documents.parse(data, SCHEMA, storage.uri(f"{folder}/{NAME}"), _DAMAGED))


def update(storage: Storage, folder: str, **changes: Any) -> RunRecord:
    """Changes fields of a run's record and gives it back.

    Mappings named `digests`, `paths`, `timings`, `versions` and `stages` are merged into what is there; `warnings` are
    added once each; every other field is replaced.

    Raises:
        ValueError: The record no longer follows its schema; nothing is written.
    """
    record = read(storage, folder)
    merged = {name: {**getattr(record, name), **value} for name, value in changes.items() if name in _MERGED}
    warnings = dict.fromkeys([*record.warnings, *changes.get("warnings", ())])
    moment = json_documents.now()
    return _write(
        storage, folder, {**record.to_document(), **changes, **merged, "warnings": list(warnings), "updated": moment}
    )


def _write(storage: Storage, folder: str, document: Mapping[str, Any]) -> RunRecord:
    """Writes a run's record, of which nobody ever reads a part, and gives back what was written."""
    data = json_documents.dump(document, SCHEMA)
    storage.write_atomic(f"{folder}/{NAME}", data, tmp_dir=f"{folder}/.tmp")
    return RunRecord.from_document(json.loads(data))


def lock(storage: Storage, folder: str, owner: str) -> AbstractContextManager[HeldLock]:
    """The lock that every step holds on its run folder; see `Storage.lock`."""
    return storage.lock(f"{folder}/.lock", owner=owner)


@contextlib.contextmanager
def stage(storage: Storage, folder: str, name: str, *, inputs: str = "") -> Iterator[None]:
    """Records that a stage runs, and how it ended; a failure is recorded and raised again.

    Args:
        storage: The workspace.
        folder: Of the run, locked by the caller.
        name: One of `STAGES`.
        inputs: Digest of what the stage reads, kept for `is_done`.
    """
    started, clock = json_documents.now(), time.monotonic()
    entry = StageEntry("running", started, inputs=inputs)
    update(storage, folder, state="running", stage=name, error=None, stages={name: entry})

    def ended(state: Literal["done", "failed"]) -> dict[str, StageEntry]:
        seconds = round(time.monotonic() - clock, 3)
        return {name: StageEntry(state, started, json_documents.now(), seconds, inputs)}

    try:
        yield
    except BaseException as error:
        code = error.exit_code if isinstance(error, HistolineError) else EXIT_BUG
        message = str(error) or type(error).__name__
        failure = Failure(name, code, message)
        # Where the disk or the lock is the trouble, its own message matters more than this record.
        with contextlib.suppress(Exception):
            update(storage, folder, state="failed", error=failure, stages=ended("failed"))
        raise
    state = "done" if name == STAGES[-1] else "running"
    update(storage, folder, state=state, stages=ended("done"))


def is_done(record: RunRecord, name: str, inputs: str) -> bool:
    """Says whether a stage ended well with exactly these inputs.

    Args:
        record: As `read` gives it.
        name: One of `STAGES`.
        inputs: Digest of what the stage would read now.
    """
    entry = record.stages.get(name)
    return entry is not None and entry.state == "done" and entry.inputs == inputs
