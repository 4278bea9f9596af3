"""One fold of a run, trained alone: what `histoline step train --fold N` does, side by side with the other folds."""

from __future__ import annotations

from collections.abc import Callable

from components.errors import UsageError
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import RunRecord


def train_one(storage: Storage, folder: str, fold: int, log: Callable[[str], None]) -> None:
    """Trains a fold under a lock of its own; does nothing where it is trained.

    run.json is left alone, since other folds may be under way: `step train` without a fold puts all of them together.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
        fold: Number of the fold, from 1.
        log: Takes progress, a line at a time.

    Raises:
        UsageError: The run does not decide by folds, has no such fold, or was not validated.
        TemporaryError: Another process trains this fold.
        HistolineError: See `components.training.trainer.train`.
    """
    record = run_record.read(storage, folder)
    _check(record)
    if record.decision is not None:
        log(f"fold {fold}: nothing to do, the run is decided ({record.decision})")
        return
    from components.datasets import committed
    from components.datasets import manifest as manifests
    from components.training.fold_plan import read_folds
    from components.training.fold_training import FOLDS, fold_lock, train_fold
    from components.training.recipe import TrainingConfig
    from pipelines import remote_run
    from pipelines.tfx import nodes

    nodes.silence()
    folds = read_folds(storage, folder)
    manifest = manifests.load(storage, record.dataset_dir)
    with fold_lock(storage, folder)(fold):
        remote_run.bring_folds(storage, folder)
        data = committed.open_dataset(committed.stage(storage, record.dataset_dir, manifest))
        config = TrainingConfig.from_dict(record.config)
        train_fold(config, data, folds, fold, storage.work_folder() / folder, log=log)
        remote_run.hand_over_fold(storage, f"{folder}/{FOLDS}/{fold}")


def _check(record: RunRecord) -> None:
    if record.decision_by != "folds":
        raise UsageError(
            f"Run {record.run_id!r} decides by its test split: there are no folds to train.",
            "Give --folds K to validate, under a new --run-id.",
        )
    validated = record.stages.get("validate")
    if validated is None or validated.state != "done":
        raise UsageError(
            f"No fold of run {record.run_id!r} can be trained: validate has not ended well.",
            f"Run: histoline step validate {record.dataset} --task {record.task} --run-id {record.run_id}.",
        )
