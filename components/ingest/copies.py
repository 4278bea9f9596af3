"""Identical and nearly identical images of all shards: what the policies take out, and what is only told."""

from __future__ import annotations

import collections
import dataclasses
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.datasets.content_digest import hash_pairs
from components.datasets.duplicates import Resolution, Rows, near_duplicates, resolve
from components.datasets.layout import ShardSpec, sha256_file
from components.datasets.manifest import NearDuplicates
from components.datasets.sidecars import sidecar_meta
from components.errors import DataError
from components.ingest.config import IngestConfig
from components.ingest.rewrite import drop_records
from components.ingest.shard_jobs import IngestPlan
from components.storage.base import Storage
from schemas.tables import PATCHES, SPLITS

MAX_EXAMPLES = 20
_MEASURES = [
    *("pixel_hash", "perceptual_hash", "constant"),
    *("color/red_mean", "color/green_mean", "color/blue_mean", "color/tissue_fraction"),
]
"""What policies and audit need of a sidecar beside the columns of patches.parquet."""


@dataclasses.dataclass
class Written:
    """One shard as its sidecar tells of it.

    Attributes:
        spec: The shard.
        meta: count, bytes, sha256, rejects, dropped.
        table: The sidecar's rows.
        sidecar_sha256: Of the sidecar's file.
    """

    spec: ShardSpec
    meta: dict[str, Any]
    table: pa.Table
    sidecar_sha256: str


def read_sidecar(storage: Storage, home: str, spec: ShardSpec) -> Written:
    """What a shard's sidecar says; the shard itself is not opened."""
    local = storage.local_copy(f"{home}/{spec.sidecar}")
    table = pq.ParquetFile(local).read([*PATCHES.names, *_MEASURES], use_threads=False)
    return Written(spec, sidecar_meta(table.schema), table.replace_schema_metadata(None), sha256_file(local))


def resolve_copies(
    config: IngestConfig, plan: IngestPlan, storage: Storage, shards: list[Written], threads: Executor
) -> tuple[Resolution, Future[NearDuplicates]]:
    """Applies the policies; shards that lose records are rewritten and read again in place.

    Returns:
        What was resolved, and the near-duplicates that a thread is looking for.
    """
    dropped = [d for shard in shards for d in shard.meta["dropped"]]
    shard_of_row = np.concatenate(
        [np.full(len(s.table), i) for i, s in enumerate(shards)]
        + [np.full(len(s.meta["dropped"]), i) for i, s in enumerate(shards)]
    ).astype(np.int64)
    split_of_shard = np.array([SPLITS.index(s.spec.split) for s in shards], np.int8)
    gone = np.frombuffer(bytes.fromhex("".join(d["pixel_hash"] for d in dropped)), np.uint64).reshape(-1, 2)

    def texts(name: str) -> pa.ChunkedArray:
        chunks = [chunk for s in shards for chunk in s.table.column(name).chunks]
        return pa.chunked_array([*chunks, arrow_arrays.strings([d[name] for d in dropped])])

    def numbers(name: str, extra: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([*(arrow_arrays.values(s.table.column(name)) for s in shards), extra])

    rows = Rows(
        patch_id=texts("patch_id"),
        path=texts("path"),
        split=split_of_shard[shard_of_row],
        label=numbers("label", np.array([d["label"] for d in dropped], np.int32)),
        pixel_hash=np.concatenate([*(hash_pairs(s.table.column("pixel_hash")) for s in shards), gone]),
        constant=numbers("constant", np.zeros(len(dropped), bool)),
    )
    resolution = resolve(rows, config.on_duplicate, config.on_conflict)
    if resolution.violations:
        raise DataError(
            f"{len(resolution.violations)} sets of identical images break a rule: "
            f"{'; '.join(resolution.violations[:3])}.",
            "--on-duplicate keep-train and --on-conflict reject-all, the defaults, resolve and list them.",
        )
    near = threads.submit(_near, list(shards), rows, resolution)
    by_shard: dict[int, dict[str, tuple[str, str]]] = collections.defaultdict(dict)
    for drop in resolution.drops:
        by_shard[int(shard_of_row[drop.row])][rows.id(drop.row)] = (drop.code, drop.detail)
    for number, drops in sorted(by_shard.items()):
        drop_records(plan.write, shards[number].spec, drops)
        shards[number] = read_sidecar(storage, plan.write.dataset_dir, shards[number].spec)
    return resolution, near


def _near(shards: list[Written], rows: Rows, resolution: Resolution) -> NearDuplicates:
    def numbers(name: str) -> npt.NDArray[Any]:
        return np.concatenate([arrow_arrays.values(s.table.column(name)) for s in shards])

    kept = np.ones(sum(len(s.table) for s in shards), bool)
    kept[[d.row for d in resolution.drops if d.row < len(kept)]] = False
    at = np.flatnonzero(kept)
    pairs, crowded = near_duplicates(
        numbers("perceptual_hash")[at],
        rows.split[at],
        np.stack([numbers(f"color/{c}_mean")[at] for c in ("red", "green", "blue")], 1),
        numbers("color/tissue_fraction")[at],
    )
    examples = [
        tuple(f"{rows.name(at[i])} ({SPLITS[rows.split[at[i]]]})" for i in pair) for pair in pairs[:MAX_EXAMPLES]
    ]
    return NearDuplicates(len(pairs), tuple(examples), crowded)
