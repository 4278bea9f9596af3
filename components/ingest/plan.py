"""From a raw folder to shard plans: what there is and what was given is read first, the rest computes.

Runs in a helper process, so that the tables of a large data set are gone when Beam starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from components.adapters.base import Discovery
from components.core import arrow_arrays
from components.core.json_documents import canonical
from components.core.machine import give_memory_back
from components.core.rejects import reject_table
from components.datasets import manifest as manifests
from components.datasets.fold_ledgers import fold_path
from components.datasets.layout import ShardSpec
from components.errors import DataError
from components.ingest.config import IngestConfig
from components.ingest.given import Given, read_given
from components.ingest.latest_before import check_drawn, shares_nobody
from components.ingest.ledger_choice import Previous, read_previous
from components.ingest.plan_files import PlanTables, write_plan
from components.ingest.raw_patches import RawPatches, find_patches
from components.ingest.shard_jobs import IngestPlan, WriteConfig
from components.ingest.split_assignment import SplitAssignment, assign_splits, expected_classes
from components.splits.ledger import Ledger
from components.storage.atomic_files import TMP
from components.storage.base import Storage
from components.storage.open import open_storage
from components.version import INGEST_VERSION
from schemas.tables import SPLITS

HASHED_AT_ONCE = 1 << 18
"""Ids that are Python strings at one time."""

EXAMPLE_OVERHEAD = 620
"""Bytes of an Example beside its pixels, about; decides only where shards are cut."""


def plan_ingest(config: IngestConfig, attempt: str) -> IngestPlan:
    """Plans an ingest and writes the shard plans, unless the data set is committed already.

    Args:
        config: What the user asked for.
        attempt: Unique name of this try.

    Raises:
        UsageError, DataError: The input, the ledger or the options can't be used.
    """
    started = time.monotonic()
    plan = _plan(config, attempt)
    give_memory_back()  # the tables of all images are gone, and this process goes on to write shards
    return dataclasses.replace(plan, seconds=time.monotonic() - started)


def _plan(config: IngestConfig, attempt: str) -> IngestPlan:
    storage = open_storage(config.workspace)
    given = read_given(config)
    previous = read_previous(storage, config)
    raw = find_patches(config, given, previous)
    if raw.found.drawn:
        check_drawn(storage, config)
    plan, tables = make_plan(config, given, previous, raw, attempt)
    plan = dataclasses.replace(plan, committed=is_committed(storage, plan.write.dataset_dir))
    write_plan(storage, plan, tables, shards=not plan.committed and not config.plans_folds_only)
    return plan


def make_plan(
    config: IngestConfig, given: Given, previous: Previous, raw: RawPatches, attempt: str
) -> tuple[IngestPlan, PlanTables]:
    """Computes the plan; touches no file.

    Args:
        config: What the user asked for.
        given: Content of the files that the options name.
        previous: Ledgers to go on from.
        raw: What discovery found.
        attempt: Unique name of this try.

    Returns:
        The plan, not yet known to be committed, and the tables that it leaves on disk.

    Raises:
        UsageError, DataError: The ledger or the options can't be used.
    """
    found = raw.found
    splits = assign_splits(config, raw, previous, given.key_fingerprint)
    patches, split_of_row, rejects = _without_dropped_classes(raw, splits)
    identity = config.identity(given.groups.digest if given.groups else "", given.key_fingerprint)
    leaky = config.split_by == "image"
    plan_id = make_plan_id(identity, splits.plan.ledger, patches, split_of_row if leaky else None, rejects)
    dataset_dir = f"{config.home}/{plan_id}"
    tmp = f"{dataset_dir}/{TMP}/{attempt}"
    order, specs, cuts = cut_shards(patches, split_of_row, _record_sizes(config, patches), config)
    classes = config.adapter.classes(config.task)
    write = WriteConfig(
        input_root=config.input_root,
        workspace=config.workspace,
        dataset_dir=dataset_dir,
        plan_path=f"{tmp}/plan.arrow",
        classes=classes,
        source_size=config.adapter.source_size,
        stored_size=config.stored_size,
        image_format=config.image_format,
    )
    plan = IngestPlan(
        plan_id=plan_id,
        write=write,
        specs=specs,
        patches=[int(end - start) for start, end in zip(cuts, cuts[1:])],
        found=found.found,
        rejects_path=f"{tmp}/rejects.parquet",
        ledger=splits.plan.ledger.to_json(),
        group_unit=found.group_unit,
        identity=identity,
        flags=[
            *(["leaky"] if leaky else []),
            *(["not_provably_patient_disjoint"] if found.unmapped_groups else []),
            *(["not_patient_clustered"] if found.group_unit == "image" else []),
        ],
        warnings=[*raw.warnings, *splits.plan.warnings, *_of_before(previous, splits.plan.ledger, found)],
        expected=expected_classes(splits.plan, found.group_counts, classes),
        split_table=splits.plan.table,
        ids_without_file={"count": len(found.ids_without_file), "examples": found.ids_without_file[:20]},
        ignored=found.ignored,
        committed=False,
        seconds=0.0,
        fingerprint=found.fingerprint,
        drawn=found.drawn,
    )
    tables = PlanTables(
        patches=patches,
        order=order,
        cuts=cuts,
        rejects=rejects,
        fold_ledgers={fold_path(config.home, ledger.fold): ledger.to_json() for ledger in reversed(splits.folds)},
        path_map=raw.path_map,
        path_map_file=config.path_map_file,
    )
    return plan, tables


def _of_before(previous: Previous, ledger: Ledger, found: Discovery) -> list[str]:
    """What has to be said of the new data set beside the latest one."""
    if previous.latest is None:
        return []
    said = shares_nobody(previous.latest, previous.latest_id, ledger, set(found.group_counts))
    return [said] if said else []


def is_committed(storage: Storage, dataset_dir: str) -> bool:
    """True where this data set is committed, and whole by names and sizes.

    Raises:
        UsageError: A newer histoline wrote it.
    """
    if not storage.exists(f"{dataset_dir}/{manifests.NAME}"):
        return False
    try:
        manifest = manifests.load(storage, dataset_dir)
        return not manifests.missing_or_resized(storage, dataset_dir, manifest)
    except DataError:
        return False


def _without_dropped_classes(
    raw: RawPatches, splits: SplitAssignment
) -> tuple[pa.Table, npt.NDArray[np.int8], pa.Table]:
    """Patches that have a split, their splits, and the rejects with those that have none."""
    patches, rejects, split_of_row = raw.found.patches, raw.found.rejects, splits.split_of_row
    keep = split_of_row >= 0
    if keep.all():
        return patches, split_of_row, rejects
    gone = pc.filter(patches, arrow_arrays.numbers(~keep)).column("path").to_pylist()
    rows = [(path, "infeasible_class", "too few groups of its class for three splits") for path in gone]
    rejects = pa.concat_tables([rejects, reject_table(rows)])
    return pc.filter(patches, arrow_arrays.numbers(keep)), split_of_row[keep], rejects


def make_plan_id(
    identity: dict[str, Any],
    ledger: Ledger,
    patches: pa.Table,
    split_of_row: npt.NDArray[np.int8] | None,
    rejects: pa.Table,
) -> str:
    """Hash of configuration, version, group-to-split map and files; of nothing that depends on where it ran.

    Args:
        identity: Of the configuration.
        ledger: The group-to-split map.
        patches: What is to be written.
        split_of_row: int8 [patches], in place of the map for a leaky split.
        rejects: Rows of `REJECT_SCHEMA`.

    Returns:
        16 hex digits.
    """
    digest = hashlib.sha256(canonical({"config": identity, "version": INGEST_VERSION}))
    digest.update(canonical(dict(ledger.splits)) if split_of_row is None else split_of_row.tobytes())
    files = patches.select(["source" if "source" in patches.schema.names else "path", "size", "version"])
    if not _is_sorted(files.column(0)):
        files = pc.take(files, pc.sort_indices(files.column(0)))
    rejected = pc.take(rejects, pc.sort_indices(rejects.column("path"))).select(["path", "code"])
    for column in (*files.columns, *rejected.columns):
        values = arrow_arrays.flat(column)
        if values.type == pa.string():
            digest.update(arrow_arrays.values(pc.binary_length(values)).astype("<i4").tobytes())
            digest.update(text_bytes(values))
        else:
            digest.update(arrow_arrays.values(values).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _is_sorted(values: pa.ChunkedArray) -> bool:
    """Whether strings rise; discovery sorts by path, and to sort millions again takes longer than all else."""
    whole = arrow_arrays.flat(values)
    return bool(pc.all(pc.less_equal(whole.slice(0, max(len(whole) - 1, 0)), whole.slice(1))).as_py() is not False)


def text_bytes(values: pa.Array) -> bytes | memoryview:
    """All strings of a column, one after the other, without a copy where that can be had."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return b""
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]


