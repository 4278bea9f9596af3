"""Published splits (`--splits-csv`), taken as they are."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from components.core.regular_files import read_regular
from components.errors import UsageError
from components.splits.ledger import DEFAULT_RATIOS, Ledger, check_ratios
from components.splits.placement import Problem, apportion
from components.splits.tables import class_counts
from schemas.tables import SPLITS

_SPLIT_COLUMNS = ("split", "fold_split", "set", "partition", "subset")
_UNIT_COLUMNS = {
    "patient": ("patient", "patient_id", "case", "case_id"),
    "slide": ("slide", "slide_id", "wsi", "image_id"),
    "image": ("patch_id", "id", "image", "image_id"),
}
_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "eval": "eval", "val": "eval", "valid": "eval", "validation": "eval", "dev": "eval",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SplitsCsv:
    """A CSV as it was read.

    Attributes:
        path: The file, for messages.
        header: Column names in lower case.
        rows: Cells of the rows below the header.
    """

    path: str
    header: list[str]
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True)
class PublishedSplits:
    """What a CSV says.

    Attributes:
        splits: Group -> `train`, `eval` or `test`; also groups that are not in the data.
        warnings: Sentences for the summary.
    """

    splits: Mapping[str, str]
    warnings: tuple[str, ...]


def read_splits_csv(path: str | os.PathLike[str]) -> SplitsCsv:
    """Reads the rows of a CSV; separators may be commas, semicolons or tabs, BOM and CRLF do no harm.

    Raises:
        UsageError: The file cannot be read.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"The split file {path} cannot be read: {error}.", "Pass a UTF-8 CSV with group and split."
        ) from error
    return SplitsCsv(str(path), [name.strip().lower() for name in rows[0]] if rows else [], rows[1:])


def published_splits(table: SplitsCsv, known_groups: Collection[str], group_unit: str) -> PublishedSplits:
    """Makes sense of a CSV with a group column and a split column.

    Header names are matched without regard to case (`group`, `group_id`, or the unit's own: `patient`,
    `patient_id`, `slide_id`, `id`, ...; `split`, `set`, `partition`). A group may be repeated, as in files with
    one row per image.

    Args:
        table: The file's rows.
        known_groups: Groups in the data that have to have a place.
        group_unit: `patient`, `slide` or `image`.

    Raises:
        UsageError: A column is missing; a split is unknown; a group is in two splits; a group of the data is
            not named; there is no train or no test.
    """
    header = table.header
    others = [name for names in _UNIT_COLUMNS.values() for name in names]
    group_column = _column(header, ("group", "group_id", *_UNIT_COLUMNS.get(group_unit, ()), *others))
    split_column = _column(header, _SPLIT_COLUMNS)
    if group_column is None or split_column is None:
        raise UsageError(
            f"The split file {table.path} lacks a {'group' if group_column is None else 'split'} column; "
            f"its columns are {', '.join(header) or 'none'}.",
            "Name the columns group and split.",
        )
    splits: dict[str, str] = {}
    for number, row in enumerate(table.rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(group_column, split_column) or not row[group_column].strip():
            raise UsageError(f"Row {number} of {table.path} names no group or no split.", "Complete the row.")
        group, name = row[group_column].strip(), row[split_column].strip()
        split = _SPLIT_NAMES.get(name.lower())
        if split is None:
            raise UsageError(f"Row {number} of {table.path} has split {name!r}.", "Use train, eval or test.")
        if splits.setdefault(group, split) != split:
            raise UsageError(
                f"Row {number} of {table.path} puts {group_unit} {group!r} into {split}, an earlier row into "
                f"{splits[group]}.",
                f"A {group_unit} can be in one split only; correct the file.",
            )
    _check_complete(splits, known_groups, table.path, header[group_column], group_unit)
    unknown = sorted(set(splits).difference(known_groups))
    warning = f"{table.path} names {len(unknown):,} groups that are not in the data: {_few(unknown)}."
    return PublishedSplits(splits, (warning,) if unknown else ())


def published_ledger(
    published: Mapping[str, str],
    group_counts: Mapping[str, Sequence[int]],
    classes: Sequence[str],
    *,
    group_unit: str,
    ratios: tuple[float, float, float] = DEFAULT_RATIOS,
    seed: int = 0,
    previous: Ledger | None = None,
    key_fingerprint: str = "",
) -> Ledger:
    """Makes a ledger of a published split; pass it to `plan_splits` as `previous`, which checks its classes.

    Where the published split has no eval (BreakHis' folds have none), eval is cut out of its train groups in
    the proportion of the ratios, stratified like every plan, and the ledger says so (`csv+eval`). Test is
    never touched.

    Args:
        published: Group -> split, with ids as the outputs will show them (tokens under pseudonymisation).
        group_counts: Patches of each class for every group in the data.
        classes: Class names in label order.
        group_unit: `patient`, `slide` or `image`.
        ratios: Target shares; here only train to eval counts, a later ingest places new groups by all three.
        seed: Decides between groups of about equal size.
        previous: Ledger of the data set so far: its tombstones stay, and an eval that was cut out of the same
            published train groups stays what it was.
        key_fingerprint: Fingerprint of the pseudonymisation key, empty for plain ids.
    """
    tombstones = previous.tombstones if previous else frozenset()
    splits = {group: split for group, split in published.items() if group not in tombstones}
    source = "csv"
    if "eval" not in splits.values():
        source = "csv+eval"
        old = previous.splits if previous and previous.source == "csv+eval" else {}
        # Old places hold for vanished groups too; the rest is chosen among the groups with patches.
        splits.update({g: "eval" for g, s in splits.items() if s == "train" and old.get(g) == "eval"})
        names = sorted(g for g, s in splits.items() if s != "test" and any(group_counts.get(g, ())))
        parts = [round(ratio * 1_000_000) for ratio in check_ratios(ratios)[:2]]
        fixed = np.array([SPLITS.index(splits[g]) if g in old else -1 for g in names], dtype=np.int64)
        counts = class_counts(group_counts, names, classes)
        required = np.repeat(counts.any(axis=0)[:, None], 2, axis=1)
        balanced = np.ones(len(names), dtype=bool)
        bins, _ = apportion(Problem(names, counts, parts, seed, fixed, required, balanced))
        splits.update({name: SPLITS[bin_] for name, bin_ in zip(names, bins, strict=True)})
    return Ledger(
        group_unit,
        splits,
        seed,
        ratios,
        tombstones=tombstones,
        key_fingerprint=key_fingerprint,
        source=source,
    )


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _few(groups: Sequence[str]) -> str:
    return ", ".join(map(repr, groups[:5])) + (", ..." if len(groups) > 5 else "")


def _check_complete(
    splits: Mapping[str, str], known_groups: Collection[str], csv_path: object, column: str, group_unit: str
) -> None:
    absent = sorted(set(known_groups).difference(splits))
    if absent:
        raise UsageError(
            f"{csv_path} gives no split to {len(absent):,} of {len(known_groups):,} {group_unit}s "
            f"in the data (column {column!r} was read): {_few(absent)}.",
            "Add them to the file, or withhold them with --exclude-groups.",
        )
    for split in ("train", "test"):
        if split not in splits.values():
            raise UsageError(
                f"{csv_path} has no {split} group.", "A published split needs train and test at least."
            )
