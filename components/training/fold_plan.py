"""The folds that a run decides by: planned over the groups of its data set, on the ledgers that ingest uses too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.adapters.finish import UNMAPPED_PREFIX
from components.datasets.fold_ledgers import EVERYONE, HELD_OUT, fold_path, read_fold_ledgers
from components.datasets.layout import lock_path
from components.datasets.manifest import Manifest
from components.errors import DataError, UsageError
from components.splits.fold_assignment import NAME, FoldAssignment
from components.splits.folds import plan_folds
from components.splits.ledger import Ledger
from components.splits.tables import InfeasibleError
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training.recipe import TrainingConfig
from components.training.run_types import FoldsRecord

ON_INFEASIBLE = ("fail", "train-only")
"""What is done about a class of too few groups for so many folds."""

_WAYS_OUT = (
    "Ask for fewer --folds, train with --on-infeasible train-only (these classes are learnt but not measured), or "
    "leave them out at ingest."
)


def settle_folds(
    storage: Storage, dataset_dir: str, manifest: Manifest, config: TrainingConfig, on_infeasible: str = "fail"
) -> FoldAssignment:
    """Plans the folds of a recipe over a data set, and keeps them in the workspace for whoever comes next.

    Groups that have a place keep it; new ones are placed. `histoline ingest --fold` reads the same ledgers.

    Args:
        storage: The workspace.
        dataset_dir: Folder of the data set, relative to it.
        manifest: Of the data set.
        config: The recipe, with `decision: folds`.
        on_infeasible: One of `ON_INFEASIBLE`.

    Raises:
        UsageError: The data set is leaky; the ledgers are of another number of folds, another unit or key.
        DataError: Too few groups of a class, with the feasibility table; a ledger is damaged.
    """
    if "leaky" in manifest.flags:
        raise UsageError(
            f"{storage.uri(dataset_dir)} is leaky ({'; '.join(manifest.flag_reasons)}): folds can't make it good.",
            "Ingest without --split-by image, or train without --folds.",
        )
    home = dataset_dir.rpartition("/")[0]
    own = _own_ledger(storage, dataset_dir)
    counts = _group_counts(storage, dataset_dir, len(manifest.classes))
    held_out = {group for group in counts if own.splits.get(group) == "test"} if config.holdout == "test" else set()
    plan = HELD_OUT if config.holdout == "test" else EVERYONE
    with storage.lock(lock_path(home), owner="a plan of folds"):
        previous = read_fold_ledgers(storage, home, config.folds, plan)
        for ledger in previous:
            ledger.require(own.group_unit, own.key_fingerprint, storage.uri(fold_path(home, ledger.fold, plan)))
        try:
            plans = plan_folds(
                {group: row for group, row in counts.items() if group not in held_out},
                manifest.classes,
                config.folds,
                group_unit=own.group_unit,
                ratios=None if previous else own.ratios,
                seed=None if previous else own.seed,
                previous=previous,
                train_only=[group for group in counts if group.startswith(UNMAPPED_PREFIX)],
                exclude=own.tombstones,
                on_infeasible=on_infeasible,
                key_fingerprint=own.key_fingerprint,
            )
        except InfeasibleError as error:
            raise InfeasibleError(error.what, _WAYS_OUT) from None
        ledgers = [each.ledger for each in plans]
        if tuple(ledgers) != previous:
            for ledger in reversed(ledgers):  # the first fold last: without it there are no folds
                storage.write_atomic(fold_path(home, ledger.fold, plan), ledger.to_json().encode())
    return FoldAssignment.of(
        ledgers, counts, plan=f"{home}/{plan}", held_out=held_out, train_only_classes=plans[0].train_only_classes
    )


def freeze_folds(storage: Storage, run_dir: str, folds: FoldAssignment) -> None:
    """Writes folds.json of a run, whose lock the caller holds."""
    storage.write_atomic(f"{run_dir}/{NAME}", folds.to_bytes(), tmp_dir=f"{run_dir}/.tmp")


def frozen(folds: FoldAssignment, serve: str) -> FoldsRecord:
    """What run.json says of the folds before they are trained."""
    tested = len(folds.fold_of())
    return FoldsRecord(
        folds=folds.folds,
        holdout=folds.holdout,  # type: ignore[arg-type]  # both by the recipe
        serve=serve,  # type: ignore[arg-type]
        plan=folds.plan,
        groups=tested,
        train_only=len(folds.groups) - tested,
        train_only_classes=folds.train_only_classes,
        held_out=len(folds.held_out),
    )


def read_folds(storage: Storage, run_dir: str) -> FoldAssignment:
    """The folds that a run froze.

    Raises:
        DataError: folds.json is gone, damaged, or was edited.
    """
    path = f"{run_dir}/{NAME}"
    try:
        data = storage.read_bytes(path)
    except StorageMissing:
        raise DataError(
            f"{storage.uri(path)} is gone, so nobody knows who is in which fold.", "Start a new run."
        ) from None
    return FoldAssignment.from_bytes(data, storage.uri(path))


def local_folds(run_dir: Path) -> FoldAssignment:
    """The same, from a run's folder on this machine."""
    return read_folds(open_storage(run_dir.parent), run_dir.name)


def _own_ledger(storage: Storage, dataset_dir: str) -> Ledger:
    path = f"{dataset_dir}/splits.json"
    try:
        return Ledger.from_json(storage.read_bytes(path).decode(), storage.uri(path))
    except StorageMissing:
        raise DataError(
            f"{storage.uri(path)} is gone: without its ledger patients could change sides.",
            "Restore it, or ingest again.",
        ) from None


def _group_counts(storage: Storage, dataset_dir: str, n_classes: int) -> dict[str, Sequence[int]]:
    """Group to its patches of each class, all splits together."""
    import pyarrow.parquet as pq

    table = pq.read_table(storage.local_copy(f"{dataset_dir}/patches.parquet"), columns=["group_id", "label"])
    coded = table["group_id"].combine_chunks().dictionary_encode()
    names = coded.dictionary.to_pylist()
    cells = coded.indices.to_numpy().astype(np.int64) * n_classes + table["label"].to_numpy()
    counts = np.bincount(cells, minlength=len(names) * n_classes).reshape(len(names), n_classes)
    return dict(zip(names, counts.tolist(), strict=True))
