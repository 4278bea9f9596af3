"""Kaggle's submission for PCam: `id,label` in the order of the sample, with P(positive) as label.

Format: https://www.kaggle.com/competitions/histopathologic-cancer-detection/overview/evaluation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.adapters.group_files import csv_rows, find_column, patch_key
from components.core.regular_files import read_regular
from components.errors import DataError, UsageError

SHOWN = 5


def read_sample(file: Path) -> list[str]:
    """Ids of a sample submission, in its order.

    Args:
        file: CSV with the columns id and label.

    Raises:
        UsageError: It can't be read, lacks a column or an id, or names one twice.
    """
    name = str(file)
    try:
        data = read_regular(file)
    except OSError as error:
        raise UsageError(f"Cannot read {name!r}: {error.strerror}.", "Check the path given to --kaggle.") from error
    rows = csv_rows(data, name)
    _, header = next(rows, (1, []))
    column = find_column(header, ("id",), name)
    if column is None or find_column(header, ("label",), name) is None:
        raise UsageError(
            f"{name!r} has the columns {', '.join(header) or '(none)'}.",
            "Give the competition's sample_submission.csv: its first line is `id,label`.",
        )
    ids: dict[str, None] = {}
    for line, row in rows:
        key = row[column] if column < len(row) else ""
        if not key or key in ids:
            raise UsageError(
                f"{name!r}, line {line}: {f'id {key!r} stands there twice' if key else 'no id'}.", "Correct the file."
            )
        ids[key] = None
    if not ids:
        raise UsageError(f"{name!r} names no id.", "Give the competition's sample_submission.csv.")
    return list(ids)


def check_all_there(ids: Sequence[str], have: Mapping[str, object] | set[str], where: str, why: str = "") -> None:
    """Proves that every id of the sample has an image.

    Args:
        ids: Of the sample.
        have: Patch ids.
        where: What was searched, for the message.
        why: One more sentence, such as why images were rejected.

    Raises:
        DataError: Names the first ids that are missing.
    """
    missing = [name for name in ids if patch_key(name) not in have]
    if not missing:
        return
    named = ", ".join(repr(name) for name in missing[:SHOWN])
    named += f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
    raise DataError(
        f"{len(missing):,} of the {len(ids):,} ids of the sample submission have no prediction from {where}: {named}."
        f"{f' {why}' if why else ''}",
        "Give the folder that holds all images of the competition's test set.",
    )


def submission(ids: Sequence[str], probability: Mapping[str, float]) -> bytes:
    """The file's bytes: `id,label`, one line for each id of the sample.

    Args:
        ids: Of the sample, in its order.
        probability: P(positive) by patch id.
    """
    # Nine digits tell every float32 from its neighbours: fewer would make ties that the ranking pays for.
    lines = [f"{_cell(name)},{probability[patch_key(name)]:.9g}" for name in ids]
    return "\n".join(["id,label", *lines, ""]).encode()


def _cell(text: str) -> str:
    quoted = any(sign in text for sign in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if quoted else text
