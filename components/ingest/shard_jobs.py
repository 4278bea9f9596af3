"""What a shard is to be and what became of it: the small facts that planner, writer and commit share.

Imports no decoder, so that an ingest with nothing to do is over before one would be loaded.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from components.datasets.layout import ShardSpec


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


@dataclasses.dataclass(frozen=True)
class IngestPlan:
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
        drawn: Whether a program drew the images; likewise.
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
    drawn: bool = False
