"""Gives every patch its split, by a ledger that goes on from the one before; computes, and touches no file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core import arrow_arrays
from components.ingest.config import IngestConfig
from components.ingest.ledger_choice import Previous
from components.ingest.raw_patches import RawPatches
from components.splits.folds import plan_folds
from components.splits.ledger import DEFAULT_RATIOS, Ledger
from components.splits.planner import SplitPlan, plan_splits
from components.splits.published import published_ledger
from schemas.tables import SPLITS


@dataclasses.dataclass(frozen=True)
class SplitAssignment:
    """Who goes where.

    Attributes:
        split_of_row: int8 [patches], index into `SPLITS`; -1 for patches of a dropped class.
        plan: The ledger, and what to tell people about it.
        folds: All ledgers of a cross-validation, in order; empty without one.
    """

    split_of_row: npt.NDArray[np.int8]
    plan: SplitPlan
    folds: tuple[Ledger, ...] = ()


def assign_splits(config: IngestConfig, raw: RawPatches, previous: Previous, key_fingerprint: str) -> SplitAssignment:
    """Gives every patch its split.

    Args:
        config: The ingest's configuration.
        raw: What was found.
        previous: Ledgers to go on from.
        key_fingerprint: Of the pseudonymisation key.

    Raises:
        UsageError, DataError: The ledger before is of other groups, or a class can't be in every split.
    """
    classes = config.adapter.classes(config.task)
    patches, found = raw.found.patches, raw.found
    labels = arrow_arrays.values(patches.column("label"))
    if config.split_by == "image":
        unit, column = "image", "patch_id"
        counts: Mapping[str, Sequence[int]] = _one_hot(patches, labels, len(classes))
    else:
        unit, column, counts = found.group_unit, "group_id", found.group_counts
    ledger = previous.ledger
    if ledger is not None:
        ledger.require(unit, key_fingerprint, previous.where)
    options: dict[str, Any] = {
        "group_unit": unit,
        "ratios": config.ratios,
        "seed": None if ledger else config.seed,
        "train_only": found.unmapped_groups,
        "exclude": raw.tombstones,
        "on_infeasible": config.on_infeasible,
        "key_fingerprint": key_fingerprint,
    }
    folds: tuple[Ledger, ...] = ()
    if config.fold or config.folds:
        plans = plan_folds(
            counts, classes, config.folds or len(previous.folds), previous=previous.folds, **options
        )  # fmt: skip
        folds = tuple(plan.ledger for plan in plans)
        plan = plans[max(config.fold, 1) - 1]
    else:
        if raw.published is not None:
            ledger = published_ledger(
                raw.published,
                counts,
                classes,
                group_unit=unit,
                ratios=config.ratios or DEFAULT_RATIOS,
                previous=ledger,
                key_fingerprint=key_fingerprint,
            )
        plan = plan_splits(counts, classes, previous=ledger, **options)
    dropped = [classes.index(name) for name in plan.dropped_classes]
    return SplitAssignment(_split_of_row(patches.column(column), labels, plan.ledger, dropped), plan, folds)


def _split_of_row(
    groups: pa.ChunkedArray, labels: npt.NDArray[np.int32], ledger: Ledger, dropped: Sequence[int]
) -> npt.NDArray[np.int8]:
    coded = pc.dictionary_encode(groups.combine_chunks())
    place = {group: SPLITS.index(split) for group, split in ledger.splits.items()}
    of_group = np.array([place.get(group, -1) for group in coded.dictionary.to_pylist()], np.int8)
    split_of_row: npt.NDArray[np.int8] = of_group[arrow_arrays.values(coded.indices)]
    split_of_row[np.isin(labels, dropped)] = -1
    return split_of_row


def _one_hot(patches: pa.Table, labels: npt.NDArray[np.int32], n: int) -> dict[str, list[int]]:
    rows = np.eye(n, dtype=int).tolist()
    return {patch: rows[label] for patch, label in zip(patches.column("patch_id").to_pylist(), labels.tolist())}


def expected_classes(
    plan: SplitPlan, group_counts: Mapping[str, Sequence[int]], classes: Sequence[str]
) -> dict[str, list[str]]:
    """Classes that must have patches in each split once all rejects are known.

    Args:
        plan: The plan.
        group_counts: Group -> patches of each class.
        classes: Class names in label order.
    """
    total = np.array(list(group_counts.values()) or [[0] * len(classes)]).sum(0)
    here = [name for name, n in zip(classes, total) if n and name not in plan.dropped_classes]
    everywhere = [name for name in here if name not in plan.train_only_classes]
    return {"train": here, "eval": everywhere, "test": everywhere}