def _record_sizes(config: IngestConfig, patches: pa.Table) -> npt.NDArray[np.int64]:
    """Bytes of each patch's record, about: int64 [patches]."""
    if config.image_format == "raw":
        width, height = config.stored_size
        return np.full(len(patches), width * height * 3 + EXAMPLE_OVERHEAD)
    return arrow_arrays.values(patches.column("size")) + EXAMPLE_OVERHEAD


def cut_shards(
    patches: pa.Table, split_of_row: npt.NDArray[np.int8], sizes: npt.NDArray[np.int64], config: IngestConfig
) -> tuple[npt.NDArray[np.intp], list[ShardSpec], list[int]]:
    """Orders all rows by split and by hash(seed, patch_id), and cuts each split at a byte size.

    Args:
        patches: What is to be written.
        split_of_row: int8 [patches], index into `SPLITS`.
        sizes: int64 [patches], bytes of each record.
        config: The ingest's seed and shard size.

    Returns:
        Order of rows, intp [patches]; the shards; row positions (in that order) between shards.
    """
    keys = _hashes(patches.column("patch_id"), config.seed)
    order = np.lexsort((keys, split_of_row))
    sizes = sizes[order]
    target = config.shard_mb << 20
    specs: list[ShardSpec] = []
    cuts = [0]
    for number, split in enumerate(SPLITS):
        first = cuts[-1]
        count = int((split_of_row == number).sum())
        ends = np.cumsum(sizes[first : first + count])
        shards = max(1, -(-int(ends[-1] if count else 0) // target))
        # One call for all: each converts all of `ends`, which for thousands of shards is quadratic.
        inner = np.searchsorted(ends, ends[-1] * np.arange(1, shards) / shards) if count else np.empty(0, int)
        cuts += [*(first + inner).tolist(), first + count]
        specs += [ShardSpec(split, k, shards) for k in range(shards)]
    return order, specs, cuts


def _hashes(ids: pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """uint64 [ids]; a part at a time, as a million strings are a hundred megabytes."""
    hashes = np.empty(len(ids), np.uint64)
    for first in range(0, len(ids), HASHED_AT_ONCE):
        part = arrow_arrays.python(arrow_arrays.flat(ids.slice(first, HASHED_AT_ONCE)))
        digests = (xxhash.xxh3_64_intdigest(text.encode(), seed) for text in part)
        hashes[first : first + len(part)] = np.fromiter(digests, np.uint64, len(part))
    return hashes
