"""What `histoline train` and `histoline step train` do on every machine of a cluster but the chief's: join in training.

The chief's run.json in the shared workspace says what to train and when, and how it ended. Nothing is written there,
and no lock is taken.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from components import errors
from components.datasets import manifest as manifests
from components.datasets.committed import stage
from components.errors import TemporaryError
from components.storage.base import Storage
from components.training import run_record
from components.training.cluster import Cluster, join_seconds
from components.training.recipe import TrainingConfig
from components.training.run_types import RunRecord, StageEntry
from components.training.training_process import train_apart

POLL_SECONDS = 2.0
Log = Callable[[str], None]


def join(storage: Storage, folder: str, cluster: Cluster, log: Log) -> RunRecord:
    """Trains as one of the workers, and ends as the chief's training does.

    Args:
        storage: The shared workspace.
        folder: Of the run, relative to it.
        cluster: TF_CONFIG.
        log: Told what happens, one line each.

    Returns:
        The run's record, training done.

    Raises:
        TemporaryError: The chief does not come, or is gone.
        HistolineError: As the chief's training failed.
    """
    log(f"{cluster.describe()}: waits until the chief trains {storage.uri(folder)}")
    record = _wait(storage, folder, lambda entry: entry is not None and entry.state != "failed")
    begun = record.stages["train"]
    if begun.state == "done":
        log("train: nothing to do, the chief has trained already")
        return record
    data = stage(storage, record.dataset_dir, manifests.load(storage, record.dataset_dir))

    def going() -> bool:
        now = _entry(storage, folder)
        return now is None or now.state == "running"

    try:
        with tempfile.TemporaryDirectory(prefix="histoline-worker-") as scratch:
            config = TrainingConfig.from_json(json.dumps(record.config))
            train_apart(config, data, Path(scratch), cluster, log=log, wanted=going)
    except errors.HistolineError:
        # The chief may know better why; it writes it down within moments, or is gone itself.
        time.sleep(POLL_SECONDS)
        if going():
            raise
    log("train: this worker's part is done; waits for the chief to export the model")
    record = _wait(storage, folder, lambda entry: entry is not None and entry.state != "running")
    failed = record.error
    if record.stages["train"].state == "failed" and failed is not None:
        kinds = {kind.exit_code: kind for kind in (errors.UsageError, errors.DataError, errors.TemporaryError)}
        raise kinds.get(failed.exit_code, errors.HistolineError)(f"The chief's training failed: {failed.message}")
    log("train: done")
    return record


def _wait(storage: Storage, folder: str, over: Callable[[StageEntry | None], bool]) -> RunRecord:
    deadline = time.monotonic() + join_seconds()
    while not over(_entry(storage, folder)):
        if time.monotonic() > deadline:
            raise TemporaryError(
                f"The chief did not get so far with {storage.uri(folder)} within {join_seconds():g} s.",
                "Start `histoline train` with the same --run-id and --workspace on the chief too, then run again.",
            )
        time.sleep(POLL_SECONDS)
    return run_record.read(storage, folder)


def _entry(storage: Storage, folder: str) -> StageEntry | None:
    if not run_record.exists(storage, folder):
        return None
    return run_record.read(storage, folder).stages.get("train")
