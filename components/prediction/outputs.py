"""From finished parts to what the user asked for: one table, its rejects, a Kaggle submission, slide maps."""

from __future__ import annotations

import collections
import hashlib
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.core.array_types import Array
from components.core.rejects import REJECT_KINDS, REJECT_SCHEMA
from components.prediction.parts import part_meta
from components.prediction.plan import part_file
from components.promotion.find_model import ModelSource
from components.promotion.prediction_tables import predictions_schema, predictions_table, probability_values
from components.storage.base import Storage
from components.storage.open import open_storage

SUFFIXES = (".parquet", ".csv")
MAX_NAME = 150


def output_schema(n_classes: int) -> pa.Schema:
    """Columns of a prediction's table: those of predictions.parquet, and what a person asks next.

    `predicted` is the class number at the model's threshold (or argmax), `predicted_name` its name; `path`, `x` and `y`
    are as in patches.parquet.
    """
    more = [
        pa.field("predicted", pa.int32(), nullable=False),
        pa.field("predicted_name", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("x", pa.int32(), nullable=False),
        pa.field("y", pa.int32(), nullable=False),
    ]
    return pa.schema([*predictions_schema(n_classes), *more])


def output_table(part: pa.Table, model: ModelSource) -> pa.Table:
    """A finished part as rows of `output_schema`."""
    probability = probability_values(part["probability"])
    multiclass = len(model.classes) > 2
    predicted = probability.argmax(axis=1) if multiclass else probability >= np.float32(model.threshold)
    columns: dict[str, Any] = {name: part[name] for name in part.schema.names}
    columns["label"] = arrow_arrays.values(part["label"])
    base = predictions_table(columns, probability, model.version, len(model.classes))
    made: dict[str, Any] = {name: base[name] for name in base.schema.names}
    made |= {name: part[name] for name in ("path", "x", "y")}
    made["predicted"] = predicted.astype(np.int32)
    made["predicted_name"] = arrow_arrays.strings(model.classes).take(arrow_arrays.numbers(made["predicted"]))
    return arrow_arrays.table(made, output_schema(len(model.classes)))


def tables(work: Storage, parts: int, model: ModelSource) -> Iterator[pa.Table]:
    """All parts in order, one at a time."""
    for number in range(parts):
        part = pq.read_table(work.local_copy(part_file(number)))
        if len(part):
            yield output_table(part, model)


def rejected(work: Storage, parts: int, before: pa.Table) -> pa.Table:
    """Everything that got no probability, rows of `REJECT_SCHEMA` sorted by path.

    Args:
        work: Holds the parts.
        parts: How many.
        before: What was not even read.
    """
    found = [row for number in range(parts) for row in part_meta(work.local_copy(part_file(number)))["rejects"]]
    paths, codes, details = zip(*found) if found else ((), (), ())
    columns = {"path": paths, "code": codes, "kind": [REJECT_KINDS[c] for c in codes], "detail": details}
    table = pa.concat_tables([before.cast(REJECT_SCHEMA), arrow_arrays.table(columns, REJECT_SCHEMA)])
    return table.sort_by("path").combine_chunks()


def measured(work: Storage, parts: int) -> list[Any]:
    """What each part says of its colours, in order; None of those that measured none."""
    return [part_meta(work.local_copy(part_file(number))).get("colours") for number in range(parts)]


def read_rejects(file: str) -> list[dict[str, str]]:
    """Rows of a rejects table, by its full name; `.csv` or `.parquet`."""
    root, _, name = file.rpartition("/")
    local = open_storage(root).local_copy(name)
    rows: list[dict[str, str]] = (pacsv.read_csv if name.endswith(".csv") else pq.read_table)(local).to_pylist()
    return rows


def count_codes(rejects: pa.Table) -> dict[str, dict[str, Any]]:
    """Reject code -> {kind, count}, the commonest first."""
    counts = collections.Counter(rejects["code"].to_pylist())
    return {code: {"kind": REJECT_KINDS[code], "count": count} for code, count in counts.most_common()}


def write_table(file: Path, tables: Iterable[pa.Table], schema: pa.Schema, classes: Sequence[str]) -> int:
    """Writes a table piece by piece, as CSV or Parquet by the file's extension.

    Args:
        file: A new local file.
        tables: Pieces, rows of `schema`.
        schema: Of all of them.
        classes: Names of the classes: a list of probabilities becomes the columns probability_NAME in CSV.

    Returns:
        Number of rows.
    """
    rows = 0
    if file.suffix == ".csv":
        flat = _flat(schema.empty_table(), classes).schema
        with pacsv.CSVWriter(str(file), flat) as writer:
            for table in tables:
                writer.write_table(_flat(table, classes))
                rows += len(table)
        return rows
    with pq.ParquetWriter(str(file), schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
    return rows


def _flat(table: pa.Table, classes: Sequence[str]) -> pa.Table:
    place = table.schema.get_field_index("probability")
    if place < 0 or not pa.types.is_list(table.schema.field(place).type):
        return table
    values = probability_values(table["probability"]) if len(table) else np.zeros((0, len(classes)), np.float32)
    table = table.remove_column(place)
    for number, name in enumerate(classes):
        table = table.add_column(place + number, f"probability_{name}", arrow_arrays.numbers(values[:, number].copy()))
    return table


def beside(name: str, kind: str, suffix: str = "") -> str:
    """Name of a file that belongs to an output: `a.csv`, `rejects` gives `a.rejects.csv`."""
    stem, dot, own = name.rpartition(".")
    return f"{stem}.{kind}{suffix or dot + own}"


def write_slide_maps(folder: str, tables: Iterable[pa.Table], threshold: float) -> list[dict[str, Any]]:
    """A PNG for each slide (or group, where no slide is known) whose patches have coordinates.

    Where labels are known, `NAME.labels.png` shows them in the same grid.

    Args:
        folder: Local folder or gs:// prefix.
        tables: Rows of `output_schema`, binary.
        threshold: Of the model; drawn pale.

    Returns:
        For each slide its name, `file` in the folder, `patches` and how many of them are `positive`; those with the
        largest share first.
    """
    from components.prediction.slide_maps import slide_png

    slides: dict[str, list[tuple[Array, ...]]] = collections.defaultdict(list)
    for table in tables:
        x, y = (arrow_arrays.values(table[name]) for name in ("x", "y"))
        known = np.array([value is not None for value in table["label"].to_pylist()], bool)
        label = np.where(known, np.array(table["label"].fill_null(0).to_numpy(), float), np.nan)
        columns = (x, y, np.asarray(table["probability"].to_numpy(), float), label)
        slide, group = (np.array(table[name].to_pylist(), object) for name in ("slide_id", "group_id"))
        names = np.where(slide != "", slide, group).astype(str)
        placed = (x >= 0) & (y >= 0) & (names != "")
        for name in np.unique(names[placed]):
            rows = placed & (names == name)
            slides[str(name)].append(tuple(column[rows] for column in columns))
    out, told = open_storage(folder), []
    for name, pieces in slides.items():
        x, y, probability, label = (np.concatenate(column) for column in zip(*pieces))
        out.write_atomic(f"{file_name(name)}.png", slide_png(x, y, probability, threshold=threshold))
        positive = int(np.count_nonzero(probability.astype(np.float32) >= np.float32(threshold)))
        told.append({"name": name, "file": f"{file_name(name)}.png", "patches": len(x), "positive": positive})
        if not np.isnan(label).all():
            out.write_atomic(f"{file_name(name)}.labels.png", slide_png(x, y, label))
    out.sweep("")
    return sorted(told, key=lambda slide: (-slide["positive"] / slide["patches"], slide["name"]))


def file_name(text: str) -> str:
    """A file name for any id: harmless characters stay, the rest is percent-encoded; long ones end in a digest."""
    name = urllib.parse.quote(text, safe=" ()+,=@")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > MAX_NAME:
        name = f"{name[:MAX_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name
