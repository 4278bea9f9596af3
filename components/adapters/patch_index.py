"""The patch index: what discovery found, one row per patch.

A data set of 277,524 patches as Python objects costs several hundred megabytes, so the index is an Arrow table from
discovery to the last shard.
"""

from __future__ import annotations

import pyarrow as pa

ABSENT_NUMBER = -1
"""What stands in `x`, `y` and `magnification` where a data set has none."""

PATCH_FIELDS = [
    # file stem; unique in a data set
    pa.field("patch_id", pa.string(), nullable=False),
    # relative to the input folder, POSIX separators
    pa.field("path", pa.string(), nullable=False),
    # what may not be split: the patient, or the slide where no patient is known
    pa.field("group_id", pa.string(), nullable=False),
    # empty where unknown
    pa.field("slide_id", pa.string(), nullable=False),
    # index into the task's classes (order fixed in `schemas/`)
    pa.field("label", pa.int32(), nullable=False),
    # left and top edge on the slide in pixels of the level that the data set was cut from, -1 where unknown
    pa.field("x", pa.int32(), nullable=False),
    pa.field("y", pa.int32(), nullable=False),
    # of the objective (40, 100, ...), -1 where unknown
    pa.field("magnification", pa.int32(), nullable=False),
    # code (`DC`, `TA`, ...), empty where unknown
    pa.field("tumor_type", pa.string(), nullable=False),
]

INDEX_SCHEMA = pa.schema(
    [
        *PATCH_FIELDS,
        pa.field("size", pa.int64(), nullable=False),  # bytes of the source file
        pa.field("version", pa.int64(), nullable=False),  # mtime_ns, or the object's generation on gs://
    ]
)
"""One row per patch that is to be written."""
