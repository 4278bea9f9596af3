"""Where things lie in a data set's folder, and what a sidecar says of its shard."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables import REPETITIVE

META_KEY = b"histoline"
"""Under which our facts stand in the metadata of Parquet and Arrow files."""


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """Which file a shard becomes.

    Attributes:
        split: `train`, `eval` or `test`.
        index: Position within the split.
        of: Number of shards in the split.
    """

    split: str
    index: int
    of: int

    @property
    def stem(self) -> str:
        """Name without folder and extension."""
        return f"{self.split}-{self.index:05d}-of-{self.of:05d}"

    @property
    def file(self) -> str:
        """File name of the records."""
        return f"{self.stem}.tfrecord"

    @property
    def path(self) -> str:
        """Path of the records, relative to the data set's folder."""
        return f"Split-{self.split}/{self.file}"

    @property
    def sidecar(self) -> str:
        """Path of the sidecar, relative to the data set's folder."""
        return f"sidecars/{self.stem}.parquet"


def sidecar_meta(schema: pa.Schema) -> dict[str, Any]:
    """What a sidecar says of its shard: count, bytes, sha256, rejects, dropped."""
    meta: dict[str, Any] = json.loads((schema.metadata or {})[META_KEY])
    return meta


def write_sidecar(table: pa.Table, file: str | Path) -> None:
    """Writes a sidecar's table, whose metadata `sidecar_meta` reads."""
    pq.write_table(table, file, compression="zstd", write_statistics=False, use_dictionary=REPETITIVE)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
