"""What `--input` holds for a prediction: a folder of images, or the records of a committed data set."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.core.rejects import REJECT_SCHEMA
from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.datasets.sidecars import shard_files
from components.errors import UsageError
from components.prediction.plan import UNKNOWN_LABEL, image_parts, record_parts
from components.prediction.raw_images import find_images
from components.promotion.find_model import ModelSource
from components.storage.base import Storage
from components.storage.open import open_storage


@dataclasses.dataclass(frozen=True)
class PredictionPlan:
    """What is to be predicted.

    Attributes:
        parts: (shard or empty, rows of `PLAN_SCHEMA`) each.
        name: Full name of the input.
        input_root: What their paths are relative to.
        rejects: Rows of `REJECT_SCHEMA`: images that are not even read.
        warnings: Sentences.
        facts: What identifies the input.
    """

    parts: list[tuple[str, pa.Table]]
    name: str
    input_root: str
    rejects: pa.Table
    warnings: list[str]
    facts: dict[str, Any]

    @property
    def planned(self) -> int:
        """Patches to predict."""
        return sum(len(rows) for _, rows in self.parts)

    def column(self, name: str) -> list[Any]:
        """A column over all parts."""
        return [value for _, rows in self.parts for value in rows[name].to_pylist()]


def absolute(name: str) -> str:
    """A folder or file as workers find it too: absolute, without a trailing slash."""
    return name.rstrip("/") if name.startswith("gs://") else os.path.abspath(os.path.expanduser(name))


def plan_input(model: ModelSource, given: str, groups_csv: Path | None = None) -> PredictionPlan:
    """Finds what `--input` holds: a committed data set, or a folder of images.

    Raises:
        UsageError: Nothing to predict there, or nothing that this model takes.
        DataError: A manifest is damaged.
    """
    root = absolute(given)
    parent, _, name = root.rpartition("/")
    storage = open_storage(parent or "/")
    if name and storage.exists(f"{name}/{manifests.NAME}"):
        if groups_csv is not None:
            raise UsageError("A data set knows its groups.", "Leave out --groups-csv.")
        return plan_dataset(model, storage, name)
    found = find_images(
        root, model.facts["adapter"], model.facts["task"], groups_csv, source_size=model.source_size
    )
    parts = image_parts(found.patches, model.stored_size)
    return PredictionPlan(parts, root, root, found.rejects, found.warnings, {"images": root})


def plan_dataset(
    model: ModelSource, storage: Storage, folder: str, leave_out: frozenset[str] = frozenset()
) -> PredictionPlan:
    """Plans the records of a committed data set.

    Args:
        model: What they are given to.
        storage: Holds the data set.
        folder: Of it, relative to the storage.
        leave_out: Groups that are left out.

    Raises:
        UsageError: Its images have another size than the model's.
        DataError: Its manifest is damaged.
    """
    manifest = manifests.load(storage, folder)
    check_size(model, manifest, storage.uri(folder))
    patches = pq.read_table(storage.local_copy(f"{folder}/patches.parquet"))
    warnings = []
    if manifest.classes != model.classes:
        index = patches.schema.get_field_index("label")
        unknown = arrow_arrays.repeat(UNKNOWN_LABEL, len(patches), pa.int32())
        patches = patches.set_column(index, patches.schema.field(index), unknown)
        warnings.append(
            f"The data set's classes ({', '.join(manifest.classes)}) are not the model's"
            f" ({', '.join(model.classes)}): labels are left out."
        )
    shards = [(split, shard) for split in manifest.splits for shard, _ in shard_files(manifest, folder, split)]
    parts = record_parts(patches, shards, leave_out)
    facts = {"dataset": manifest.manifest_digest, "leave_out": sorted(leave_out)}
    return PredictionPlan(parts, storage.uri(folder), storage.root, REJECT_SCHEMA.empty_table(), warnings, facts)


def check_size(model: ModelSource, manifest: Manifest, where: str) -> None:
    """Refuses a data set whose images the model can't take.

    Raises:
        UsageError: Says both sizes.
    """
    width, height = manifest.stored_size
    if (width, height) != model.stored_size:
        need = "x".join(map(str, model.stored_size))
        raise UsageError(
            f"{where} holds images of {width}x{height}; the model {model.uri} takes {need}.",
            f"Ingest the raw images with --size {need}, or give the raw folder as --input.",
        )
