"""The raw images of a prediction: any folder of PNG and TIFF files; what the data set's layout says of them is used.

Prediction asks less than ingest: an image without label, group or layout is predicted all the same (Kaggle's `test/`
is such a folder), under its file stem as patch id.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.base import Adapter, DiscoverOptions, largest_file
from components.adapters.group_files import read_groups_csv
from components.adapters.listing import IMAGE_EXTENSIONS, list_images
from components.adapters.patch_index import ABSENT_NUMBER
from components.adapters.registry import ADAPTERS
from components.adapters.repeated_ids import reject_repeated_ids
from components.adapters.sieve import Sieve
from components.core import arrow_arrays
from components.errors import UsageError
from components.prediction.plan import UNKNOWN_LABEL

_STEM = r"(?s)^(?:.*/)?(?P<patch_id>[^/]+)\.[^./]*$"
_TEXTS, _NUMBERS = ("group_id", "slide_id"), ("label", "x", "y")


@dataclasses.dataclass(frozen=True)
class Found:
    """Images under a folder.

    Attributes:
        patches: Columns path, size, version, patch_id, group_id, slide_id, label, x and y, sorted by path; what is
            unknown is empty or -1.
        rejects: Rows of `REJECT_SCHEMA`: files that are not even read.
        warnings: Sentences.
    """

    patches: pa.Table
    rejects: pa.Table
    warnings: list[str]


def find_images(
    root: str,
    adapter_name: str,
    task: str,
    groups_csv: Path | None = None,
    *,
    source_size: tuple[int, int] | None = None,
) -> Found:
    """Lists a folder and tells what is known of each image.

    Args:
        root: Folder or gs:// prefix.
        adapter_name: Adapter of the model's data set; an unknown one tells nothing.
        task: Of the model.
        groups_csv: Patch ids and their patients or slides, where the folder does not tell.
        source_size: (width, height) in pixels of a regular image; files that are larger than any such image are
            rejected by size. None: not asked.

    Raises:
        UsageError: No such folder, or no image in it.
    """
    listing = list_images(root, IMAGE_EXTENSIONS)
    if not len(listing.files) and not listing.rejects:
        raise UsageError(
            f"There are no PNG or TIFF images under {root!r}.",
            "Give a folder with images, or that of a committed data set (it holds manifest.json).",
        )
    warnings = list(listing.warnings)
    sieve = Sieve(listing)
    if source_size is not None:
        sieve.reject_large(largest_file(source_size))
    sieve.parse_paths(_STEM)
    reject_repeated_ids(sieve)
    known = None
    if adapter_name in ADAPTERS:
        known = _known(ADAPTERS[adapter_name], root, task, sieve.table["path"], warnings)
    _join(sieve, known)
    if groups_csv is not None:
        _map_groups(sieve, groups_csv)
    return Found(sieve.table.combine_chunks(), sieve.reject_table(), warnings)


def _known(adapter: Adapter, root: str, task: str, paths: pa.ChunkedArray, warnings: list[str]) -> pa.Table | None:
    """What the adapter finds in its own layout; None where the folder is in another one."""
    if not len(paths) or not pc.any(adapter.matches(paths)).as_py():
        return None
    try:
        return adapter.discover(root, DiscoverOptions(task=task)).patches
    except UsageError:
        pass
    try:
        # Where nothing names the patient (PCam), labels are still of use.
        found = adapter.discover(root, DiscoverOptions(task=task, group_by="image")).patches
    except UsageError as error:
        warnings.append(f"Labels and groups are unknown: {error.what}")
        return None
    index = found.schema.get_field_index("group_id")
    return found.set_column(index, "group_id", arrow_arrays.repeat("", len(found), pa.string()))


def _join(sieve: Sieve, known: pa.Table | None) -> None:
    count = len(sieve.table)
    at = None
    if known is not None:
        at = pc.index_in(sieve.table["path"].combine_chunks(), value_set=known["path"].combine_chunks())
    for name in (*_TEXTS, *_NUMBERS):
        absent: str | int = "" if name in _TEXTS else UNKNOWN_LABEL if name == "label" else ABSENT_NUMBER
        kind = pa.string() if name in _TEXTS else pa.int32()
        column = arrow_arrays.repeat(absent, count, kind)
        if at is not None and known is not None:
            column = pc.coalesce(known[name].combine_chunks().take(at), column)
        sieve.set(name, column)


def _map_groups(sieve: Sieve, file: Path) -> None:
    mapping = read_groups_csv(file)
    at = pc.index_in(sieve.table["patch_id"].combine_chunks(), value_set=mapping.patch_ids)
    if at.null_count == len(at):
        raise UsageError(f"{str(file)!r} names none of the {len(at)} images.", "Its ids must be file stems.")
    groups, slides = mapping.groups.take(at), mapping.slides.take(at)
    if mapping.unit == "slide":
        slides = groups
    for name, column in (("group_id", groups), ("slide_id", slides)):
        empty = pc.equal(pc.fill_null(column, ""), "")
        sieve.set(name, pc.if_else(empty, sieve.table[name].combine_chunks(), column))


def known_labels(patches: pa.Table) -> int:
    """How many of the patches have a label."""
    return int(np.count_nonzero(arrow_arrays.values(patches["label"]) >= 0))
