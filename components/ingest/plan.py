"""From a raw folder to shard plans: discovery, pseudonyms, ledger, PLAN_ID, order of the records.

Runs in a helper process, so that the tables of a large data set are gone when Beam starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from components.adapters.base import Discovery
from components.adapters.raw_files import open_source
from components.adapters.registry import discover
from components.core import arrow_arrays
from components.core.json_documents import canonical
from components.core.machine import give_memory_back
from components.core.rejects import REJECT_KINDS, REJECT_SCHEMA
from components.datasets import manifest as manifests
from components.datasets.layout import ShardSpec
from components.datasets.sidecars import META_KEY
from components.errors import DataError
from components.ingest import ledger_choice
from components.ingest.config import IngestConfig
from components.ingest.pseudonyms import Pseudonymiser, withholding, write_path_map
from components.ingest.shard_jobs import WriteConfig
from components.splits.ledger import Ledger
from components.splits.published import read_published_splits
from components.storage.atomic_files import TMP
from components.storage.base import Storage
from components.storage.open import open_storage
from components.version import INGEST_VERSION
from schemas.tables import SPLITS

EXAMPLE_OVERHEAD = 620
"""Bytes of an Example beside its pixels, about; decides only where shards are cut."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """What is known before the first image is decoded; small, since it travels between processes.

    Attributes:
        plan_id: 16 hex digits.
        write: What every shard's job needs.
        specs: The shards.
        patches: Number of patches to write, per shard.
        found: Number of images found.
        rejects_path: Parquet file with what discovery rejected, relative to the workspace.
        ledger: Text of splits.json.
        group_unit: `patient`, `slide` or `image`.
        identity: Configuration as in PLAN_ID.
        flags: Why nothing made from this may be promoted.
        warnings: Sentences for the summary.
        expected: Split -> classes that must have patches in it at the commit.
        split_table: Patches and groups by class and split, as plain text.
        ids_without_file: Count and first examples of ids in a label CSV without a file.
        ignored: Number of files that are no images.
        committed: True where this very data set stands already; nothing was written then.
        seconds: Time that planning took, in its own process.
        fingerprint: Of the raw folder, see `components.adapters.listing`.
    """

    plan_id: str
    write: WriteConfig
    specs: list[ShardSpec]
    patches: list[int]
    found: int
    rejects_path: str
    ledger: str
    group_unit: str
    identity: dict[str, Any]
    flags: list[str]
    warnings: list[str]
    expected: dict[str, list[str]]
    split_table: str
    ids_without_file: dict[str, Any]
    ignored: int
    committed: bool
    seconds: float
    fingerprint: str


def plan_ingest(config: IngestConfig, attempt: str) -> Planned:
    """Plans an ingest and writes the shard plans, unless the data set is committed already.

    Args:
        config: What the user asked for.
        attempt: Unique name of this try.

    Raises:
        UsageError, DataError: The input, the ledger or the options can't be used.
    """
    started = time.monotonic()
    planned = _plan(config, attempt)
    give_memory_back()  # the tables of all images are gone, and this process goes on to write shards
    return dataclasses.replace(planned, seconds=time.monotonic() - started)


def _plan(config: IngestConfig, attempt: str) -> Planned:
    storage = open_storage(config.workspace)
    pseudonymiser = config.pseudonymiser()
    fingerprint = pseudonymiser.fingerprint if pseudonymiser else ""
    previous = ledger_choice.previous(storage, config)
    excluded = config.excluded()
    tokens = frozenset(pseudonymiser.token("group_id", group) for group in excluded) if pseudonymiser else excluded
    tombstones = tokens | ledger_choice.withdrawn(storage, config, previous, fingerprint)
    published: Mapping[str, str] | None = None
    with withholding(pseudonymiser is not None):
        found = discover(
            config.adapter, config.input_root, config.discover_options(excluded if pseudonymiser else tombstones)
        )
        told = list(found.warnings)
        if config.splits_csv:
            known = [g for g in found.group_counts if g not in (excluded if pseudonymiser else tombstones)]
            said = read_published_splits(config.splits_csv, known, found.group_unit)
            published, told = said.splits, [*told, *said.warnings]
        index = found.patches
        if config.rehash:
            index = _rehash(config.input_root, index)
    if pseudonymiser:
        index, found = _pseudonymised(config, index, found, pseudonymiser)
        index, found = _bury(index, found, tombstones)
        published = published and {pseudonymiser.token("group_id", g): s for g, s in published.items()}
        told = [f"{len(told)} warnings of discovery quote ids and are not shown"] if told else []
    if not len(index):
        raise ledger_choice.nothing_to_write(config, found)

    split_of_row, plan = ledger_choice.plan(storage, config, index, found, previous, tombstones, fingerprint, published)
    keep = split_of_row >= 0
    rejects = found.rejects
    if not keep.all():
        gone = pc.filter(index, arrow_arrays.numbers(~keep)).column("path").to_pylist()
        rows = [(path, "infeasible_class", "too few groups of its class for three splits") for path in gone]
        rejects = pa.concat_tables([rejects, reject_table(rows)])
        index, split_of_row = pc.filter(index, arrow_arrays.numbers(keep)), split_of_row[keep]

    flags = [
        *(["leaky"] if config.split_by == "image" else []),
        *(["not_provably_patient_disjoint"] if found.unmapped_groups else []),
        *(["not_patient_clustered"] if found.group_unit == "image" else []),
    ]
    identity = config.identity(fingerprint)
    plan_id = _plan_id(identity, plan.ledger, index, split_of_row if config.split_by == "image" else None, rejects)
    dataset_dir = f"{config.home}/{plan_id}"
    order, specs, cuts = _cut(config, index, split_of_row)
    tmp = f"{dataset_dir}/{TMP}/{attempt}"
    write = WriteConfig(
        input_root=config.input_root,
        workspace=config.workspace,
        dataset_dir=dataset_dir,
        plan_path=f"{tmp}/plan.arrow",
        classes=config.adapter.classes(config.task),
        source_size=config.adapter.source_size,
        stored_size=config.stored_size,
        image_format=config.image_format,
    )
    planned = Planned(
        plan_id=plan_id,
        write=write,
        specs=specs,
        patches=[int(b - a) for a, b in zip(cuts, cuts[1:])],
        found=found.found,
        rejects_path=f"{tmp}/rejects.parquet",
        ledger=plan.ledger.to_json(),
        group_unit=found.group_unit,
        identity=identity,
        flags=flags,
        warnings=[*told, *plan.warnings],
        expected=ledger_choice.expected_classes(plan, found.group_counts, config.adapter.classes(config.task)),
        split_table=plan.table,
        ids_without_file={"count": len(found.ids_without_file), "examples": found.ids_without_file[:20]},
        ignored=found.ignored,
        committed=_stands(storage, dataset_dir),
        seconds=0.0,
        fingerprint=found.fingerprint,
    )
    if not planned.committed and not config.plans_folds_only:
        _write_plan(storage, planned, pc.take(index, arrow_arrays.numbers(order)), cuts, rejects)
    return planned


def _stands(storage: Storage, dataset_dir: str) -> bool:
    """True where this data set is committed and whole by names and sizes; a damaged one is no longer committed.

    Raises:
        UsageError: A newer histoline wrote it.
    """
    path = f"{dataset_dir}/{manifests.NAME}"
    if not storage.exists(path):
        return False
    try:
        manifest = manifests.load(storage, dataset_dir)
        if not manifests.missing_or_resized(storage, dataset_dir, manifest):
            return True
    except DataError:
        pass
    storage.delete(path)
    return False


def reject_table(rows: list[tuple[str, str, str]]) -> pa.Table:
    """(path, code, detail) rows as a table of `REJECT_SCHEMA`; the kind follows from the code."""
    paths, codes, details = zip(*rows) if rows else ((), (), ())
    columns = {"path": paths, "code": codes, "kind": [REJECT_KINDS[c] for c in codes], "detail": details}
    return arrow_arrays.table(columns, REJECT_SCHEMA)


def _pseudonymised(
    config: IngestConfig, index: pa.Table, found: Discovery, key: Pseudonymiser
) -> tuple[pa.Table, Discovery]:
    """Replaces ids and paths by tokens; the real path stays in column `source` for the shard writer alone."""
    source = index.column("path")
    for name in ("patch_id", "group_id", "slide_id", "path"):
        index = index.set_column(index.schema.get_field_index(name), name, key.column(name, index.column(name)))
    index = index.append_column("source", source)
    rejected = found.rejects.column("path")
    hidden = key.column("path", rejected)
    assert config.pseudonymise is not None
    path_map = config.path_map or config.pseudonymise.with_suffix(".paths.csv")
    write_path_map(
        path_map,
        pa.concat_arrays([_flat(index.column("path")), hidden]),
        pa.concat_arrays([_flat(source), _flat(rejected)]),
    )
    rejects = found.rejects.set_column(0, REJECT_SCHEMA.field("path"), hidden)
    # A detail may quote a name; only the code is safe to tell.
    rejects = rejects.set_column(3, REJECT_SCHEMA.field("detail"), arrow_arrays.strings([""] * len(rejects)))
    return index, dataclasses.replace(
        found,
        rejects=rejects,
        group_counts={key.token("group_id", g): c for g, c in found.group_counts.items()},
        unmapped_groups=frozenset(key.token("group_id", g) for g in found.unmapped_groups),
        ids_without_file=[key.token("patch_id", i) for i in found.ids_without_file],
    )


def text_bytes(values: pa.Array) -> bytes | memoryview:
    """All strings of a column, one after the other, without a copy where that can be had."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return b""
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _bury(index: pa.Table, found: Discovery, tombstones: frozenset[str]) -> tuple[pa.Table, Discovery]:
    """Takes out groups that an earlier ledger holds as withdrawn under their token."""
    dead = pc.is_in(index.column("group_id"), arrow_arrays.strings(sorted(tombstones)))
    if not pc.any(dead).as_py():
        return index, found
    paths = index.filter(dead).column("path").to_pylist()
    rejects = pa.concat_tables([found.rejects, reject_table([(p, "excluded_group", "") for p in paths])])
    index = index.filter(pc.invert(dead))
    return index, dataclasses.replace(found, patches=index, rejects=rejects)


