"""What the adapters share: sorting rows of an Arrow table into patches and rejects, column by column."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import schemas
from components.adapters.base import Adapter, DiscoverOptions
from components.adapters.listing import Listing, list_images
from components.core import arrow_arrays
from components.core.rejects import REJECT_KINDS, REJECT_SCHEMA
from components.errors import UsageError


class Sieve:
    """A table that loses rows to rejects: every row that enters ends in exactly one of the two.

    Attributes:
        table: The rows that are left.
        rejects: Tables of `REJECT_SCHEMA`.
    """

    def __init__(self, listing: Listing) -> None:
        self.table = listing.files
        self.rejects: list[pa.Table] = []
        for path, code, detail in listing.rejects:
            self._add([path], code, [detail])

    def reject(self, mask: Any, code: str, detail: Any) -> int:
        """Moves rows to the rejects.

        Args:
            mask: Boolean array over `table`; null counts as false.
            code: A key of `REJECT_KINDS`.
            detail: A sentence, or a string array over `table`.

        Returns:
            How many rows were moved.
        """
        mask = arrow_arrays.numbers(mask) if isinstance(mask, np.ndarray) else mask
        if mask.null_count:
            mask = pc.and_kleene(pc.is_valid(mask), mask)
        count = pc.sum(mask).as_py() or 0
        if count:
            lost = pc.filter(self.table["path"], mask)
            self._add(lost, code, [detail] * count if isinstance(detail, str) else pc.filter(detail, mask))
            self.table = pc.filter(self.table, pc.invert(mask))
        return count

    def reject_large(self, limit: int) -> int:
        """Moves files that are larger than any image of the data set to the rejects, by size alone.

        Args:
            limit: Bytes, as `largest_file` gives it.
        """
        sizes = self.table["size"]
        reason = f"bytes, more than the {limit} of any image"
        detail = pc.binary_join_element_wise(pc.cast(sizes, pa.string()), reason, " ")
        return self.reject(pc.greater(sizes, limit), "bomb", detail)

    def set(self, name: str, column: Any) -> None:
        """Adds or replaces a column."""
        if name in self.table.column_names:
            self.table = self.table.drop([name])
        self.table = self.table.append_column(name, column)

    def parse_paths(self, pattern: str, plain: str = "") -> None:
        """Adds the named groups of a regular expression (RE2) as columns, null where a path doesn't match.

        Args:
            pattern: The expression.
            plain: One that matches less but means the same, with no choice to be made at any character: RE2 is then
                three times as fast. Only paths that it does not match are tried with `pattern`.
        """
        paths = self.table["path"].combine_chunks()
        found = extract(paths, plain or pattern)
        columns = dict(zip((field.name for field in found.type), found.flatten(), strict=True))
        left = pc.is_null(found)
        if plain and pc.any(left).as_py():
            second = extract(pc.filter(paths, left), pattern)
            others = dict(zip((field.name for field in second.type), second.flatten(), strict=True))
            columns = {name: pc.replace_with_mask(columns[name], left, others[name]) for name in columns}
        for name, column in columns.items():
            self.set(name, column)

    def reject_table(self) -> pa.Table:
        """All rejects, sorted by path."""
        self._add([], "bad_name", [])  # so that there is a table at all
        table = pa.concat_tables(self.rejects)
        return pc.take(table, pc.sort_indices(table["path"])).combine_chunks()

    def _add(self, paths: Any, code: str, details: Any) -> None:
        count = len(paths)
        columns = {"path": paths, "code": [code] * count, "kind": [REJECT_KINDS[code]] * count, "detail": details}
        self.rejects.append(arrow_arrays.table(columns, REJECT_SCHEMA))


def extract(values: Any, pattern: str) -> pa.StructArray:
    """Named groups of a regular expression (RE2) as string fields; null where it does not match."""
    found = pc.extract_regex(values, pattern=pattern)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def numbers(values: Any) -> pa.Array:
    """Decimal strings as int32; null stays null."""
    return pc.cast(values, pa.int32())


def constant(value: Any, count: int, kind: pa.DataType) -> pa.Array:
    """A column that holds one value."""
    return arrow_arrays.repeat(value, count, kind)


@functools.cache
def task_names(dataset: str) -> tuple[str, ...]:
    """Tasks of a data set, as schemas/classes.json names them."""
    return tuple(schemas.load_json("classes.json")[dataset])


def class_names(dataset: str, task: str) -> tuple[str, ...]:
    """Class names of a task in label order.

    Raises:
        UsageError: The data set has no such task.
    """
    if task not in task_names(dataset):
        known = ", ".join(task_names(dataset))
        raise UsageError(f"{dataset} has no task {task!r}.", f"Its tasks: {known}.")
    return schemas.classes(dataset, task)


def begin(adapter: Adapter, root: str, options: DiscoverOptions, magnifications: tuple[int, ...]) -> Listing:
    """Checks the options, lists the folder and proves that it is in the adapter's layout at all.

    Args:
        adapter: The adapter.
        root: Folder or gs:// prefix.
        options: What the user asked for.
        magnifications: Those that the data set has; empty where it knows none.

    Raises:
        UsageError: Impossible options, no images, or no image in the adapter's layout.
    """
    adapter.classes(options.task)
    if options.group_by not in ("", "image"):
        raise UsageError(f"Cannot group by {options.group_by!r}.", "The only choice is `image`.")
    if options.group_by and options.groups:
        raise UsageError("--group-by image and --groups-csv contradict each other.", "Give one of them.")
    if options.unmapped not in ("reject", "train"):
        raise UsageError(f"Unmapped patches cannot be treated as {options.unmapped!r}.", "Say `reject` or `train`.")
    if options.unmapped == "train" and not options.groups:
        raise UsageError("--unmapped train says what to do with patches that --groups-csv leaves out.", "Give both.")
    if options.max_per_class < 0:
        raise UsageError(f"--max-per-class is {options.max_per_class}.", "Give a positive number, or 0 for no cap.")
    if unknown := sorted(set(options.magnifications) - set(magnifications)):
        known = f"It has {', '.join(map(str, magnifications))}." if magnifications else "It has one magnification only."
        raise UsageError(f"{adapter.name} has no magnification {unknown[0]}.", known)
    listing = list_images(root, adapter.extensions)
    if not len(listing.files) or not pc.any(adapter.matches(listing.files["path"])).as_py():
        raise _wrong_layout(adapter, root, listing)
    return listing


class WrongLayout(UsageError):
    """No image lies where the adapter expects them.

    Args:
        what: As in `HistolineError`.
        fix: Likewise.
        paths: Some of the image paths that were found instead.
    """

    def __init__(self, what: str, fix: str = "", paths: Sequence[str] = ()) -> None:
        super().__init__(what, fix)
        self.paths = tuple(paths)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.what, self.fix, self.paths))


def _wrong_layout(adapter: Adapter, root: str, listing: Listing) -> WrongLayout:
    """Says what was expected."""
    expected = f"{adapter.name} expects {adapter.layout}."
    paths = listing.files["path"].to_pylist()[:1000] + [path for path, _, _ in listing.rejects[:1000]]
    if not paths:
        others = f", only {listing.ignored} other files" if listing.ignored else ""
        return WrongLayout(f"There are no PNG or TIFF images under {root!r}{others}.", expected)
    return WrongLayout(
        f"No image under {root!r} is in the layout of {adapter.name}: the first is {paths[0]!r}.", expected, paths
    )
