"""Where things lie in a data set's folder. Imports no library, since an ingest with nothing to do needs it too."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path


def lock_path(home: str) -> str:
    """Lock file of a data set and task (`datasets/DATASET/TASK`): whoever changes anything below it holds it."""
    return f"{home}/.lock"


def shard_path(split: str, file: str) -> str:
    """Path of a shard, relative to the data set's folder."""
    return f"Split-{split}/{file}"


def sidecar_path(file: str) -> str:
    """Path of the sidecar of a shard's file, relative to the data set's folder."""
    return f"sidecars/{file.rsplit('.', 1)[0]}.parquet"


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
    def file(self) -> str:
        """File name of the records."""
        return f"{self.split}-{self.index:05d}-of-{self.of:05d}.tfrecord"

    @property
    def path(self) -> str:
        """Path of the records, relative to the data set's folder."""
        return shard_path(self.split, self.file)

    @property
    def sidecar(self) -> str:
        """Path of the sidecar, relative to the data set's folder."""
        return sidecar_path(self.file)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
