"""Which ledger an ingest goes on from, and what it makes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.base import Discovery
from components.core import arrow_arrays
from components.datasets.latest_pointer import read_latest
from components.errors import DataError, HistolineError, UsageError
from components.ingest.config import IngestConfig
from components.splits.folds import plan_folds
from components.splits.ledger import DEFAULT_RATIOS, Ledger
from components.splits.planner import Plan, plan_splits
from components.splits.published import published_ledger
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage
from schemas.tables import SPLITS


@dataclasses.dataclass(frozen=True)
class Previous:
    """The ledger to go on from.

    Attributes:
        ledger: It.
        where: Its file, for messages.
        folds: All ledgers of the cross-validation that it belongs to, in order.
    """

    ledger: Ledger
    where: str
    folds: tuple[Ledger, ...] = ()


def previous(storage: Storage, config: IngestConfig) -> Previous | None:
    """Finds the ledger: --ledger, the fold's, else that of the data set that latest.json names.

    Raises:
        UsageError: A named ledger is missing or broken.
    """
    if config.split_by == "image":
        return None  # made to measure leakage: has no past and no future
    if config.ledger:
        try:
            text = config.ledger.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--ledger {config.ledger} can't be read: {error}.", "Name a splits.json.") from None
        return Previous(Ledger.from_json(text, str(config.ledger)), str(config.ledger))
    if config.fold or config.folds:
        return _previous_folds(storage, config)
    latest = read_latest(storage, config.home)
    if latest is None:
        return None
    path = f"{latest['dataset_dir']}/splits.json"
    try:
        text = storage.read_bytes(path).decode()
    except StorageMissing:
        raise DataError(
            f"{storage.uri(config.home)}/latest.json names a data set without {path}.",
            "Without its ledger patients could change sides. Restore it, or name a copy with --ledger.",
        ) from None
    _check_untouched(storage, latest["dataset_dir"], text, storage.uri(path))
    return Previous(Ledger.from_json(text, storage.uri(path)), storage.uri(path))


def _check_untouched(storage: Storage, dataset_dir: str, text: str, where: str) -> None:
    """Refuses a ledger that is not the one of the commit; without a manifest (a repair under way) nothing is known."""
    try:
        manifest = json.loads(storage.read_bytes(f"{dataset_dir}/manifest.json"))
        said = manifest["ledger"]["sha256"]
    except (StorageMissing, ValueError, KeyError, TypeError):
        return
    if said != hashlib.sha256(text.encode()).hexdigest():
        raise DataError(
            f"{where} was changed after the commit: patients could have changed sides.",
            "Restore it. A split of your own comes in with --splits-csv, or with --ledger COPY.",
        )


def withdrawn(storage: Storage, config: IngestConfig, previous: Previous | None, fingerprint: str) -> frozenset[str]:
    """Groups whose consent was withdrawn, by the ledger to go on from and by the latest data set's.

    The latest one counts even for folds, a named ledger or a leaky split: whoever wrote those may not have known.
    """
    known = previous.ledger.tombstones if previous else frozenset()
    latest = read_latest(storage, config.home)
    if latest is None:
        return known
    path = f"{latest['dataset_dir']}/splits.json"
    if not storage.exists(path):
        return known
    ledger = Ledger.from_json(storage.read_bytes(path).decode(), storage.uri(path))
    return known | (ledger.tombstones if ledger.key_fingerprint == fingerprint else frozenset())


def fold_path(config: IngestConfig, fold: int) -> str:
    """File of a fold's ledger, relative to the workspace."""
    return f"{config.home}/folds/{fold}.json"


def _previous_folds(storage: Storage, config: IngestConfig) -> Previous | None:
    first = fold_path(config, 1)
    if not storage.exists(first):
        if config.folds:
            return None
        raise UsageError(
            f"There are no folds in {storage.uri(config.home)}/folds.",
            "Plan them first: histoline ingest ... --folds 5.",
        )
    count = Ledger.from_json(storage.read_bytes(first).decode(), storage.uri(first)).folds
    if config.folds and config.folds != count:
        raise UsageError(
            f"{storage.uri(config.home)}/folds holds {count} folds, --folds says {config.folds}.",
            "Keep the number, or delete that folder to start anew.",
        )
    paths = [fold_path(config, i + 1) for i in range(count)]
    ledgers = tuple(Ledger.from_json(storage.read_bytes(p).decode(), storage.uri(p)) for p in paths)
    if config.fold > count:
        raise UsageError(f"--fold {config.fold}: there are {count} folds.", f"Choose 1 to {count}.")
    chosen = max(config.fold, 1)
    return Previous(ledgers[chosen - 1], storage.uri(paths[chosen - 1]), ledgers)