def _rehash(root: str, index: pa.Table) -> pa.Table:
    """Content hashes in place of modification times."""
    source = open_source(root)
    paths, sizes = index.column("path").to_pylist(), index.column("size").to_pylist()

    def hashes(part: slice) -> list[int]:
        read = source.read_many(paths[part], sizes[part])
        return [xxhash.xxh3_64_intdigest(d) >> 1 if isinstance(d, bytes) else 0 for d in read]

    parts = [slice(i, i + 512) for i in range(0, len(paths), 512)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        values = [h for part in pool.map(hashes, parts) for h in part]
    column = arrow_arrays.numbers(values, pa.int64())
    return index.set_column(index.schema.get_field_index("version"), "version", column)


def _plan_id(
    identity: dict[str, Any],
    ledger: Ledger,
    index: pa.Table,
    split_of_row: npt.NDArray[np.int8] | None,
    rejects: pa.Table,
) -> str:
    """Hash of configuration, version, group-to-split map and files; of nothing that depends on where it ran."""
    digest = hashlib.sha256(canonical({"config": identity, "version": INGEST_VERSION}))
    digest.update(canonical(dict(ledger.splits)) if split_of_row is None else split_of_row.tobytes())
    files = index.select(["source" if "source" in index.schema.names else "path", "size", "version"])
    files = pc.take(files, pc.sort_indices(files.column(0)))
    for column in (
        *files.columns,
        *pc.take(rejects, pc.sort_indices(rejects.column("path"))).select(["path", "code"]).columns,
    ):
        values = _flat(column)
        if values.type == pa.string():
            digest.update(arrow_arrays.values(pc.binary_length(values)).astype("<i4").tobytes())
            digest.update(text_bytes(values))
        else:
            digest.update(arrow_arrays.values(values).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _cut(
    config: IngestConfig, index: pa.Table, split_of_row: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.intp], list[ShardSpec], list[int]]:
    """Orders all rows by split and by hash(seed, patch_id), and cuts each split at a byte size.

    Returns:
        Order of rows; the shards; row positions (in that order) between shards.
    """
    ids = arrow_arrays.python(_flat(index.column("patch_id")))
    keys = np.fromiter((xxhash.xxh3_64_intdigest(i.encode(), config.seed) for i in ids), np.uint64, len(ids))
    order = np.lexsort((keys, split_of_row))
    width, height = config.stored_size
    if config.image_format == "raw":
        sizes = np.full(len(ids), width * height * 3 + EXAMPLE_OVERHEAD)
    else:
        sizes = arrow_arrays.values(index.column("size"))[order] + EXAMPLE_OVERHEAD
    target = config.shard_mb << 20
    specs: list[ShardSpec] = []
    cuts = [0]
    for number, split in enumerate(SPLITS):
        first = cuts[-1]
        count = int((split_of_row == number).sum())
        ends = np.cumsum(sizes[first : first + count])
        shards = max(1, -(-int(ends[-1] if count else 0) // target))
        inner = [first + int(np.searchsorted(ends, ends[-1] * k / shards)) for k in range(1, shards)]
        cuts += [*inner, first + count]
        specs += [ShardSpec(split, k, shards) for k in range(shards)]
    return order, specs, cuts


def _write_plan(storage: Storage, planned: Planned, rows: pa.Table, cuts: list[int], rejects: pa.Table) -> None:
    specs = [dataclasses.astuple(spec) for spec in planned.specs]
    names = [f.name for f in rows.schema if f.name != "version"]
    rows = rows.select(names).combine_chunks()
    schema = rows.schema.with_metadata({META_KEY: json.dumps({"shards": specs}).encode()})
    scratch = storage.scratch(planned.write.dataset_dir)
    plan, refused = scratch / "plan", scratch / "rejects"
    # The plan of a pseudonymised ingest holds real paths until the commit sweeps it.
    with open(os.open(plan, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for start, end in zip(cuts, cuts[1:]):
            part = rows.slice(start, end - start).combine_chunks().to_batches()
            batch = (
                part[0]
                if part
                else pa.RecordBatch.from_arrays(
                    [c.combine_chunks() if c.num_chunks else pa.nulls(0, c.type) for c in rows.slice(0, 0).columns],
                    schema=rows.schema,
                )
            )
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    pq.write_table(rejects, refused)
    storage.commit_file(plan, planned.write.plan_path)
    storage.commit_file(refused, planned.rejects_path)
