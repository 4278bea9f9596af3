"""What is known of a data set's patches without reading a shard: the sidecars, split by split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.datasets.manifest import Manifest
from components.errors import DataError
from components.storage.base import Storage
from schemas.tables import REPETITIVE

META_KEY = b"histoline"
"""Under which our facts stand in the metadata of Parquet and Arrow files."""


def sidecar_meta(schema: pa.Schema) -> dict[str, Any]:
    """What a sidecar says of its shard: count, bytes, sha256, rejects, dropped."""
    meta: dict[str, Any] = json.loads((schema.metadata or {})[META_KEY])
    return meta


def write_sidecar(table: pa.Table, file: str | Path) -> None:
    """Writes a sidecar's table, whose metadata `sidecar_meta` reads."""
    pq.write_table(table, file, compression="zstd", write_statistics=False, use_dictionary=REPETITIVE)


def shard_files(manifest: Manifest, dataset_dir: str, split: str) -> list[tuple[str, str]]:
    """(shard, sidecar) of a split in the manifest's order, relative to the workspace."""
    return [
        (f"{dataset_dir}/{manifest.path(split, shard)}", f"{dataset_dir}/{manifest.sidecar(shard)}")
        for shard in manifest.shards(split)
    ]


def read_sidecars(files: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    """Columns of sidecars, one after the other, in the order of the records."""
    return pa.concat_tables([pq.read_table(file, columns=list(columns)) for file in files])


def read_split(
    storage: Storage, dataset_dir: str, manifest: Manifest, split: str, columns: Sequence[str]
) -> pa.Table:
    """Columns of a split, in the order of its records.

    Args:
        storage: The workspace.
        dataset_dir: Folder of the data set.
        manifest: Its manifest.
        split: `train`, `eval` or `test`.
        columns: Of `schemas.tables.sidecar`.

    Raises:
        DataError: The split is empty, or a sidecar does not fit the manifest.
    """
    files = shard_files(manifest, dataset_dir, split)
    table = read_sidecars(storage.local_copies([sidecar for _, sidecar in files]), columns) if files else None
    if table is None or not len(table):
        raise DataError(
            f"The {split} split of {storage.uri(dataset_dir)} is empty.",
            "Ingest more groups, or with other --ratios, so that every split holds some.",
        )
    if len(table) != manifest.splits[split].patches:
        raise DataError(
            f"The sidecars of the {split} split of {storage.uri(dataset_dir)} hold {len(table)} rows, but its manifest"
            f" says {manifest.splits[split].patches}.",
            "Run `histoline verify` on it; ingest again where it fails.",
        )
    return table


def digest_of_split(table: pa.Table) -> str:
    """What identifies a test split wherever it is stored: SHA-256 over patches, groups, labels and pixels.

    Args:
        table: Columns patch_id, group_id, label and pixel_hash.
    """
    columns = (table.column(name).to_pylist() for name in ("patch_id", "group_id", "label", "pixel_hash"))
    rows = sorted(f"{p}\t{g}\t{y}\t{h.hex()}" for p, g, y, h in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()
