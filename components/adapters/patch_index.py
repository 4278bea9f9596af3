"""A patch, and the tables that hold many of them.

A data set of 277,524 patches as Python objects costs several hundred megabytes, so the index is an Arrow table
from discovery to the last shard; `Patch` is the row that people read, write tests with and document.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

ABSENT_NUMBER = -1
"""What stands in `x`, `y` and `magnification` where a data set has none."""


@dataclasses.dataclass(frozen=True)
class Patch:
    """One image file and what its data set says of it.

    Attributes:
        patch_id: File stem; unique in a data set.
        path: Path relative to the input folder, POSIX separators.
        group_id: What may not be split: the patient, or the slide where no patient is known.
        slide_id: Slide, empty where unknown.
        label: Index into the task's classes (order fixed in `schemas/`).
        x: Left edge on the slide in pixels of the level that the data set was cut from, -1 where unknown.
        y: Top edge, likewise.
        magnification: Objective magnification (40, 100, ...), -1 where unknown.
        tumor_type: Tumour type code (`DC`, `TA`, ...), empty where unknown.
    """

    patch_id: str
    path: str
    group_id: str
    slide_id: str = ""
    label: int = 0
    x: int = ABSENT_NUMBER
    y: int = ABSENT_NUMBER
    magnification: int = ABSENT_NUMBER
    tumor_type: str = ""

    def __post_init__(self) -> None:
        if not self.patch_id or not self.group_id or not self.path:
            raise ValueError(f"patch_id, group_id and path may not be empty: {self}")
        if self.label < 0:
            raise ValueError(f"label of {self.patch_id!r} is negative: {self.label}")

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Patch:
        """Builds a patch from a row of the index or of patches.parquet; other columns are ignored."""
        return cls(**{f.name: row[f.name] for f in dataclasses.fields(cls)})


PATCH_FIELDS = [
    pa.field("patch_id", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("group_id", pa.string(), nullable=False),
    pa.field("slide_id", pa.string(), nullable=False),
    pa.field("label", pa.int32(), nullable=False),
    pa.field("x", pa.int32(), nullable=False),
    pa.field("y", pa.int32(), nullable=False),
    pa.field("magnification", pa.int32(), nullable=False),
    pa.field("tumor_type", pa.string(), nullable=False),
]

INDEX_SCHEMA = pa.schema(
    [
        *PATCH_FIELDS,
        pa.field("size", pa.int64(), nullable=False),  # bytes of the source file
        pa.field("version", pa.int64(), nullable=False),  # mtime_ns, or the object's generation on gs://
    ]
)
"""The patch index: what discovery found, one row per patch that is to be written."""

REJECT_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

REJECT_KINDS: dict[str, str] = {
    # faults count towards --max-fault-fraction
    "truncated": "fault",
    "empty_file": "fault",
    "not_an_image": "fault",
    "wrong_format": "fault",
    "unsupported": "fault",
    "wrong_size": "fault",
    "too_narrow": "fault",
    "bomb": "fault",
    "bad_name": "fault",
    "class_mismatch": "fault",
    "duplicate_id": "fault",
    "unreadable": "fault",
    "outside_root": "fault",
    # policies resolve what real data holds
    "duplicate": "policy",
    "label_conflict": "policy",
    "no_group": "policy",
    # excluded on request, or not part of the task
    "filtered": "excluded",
    "over_cap": "excluded",
    "excluded_group": "excluded",
    "unlabelled": "excluded",
    "nested_copy": "excluded",
    "infeasible_class": "excluded",
}
"""Kind of every reject code; a code that is not here cannot be written."""


class Rejected(Exception):
    """An image that can't be written as it should be.

    Args:
        code: A key of `REJECT_KINDS`.
        detail: What exactly is wrong, without the path.
    """

    def __init__(self, code: str, detail: str) -> None:
        if code not in REJECT_KINDS:
            raise ValueError(f"unknown reject code {code!r}")
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