def plan(
    storage: Storage,
    config: IngestConfig,
    index: pa.Table,
    found: Discovery,
    before: Previous | None,
    tombstones: frozenset[str],
    fingerprint: str,
    published: Mapping[str, str] | None,
) -> tuple[npt.NDArray[np.int8], Plan]:
    """Gives every row of the index its split.

    Args:
        storage: The workspace; fold ledgers are written to it.
        config: The ingest's configuration.
        index: Rows of `INDEX_SCHEMA`.
        found: What discovery found, under the ids that the outputs show.
        before: Ledger to go on from.
        tombstones: Groups that must not be written.
        fingerprint: Of the pseudonymisation key.
        published: Group -> split of --splits-csv, None without.

    Returns:
        int8[N], index into `SPLITS`, -1 for patches of a dropped class; and the plan.
    """
    classes = config.adapter.classes(config.task)
    labels = arrow_arrays.values(index.column("label"))
    if config.split_by == "image":
        unit, column = "image", "patch_id"
        counts: Mapping[str, Sequence[int]] = _one_hot(index, labels, len(classes))
    else:
        unit, column, counts = found.group_unit, "group_id", found.group_counts
    if before is not None:
        before.ledger.require(unit, fingerprint, before.where)
    options: dict[str, Any] = {
        "group_unit": unit,
        "ratios": config.ratios,
        "seed": None if before else config.seed,
        "train_only": found.unmapped_groups,
        "exclude": tombstones,
        "on_infeasible": config.on_infeasible,
        "key_fingerprint": fingerprint,
    }
    if config.fold or config.folds:
        folds = config.folds or len(before.folds if before else ())
        plans = plan_folds(counts, classes, folds, previous=before.folds if before else (), **options)
        for number, each in enumerate(plans, 1):
            storage.write_atomic(fold_path(config, number), each.ledger.to_json().encode())
        chosen = plans[max(config.fold, 1) - 1]
    else:
        ledger = before.ledger if before else None
        if published is not None:
            ledger = published_ledger(
                published,
                counts,
                classes,
                group_unit=unit,
                ratios=config.ratios or DEFAULT_RATIOS,
                previous=ledger,
                key_fingerprint=fingerprint,
            )
        chosen = plan_splits(counts, classes, previous=ledger, **options)
    coded = pc.dictionary_encode(index.column(column).combine_chunks())
    place = {group: SPLITS.index(split) for group, split in chosen.ledger.splits.items()}
    of_group = np.array([place.get(group, -1) for group in coded.dictionary.to_pylist()], np.int8)
    split_of_row = of_group[arrow_arrays.values(coded.indices)]
    dropped = [classes.index(name) for name in chosen.dropped_classes]
    split_of_row[np.isin(labels, dropped)] = -1
    return split_of_row, chosen


def _one_hot(index: pa.Table, labels: npt.NDArray[np.int32], n: int) -> dict[str, list[int]]:
    rows = np.eye(n, dtype=int).tolist()
    return {patch: rows[label] for patch, label in zip(index.column("patch_id").to_pylist(), labels.tolist())}


def expected_classes(plan: Plan, counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> dict[str, list[str]]:
    """Classes that must have patches in each split once all rejects are known."""
    total = np.array(list(counts.values()) or [[0] * len(classes)]).sum(0)
    here = [name for name, n in zip(classes, total) if n and name not in plan.dropped_classes]
    everywhere = [name for name in here if name not in plan.train_only_classes]
    return {"train": here, "eval": everywhere, "test": everywhere}


def nothing_to_write(config: IngestConfig, found: Discovery) -> HistolineError:
    """The error where every image found was rejected before decoding."""
    codes = found.rejects.column("code").value_counts().to_pylist()
    told = ", ".join(f"{c['values']} {c['counts']}" for c in codes)
    example = found.rejects.slice(0, 1).to_pylist()
    first = f" For example {example[0]['path']!r}: {example[0]['detail'] or example[0]['code']}." if example else ""
    return DataError(
        f"None of the {found.found} images in {config.input_root} can be written: {told}.{first}",
        "Check the folder, the data set's name and the filters.",
    )
