"""Hypothesis strategies for what people and crashes leave on a disk: names, CSV files, JSON documents, and damage."""

from __future__ import annotations

import copy
import csv
import io
import os
from typing import Any

from hypothesis import strategies as st

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("../../etc"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
"""Any JSON value, NaN and infinities with it, as Python writes and reads them."""

STRANGE = ("-rf", "--help", "a\nb", "\x1b[2J", " ", "…", "é", "e\u0301", "%s", "=1+1", "con", "a" * 100)
NAMES = (
    (st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=12))
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda name: name not in (b"", b".", b".."))
    .map(os.fsdecode)
) | st.sampled_from(STRANGE)
"""Names that a file may bear on Linux: control characters, leading dashes, bytes that are no text (as surrogates)."""


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=8).map(str.strip)
"""What a cell of a table holds once it is read: no line break, nothing around it."""


@st.composite
def csv_files(draw: Any, header: list[str], rows: list[list[str]]) -> bytes:
    """A table as some spreadsheet writes it: delimiter, line ends, mark, quotes, spaces, case and blank lines vary."""
    out = io.StringIO()
    delimiter = draw(st.sampled_from(",;\t"))
    # Text between quotes may hold any delimiter; without them only the other two.
    writer = csv.writer(
        out, delimiter=delimiter, lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )  # fmt: skip
    writer.writerow([draw(st.sampled_from([name, name.upper(), f" {name}"])) for name in header])
    for row in rows:
        writer.writerow(row)
        if draw(st.booleans()):
            out.write("\n")
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + out.getvalue().encode()


@st.composite
def damaged_bytes(draw: Any, data: bytes) -> bytes:
    """Bytes of which some were lost, changed, doubled or added."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(changed)))
        how = draw(st.sampled_from(["cut", "flip", "insert", "drop"]))
        if how == "cut":
            del changed[at:]
        elif how == "flip" and at < len(changed):
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\0", b'"', b"\n", b"{", b"0"]))
        else:
            del changed[at : at + draw(st.integers(1, 9))]
    return bytes(changed)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    keys = value if isinstance(value, dict) else range(min(len(value), 3)) if isinstance(value, list) else ()
    for key in keys:
        found += _places(value[key], (*path, key))
    return found


@st.composite
def damaged_documents(draw: Any, document: dict[str, Any]) -> dict[str, Any]:
    """A JSON document in which one or two values, however deep, were replaced, removed or added."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        places = _places(changed)
        *way, last = draw(st.sampled_from(places))
        parent = changed
        for key in way:
            parent = parent[key]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if how == "replace":
            parent[last] = draw(JSON_VALUES)
        elif how == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=4))] = draw(JSON_VALUES)
        else:
            parent.append(draw(JSON_VALUES))
        if not changed:
            break
    return changed
