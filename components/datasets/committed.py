"""What training must know of a committed data set: its facts and exactly the shards that its manifest names."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.array_types import Integers
from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.errors import DataError
from components.images.decode import shrink_factor
from components.storage.base import Storage
from components.storage.open import open_storage

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        name: `train`, `eval` or `test`.
        shards: Local files, in the manifest's order.
        by_class: Patches per class in label order.
        offsets: Of each shard the byte offsets, rising, of the records that belong to the split; empty where all of
            them do.
    """

    name: str
    shards: tuple[Path, ...]
    by_class: tuple[int, ...]
    offsets: tuple[Integers, ...] = dataclasses.field(default=(), compare=False)

    @property
    def count(self) -> int:
        """Patches."""
        return sum(self.by_class)


@dataclasses.dataclass(frozen=True)
class DatasetFiles:
    """A committed data set on this machine.

    Attributes:
        folder: Where it lies; a local copy where it came from gs://.
        manifest: Its manifest, checked.
        splits: By name.
        part: Digest of who is where, if it is split otherwise than it was committed; else empty.
    """

    folder: Path
    manifest: Manifest
    splits: dict[str, Split]
    part: str = ""

    @property
    def name(self) -> str:
        """Of the data set, such as `idc`."""
        return self.manifest.dataset

    @property
    def task(self) -> str:
        """`binary` or `subtype`."""
        return self.manifest.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.manifest.classes

    @property
    def image_format(self) -> str:
        """`raw` or `encoded`."""
        return self.manifest.image_format

    @property
    def source_size(self) -> tuple[int, int]:
        """(width, height) in pixels of a regular source image."""
        return self.manifest.source_size

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels as stored."""
        return self.manifest.stored_size

    @property
    def label_region(self) -> tuple[int, int, int, int] | None:
        """(left, top, width, height) in stored pixels that the label speaks of, rounded outwards; None: all."""
        region = self.manifest.label_region
        if region is None:
            return None
        k = shrink_factor(self.source_size, self.stored_size)
        left, top, width, height = region
        right, bottom = -(-(left + width) // k), -(-(top + height) // k)
        return left // k, top // k, right - left // k, bottom - top // k

    def groups(self, *splits: str) -> list[str]:
        """Sorted groups (patients, or slides) that have patches in any of these splits."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.folder / "patches.parquet", columns=["group_id", "split"])
        pairs = table.group_by(["group_id", "split"]).aggregate([]).to_pylist()
        return sorted({row["group_id"] for row in pairs if row["split"] in splits})

    def table(self, split: str, columns: Sequence[str]) -> pa.Table:
        """Columns of the sidecars of a split, in the order in which its records are read.

        Args:
            split: `train`, `eval` or `test`.
            columns: Of `schemas.tables.sidecar`.
        """
        from components.datasets.sidecars import read_sidecars

        shards = self.manifest.shards(split)
        return read_sidecars([self.folder / self.manifest.sidecar(shard) for shard in shards], columns)


def open_dataset(dataset_dir: str | Path, cache_dir: Path | None = None) -> DatasetFiles:
    """Reads the manifest of a committed data set; one on gs:// is staged into a local, checksummed cache first.

    Args:
        dataset_dir: Local folder, or `gs://bucket/.../PLAN_ID`.
        cache_dir: For data sets on gs://; the storage's own default where None.

    Raises:
        UsageError: Not a committed data set.
        DataError: The manifest was changed, or a shard is missing or has another size than at the commit.
    """
    name = os.fspath(dataset_dir)
    if name.startswith("gs:/"):  # a Path has swallowed one slash of gs://
        name = "gs://" + name[4:].lstrip("/")
    else:
        name = os.path.abspath(name)
    root, _, last = name.rstrip("/").rpartition("/")
    storage = open_storage(root)
    manifest = manifests.load(storage, last)
    folder = Path(storage.local_tree(last, cache_dir))
    splits = {split: _split(folder, split, manifest) for split in manifest.splits}
    return DatasetFiles(folder, manifest, splits)


def stage(storage: Storage, dataset_dir: str, manifest: Manifest) -> Path:
    """A data set as a local folder, proved by the manifest's checksums where it had to be fetched.

    Args:
        storage: Where it lies.
        dataset_dir: Its folder, relative to the storage.
        manifest: Its manifest.

    Raises:
        DataError: What was fetched is not what was committed.
    """
    folder = storage.local_tree(dataset_dir)
    if not storage.is_local:
        from components.datasets.verify import verify_bytes

        result = verify_bytes(open_storage(folder.parent), folder.name, manifest)
        if result.findings:
            raise DataError(
                f"{storage.uri(dataset_dir)} is not what was committed: {'; '.join(result.findings[:3])}.",
                "Run the same ingest again: it writes missing and damaged files anew from the raw folder.",
            )
    return folder


def _split(folder: Path, name: str, manifest: Manifest) -> Split:
    shards = []
    for shard in manifest.shards(name):
        path = folder / manifest.path(name, shard)
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size:,} bytes instead of {shard.bytes:,}"
            raise DataError(f"{path} {found}.", "Run the ingest again: it writes what is missing.")
        shards.append(path)
    by_class = tuple(manifest.splits[name].by_class.get(c, 0) for c in manifest.classes)
    return Split(name, tuple(shards), by_class)


def facts_json(value: Any) -> str:
    """JSON as files of a model are written: indented, sorted, UTF-8."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
