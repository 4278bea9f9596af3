"""What is found and not written: codes, their kinds, and the table of them."""

from __future__ import annotations

import pyarrow as pa

from components.core import arrow_arrays

REJECT_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

REJECT_KINDS: dict[str, str] = {
    # faults count towards --max-faults
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


def reject_table(rows: list[tuple[str, str, str]]) -> pa.Table:
    """(path, code, detail) rows as a table of `REJECT_SCHEMA`; the kind follows from the code."""
    paths, codes, details = zip(*rows) if rows else ((), (), ())
    columns = {"path": paths, "code": codes, "kind": [REJECT_KINDS[c] for c in codes], "detail": details}
    return arrow_arrays.table(columns, REJECT_SCHEMA)
