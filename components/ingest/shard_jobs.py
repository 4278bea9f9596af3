"""What a shard is to be and what became of it: the small facts that planner, writer and commit share.

Imports no decoder, so that an ingest with nothing to do is over before one would be loaded.
"""

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


@dataclasses.dataclass(frozen=True)
class WriteConfig:
    """What every shard of one ingest has in common; travels with each job.

    Attributes:
        input_root: Folder or gs:// prefix of the raw images.
        workspace: Storage root.
        dataset_dir: Folder of the data set, relative to the workspace.
        plan_path: Arrow file with one record batch per shard, relative to the workspace.
        classes: Class names in label order.
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels as stored.
        image_format: `raw` or `encoded`.
    """

    input_root: str
    workspace: str
    dataset_dir: str
    plan_path: str
    classes: tuple[str, ...]
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    image_format: str = "raw"


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What a shard's job reports; everything else is in the sidecar.

    Attributes:
        spec: The shard.
        written: Records.
        rejected: Images that were not written.
        bytes: Size of the file.
        seconds: Time that the job took.
        resumed: True where the shard stood already, intact.
    """

    spec: ShardSpec
    written: int
    rejected: int
    bytes: int
    seconds: float
    resumed: bool


def read_plan(local_plan: str | Path, number: int) -> tuple[ShardSpec, pa.RecordBatch]:
    """Reads one shard's plan; the file is mapped, so only that part of it is touched."""
    with pa.memory_map(str(local_plan)) as source:
        reader = pa.ipc.open_file(source)
        specs = json.loads(reader.schema.metadata[META_KEY])["shards"]
        return ShardSpec(*specs[number]), reader.get_batch(number)


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
