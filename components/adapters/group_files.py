"""Reads the files in which people name groups: `--groups-csv` and `--exclude-groups`."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from components.adapters.listing import IMAGE_EXTENSIONS, extension_of
from components.core import arrow_arrays
from components.core.regular_files import read_regular
from components.errors import UsageError

ID_COLUMNS = ("patch_id", "id", "image", "filename", "path")
PATIENT_COLUMNS = ("patient", "patient_id")
SLIDE_COLUMNS = ("slide", "slide_id", "wsi")
_GROUP_COLUMNS = (*PATIENT_COLUMNS, *SLIDE_COLUMNS)


@dataclasses.dataclass(frozen=True)
class GroupMapping:
    """Groups of patches, as a CSV file gives them.

    Attributes:
        patch_ids: Unique patch ids (string array).
        groups: Group of each, never empty.
        slides: Slide of each, empty where the file has no slide column or no value.
        unit: `patient` or `slide`.
        digest: SHA-256 of the file, hexadecimal.
    """

    patch_ids: pa.Array
    groups: pa.Array
    slides: pa.Array
    unit: str
    digest: str = ""


def patch_key(value: str) -> str:
    """Patch id that a CSV cell means: the file stem, whether it is written as id, file name or path."""
    name = value.strip().rpartition("/")[2]
    extension = extension_of(name)
    return name[: -len(extension)] if extension in IMAGE_EXTENSIONS else name


def csv_rows(data: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, cells) of a CSV file, blank lines left out; the header is the first item.

    Takes what spreadsheets write: a byte order mark, CRLF, and comma, semicolon or tab between cells.

    Args:
        data: Content of the file.
        name: Name for messages.

    Raises:
        UsageError: Not UTF-8, or not a CSV file.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name!r} is not UTF-8 text (byte {error.start}).", "Save it as CSV in UTF-8."
        ) from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise UsageError(f"{name!r}, line {reader.line_num}: not a CSV file ({error}).") from error


def find_column(header: list[str], known: tuple[str, ...], name: str) -> int | None:
    """Index of the first known column name in a header, whatever its case; None where none is there.

    Raises:
        UsageError: Two columns bear the same name.
    """
    names = [cell.lower() for cell in header]
    for candidate in known:
        if names.count(candidate) > 1:
            raise UsageError(f"{name!r} has two columns {candidate!r}.", "Keep one of them.")
        if candidate in names:
            return names.index(candidate)
    return None


def read_groups_csv(path: str | Path) -> GroupMapping:
    """Reads a patch-to-group mapping.

    The group is the patient column where there is one, else the slide column. Rows with an empty group map
    nothing; a row may be repeated.

    Args:
        path: CSV file with a header: one of `ID_COLUMNS`, and one of `PATIENT_COLUMNS` or `SLIDE_COLUMNS`.

    Raises:
        UsageError: The file is unreadable, lacks a column, or gives one patch two groups.
    """
    name = str(path)
    data = _read(path)
    rows = csv_rows(data, name)
    _, header = next(rows, (1, []))
    id_column = find_column(header, ID_COLUMNS, name)
    patient_column = find_column(header, PATIENT_COLUMNS, name)
    slide_column = find_column(header, SLIDE_COLUMNS, name)
    group_column = slide_column if patient_column is None else patient_column
    if id_column is None or group_column is None:
        raise UsageError(
            f"{name!r} has the columns {', '.join(header) or '(none)'}.",
            f"Its first line must name one of {', '.join(ID_COLUMNS)} and one of "
            f"{', '.join(_GROUP_COLUMNS)}.",
        )
    mapping: dict[str, tuple[str, str]] = {}
    for line, row in rows:
        cells = [
            row[i] if i is not None and i < len(row) else "" for i in (id_column, group_column, slide_column)
        ]
        key, group, slide = patch_key(cells[0]), cells[1], cells[2]
        if not key:
            raise UsageError(f"{name!r}, line {line}: no patch id.", "Fill it in or delete the line.")
        if not group:
            continue
        known = mapping.setdefault(key, (group, slide))
        if known != (group, slide):
            raise UsageError(
                f"{name!r}, line {line}: patch {key!r} is in {group!r} (slide {slide!r}), an earlier "
                f"line says {known[0]!r} (slide {known[1]!r}).",
                "A patch belongs to one group: delete the wrong line. Patches are known by file stem.",
            )
    return GroupMapping(
        patch_ids=arrow_arrays.strings(mapping.keys()),
        groups=arrow_arrays.strings(group for group, _ in mapping.values()),
        slides=arrow_arrays.strings(slide for _, slide in mapping.values()),
        unit="slide" if patient_column is None else "patient",
        digest=hashlib.sha256(data).hexdigest(),
    )


def read_group_list(path: str | Path) -> frozenset[str]:
    """Reads a list of groups, such as `--exclude-groups`: one a line, `#` starts a comment line.

    A first line that is a column name (`patient_id`, `group`, ...) is left out.

    Raises:
        UsageError: The file is unreadable or not UTF-8.
    """
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{str(path)!r} is not UTF-8 text.", "Save it as UTF-8, one group a line."
        ) from error
    lines = [line.strip().strip('"').strip() for line in text.splitlines()]
    groups = [line for line in lines if line and not line.startswith("#")]
    if groups and groups[0].lower() in (*_GROUP_COLUMNS, "group", "group_id"):
        groups = groups[1:]
    return frozenset(groups)


def _read(path: str | Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise UsageError(f"Cannot read {str(path)!r}: {error.strerror}.", "Check the path.") from error
