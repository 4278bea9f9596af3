"""The files of a plan: what planning leaves for the shard writers and the commit, and how they read it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.datasets import manifest as manifests
from components.datasets.layout import ShardSpec
from components.datasets.sidecars import META_KEY
from components.ingest.pseudonyms import PathMap, write_path_map
from components.ingest.shard_jobs import IngestPlan
from components.storage.base import Storage


@dataclasses.dataclass(frozen=True)
class PlanTables:
    """What a plan leaves on disk; large, so it stays in the process that planned.

    Attributes:
        patches: What is to be written, as discovery found it.
        order: intp [patches]: its rows in the order of the records.
        cuts: Positions in `order` between shards, [shards + 1].
        rejects: Rows of `REJECT_SCHEMA`: what discovery rejected.
        fold_ledgers: Path relative to the workspace -> text, of all ledgers of a cross-validation.
        path_map: Tokens and paths; None for plain ids.
        path_map_file: Where they go.
    """

    patches: pa.Table
    order: npt.NDArray[np.intp]
    cuts: list[int]
    rejects: pa.Table
    fold_ledgers: Mapping[str, str]
    path_map: PathMap | None = None
    path_map_file: Path | None = None


def write_plan(storage: Storage, plan: IngestPlan, tables: PlanTables, *, shards: bool) -> None:
    """Writes the ledgers of folds and the path map, then all that the shard writers need.

    Args:
        storage: The workspace.
        plan: The plan.
        tables: Its tables.
        shards: False where no shard is to be written: the data set is committed, or only folds were wanted.

    Raises:
        UsageError, TemporaryError: The workspace or the path map can't be written.
    """
    if tables.path_map is not None and tables.path_map_file is not None:
        write_path_map(tables.path_map_file, tables.path_map)
    for path, text in tables.fold_ledgers.items():  # the first fold last: without it there are no folds
        storage.write_atomic(path, text.encode())
    if not shards:
        return
    # What is damaged is no longer committed, from before its shards are written again.
    storage.delete(f"{plan.write.dataset_dir}/{manifests.NAME}")
    scratch = storage.scratch(plan.write.dataset_dir)
    rows, rejects = scratch / "plan", scratch / "rejects"
    _write_rows(rows, plan, tables)
    pq.write_table(tables.rejects, rejects)
    storage.commit_file(rows, plan.write.plan_path)
    storage.commit_file(rejects, plan.rejects_path)


def _write_rows(path: Path, plan: IngestPlan, tables: PlanTables) -> None:
    """One record batch per shard, taken one after the other: together they are as large as the index."""
    specs = [dataclasses.astuple(spec) for spec in plan.specs]
    rows = tables.patches.select([f.name for f in tables.patches.schema if f.name != "version"]).combine_chunks()
    schema = rows.schema.with_metadata({META_KEY: json.dumps({"shards": specs}).encode()})
    empty = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
    # The plan of a pseudonymised ingest holds real paths until the commit sweeps it.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for start, end in zip(tables.cuts, tables.cuts[1:]):
            batches = pc.take(rows, arrow_arrays.numbers(tables.order[start:end])).combine_chunks().to_batches()
            writer.write_batch(batches[0].replace_schema_metadata(schema.metadata) if batches else empty)


def read_plan(local_plan: str | Path, number: int) -> tuple[ShardSpec, pa.RecordBatch]:
    """Reads one shard's plan; the file is mapped, so only that part of it is touched."""
    with pa.memory_map(str(local_plan)) as source:
        reader = pa.ipc.open_file(source)
        specs = json.loads(reader.schema.metadata[META_KEY])["shards"]
        return ShardSpec(*specs[number]), reader.get_batch(number)
