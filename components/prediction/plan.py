"""What a prediction is to do, cut into parts: the unit of work, of retry and of resume.

A plan is one Arrow file with a record batch per part; what moves through Beam is the number of a part.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core import arrow_arrays

META_KEY = b"histoline"
PLAN = "plan.arrow"
PREDICT_VERSION = 2
"""Raised when equal plans would give other tables."""

UNKNOWN_LABEL = -1

PLAN_SCHEMA = pa.schema(
    [
        pa.field("patch_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),  # empty where unknown, like slide_id and split
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # -1 where unknown, like x and y
        pa.field("path", pa.string(), nullable=False),
        pa.field("x", pa.int32(), nullable=False),
        pa.field("y", pa.int32(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # of an image file, bytes
        pa.field("version", pa.int64(), nullable=False),  # mtime_ns or generation of an image file
        pa.field("offset", pa.int64(), nullable=False),  # of a record in its shard, -1 for an image file
    ]
)

_PART_BYTES = 32 << 20
_MAX_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """What all parts of one prediction have in common; travels with each job.

    Attributes:
        input_root: Folder or gs:// prefix: of raw images, or of a data set's workspace.
        model_root: Storage root of the model.
        model_path: Its folder there.
        model_digest: SHA-256 over its files, so that a worker never answers with another one.
        work: Folder or gs:// prefix for plan and finished parts.
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels of the images that the model takes.
        colour_unit: Group unit by which colours are measured (`colours.unit_of`); empty: they are not.
    """

    input_root: str
    model_root: str
    model_path: str
    model_digest: str
    work: str
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    colour_unit: str = ""


def part_file(number: int) -> str:
    """File of a finished part, in the work folder."""
    return f"part-{number:05d}.parquet"


def rows_per_part(stored_size: tuple[int, int]) -> int:
    """Images of one part."""
    width, height = stored_size
    return max(16, min(_MAX_ROWS, _PART_BYTES // (width * height * 3)))


def image_parts(patches: pa.Table, stored_size: tuple[int, int]) -> list[tuple[str, pa.Table]]:
    """Cuts a list of image files into parts.

    Args:
        patches: As `raw_images.find_images` gives them.
        stored_size: (width, height) in pixels.

    Returns:
        (empty, rows of `PLAN_SCHEMA`) for each part.
    """
    count = len(patches)
    columns: dict[str, Any] = {name: patches[name] for name in patches.schema.names}
    columns |= {"split": [""] * count, "offset": np.full(count, -1, np.int64)}
    whole, step = arrow_arrays.table(columns, PLAN_SCHEMA), rows_per_part(stored_size)
    return [("", whole.slice(start, step)) for start in range(0, count, step)]


def record_parts(
    patches: pa.Table, shards: Sequence[tuple[str, str]], leave_out: frozenset[str] = frozenset()
) -> list[tuple[str, pa.Table]]:
    """One part for each shard that holds records to predict.

    Args:
        patches: patches.parquet.
        shards: (split, path relative to the workspace) in order.
        leave_out: Groups whose records are left out.

    Returns:
        (path of the shard, rows of `PLAN_SCHEMA` by offset) for each part.
    """
    if leave_out:
        seen = pc.is_in(patches["group_id"], value_set=arrow_arrays.strings(sorted(leave_out)))
        patches = patches.filter(pc.invert(seen))
    parts = []
    for split, path in shards:
        mine = pc.and_(pc.equal(patches["split"], split), pc.equal(patches["shard"], path.rpartition("/")[2]))
        rows = patches.filter(mine)
        if len(rows):
            rows = rows.take(pc.sort_indices(rows["offset"]))
            columns: dict[str, Any] = {n: rows[n] for n in rows.schema.names if n in PLAN_SCHEMA.names}
            columns |= {"size": np.zeros(len(rows), np.int64), "version": np.zeros(len(rows), np.int64)}
            parts.append((path, arrow_arrays.table(columns, PLAN_SCHEMA)))
    return parts


def write_plan(file: Path, parts: Sequence[tuple[str, pa.Table]], facts: dict[str, Any]) -> str:
    """Writes a plan.

    Args:
        file: Where to.
        parts: (shard or empty, rows) each.
        facts: What else decides on the outcome: model, input.

    Returns:
        Digest of plan and facts: equal means that finished parts of an earlier try still count.
    """
    meta = {"shards": [shard for shard, _ in parts], "facts": facts, "predict_version": PREDICT_VERSION}
    schema = PLAN_SCHEMA.with_metadata({META_KEY: json.dumps(meta, sort_keys=True).encode()})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for _, rows in parts:
            # One batch each, also where the rows come in several chunks.
            for batch in rows.combine_chunks().to_batches():
                writer.write_batch(batch)
    digest = hashlib.sha256()
    with open(file, "rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_part(local_plan: str | Path, number: int) -> tuple[str, pa.RecordBatch]:
    """(shard or empty, rows) of one part; the file is mapped, so only that part of it is touched."""
    with pa.memory_map(str(local_plan)) as source:
        reader = pa.ipc.open_file(source)
        shards = json.loads(reader.schema.metadata[META_KEY])["shards"]
        return shards[number], reader.get_batch(number)
