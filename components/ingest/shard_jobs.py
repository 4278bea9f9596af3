"""What a shard is to be and what became of it: the small facts that planner, writer and commit share.

Imports no decoder, so that an ingest with nothing to do is over before one would be loaded.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa

from components.datasets.layout import ShardSpec
from components.datasets.sidecars import META_KEY


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
