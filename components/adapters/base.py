"""What a data set must say of itself, and nothing more: a fourth data set is one new file beside this one."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import pyarrow as pa

from components.adapters.group_files import GroupMapping


@dataclasses.dataclass(frozen=True)
class DiscoverOptions:
    """What the user may say about discovery; all of it is part of PLAN_ID.

    Attributes:
        task: `binary` or `subtype`.
        groups: Groups of patches that replace the adapter's own (`--groups-csv`).
        unmapped: `reject` (code `no_group`) or `train` for patches that `groups` does not name.
        group_by: Empty for the adapter's own unit, `image` where each patch is its own group.
        magnifications: Keep these only (empty: all); the rest is `filtered`.
        max_per_class: Cap per class, spread over groups deterministically; the rest is `over_cap`. 0: none.
        exclude_groups: Groups that must never be written (`excluded_group`).
        seed: Seed of the deterministic choice under `max_per_class`.
    """

    task: str = "binary"
    groups: GroupMapping | None = None
    unmapped: str = "reject"
    group_by: str = ""
    magnifications: tuple[int, ...] = ()
    max_per_class: int = 0
    exclude_groups: frozenset[str] = frozenset()
    seed: int = 0


@dataclasses.dataclass
class Discovery:
    """What discovery found under the input folder.

    Attributes:
        patches: Rows of `INDEX_SCHEMA`, sorted by path: what is to be written.
        rejects: Rows of `REJECT_SCHEMA`, sorted by path: found but not to be written.
        group_counts: Group -> patches per class over *all* labelled patches that have a group, before
            filters, caps and exclusions. The split ledger is planned over these.
        group_unit: `patient`, `slide` or `image`.
        unmapped_groups: Groups that `--unmapped train` made up; they may be in train only.
        ids_without_file: Ids named by a label CSV for which there is no file.
        ignored: Number of files that are no images of this data set by extension (csv, txt, ...).
        warnings: Sentences for the summary and the manifest.
        fingerprint: `Listing.fingerprint` of the folder.
        drawn: `Listing.drawn` of the folder.
    """

    patches: pa.Table
    rejects: pa.Table
    group_counts: dict[str, list[int]]
    group_unit: str
    unmapped_groups: frozenset[str] = frozenset()
    ids_without_file: list[str] = dataclasses.field(default_factory=list)
    ignored: int = 0
    warnings: list[str] = dataclasses.field(default_factory=list)
    fingerprint: str = ""
    drawn: bool = False

    @property
    def found(self) -> int:
        """Number of image files found; always written + rejected."""
        return len(self.patches) + len(self.rejects)


def largest_file(source_size: tuple[int, int]) -> int:
    """Bytes beyond which a file is no image of a data set: four 16-bit samples a pixel, and 8 MiB for all else.

    Args:
        source_size: (width, height) in pixels of a regular source image.
    """
    width, height = source_size
    return 8 * width * height + (8 << 20)


class Adapter(Protocol):
    """A data set's layout.

    Attributes:
        name: Name on the command line.
        title: One line for people.
        layout: The folder layout in a few words, for messages.
        extensions: Lower-case file extensions that count as images of the data set.
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels as stored by default; source_size divided by an integer.
        label_region: (left, top, width, height) in source pixels that the label speaks of; None: all of it.
        group_unit: `patient` or `slide`; what `group_id` is without a groups CSV.
        microns_per_pixel: Of the source image, None where unknown or dependent on magnification.
    """

    name: str
    title: str
    layout: str
    extensions: frozenset[str]
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    label_region: tuple[int, int, int, int] | None
    group_unit: str
    microns_per_pixel: float | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the labels allow."""

    def classes(self, task: str) -> tuple[str, ...]:
        """Class names in label order; raises UsageError for an unknown task."""

    def matches(self, paths: pa.Array) -> pa.Array:
        """Whether each path is in this data set's layout, as booleans; used to name the right adapter."""

    def discover(self, root: str, options: DiscoverOptions) -> Discovery:
        """Lists the folder once and sorts every image file into patches or rejects.

        Raises:
            UsageError: The folder is missing or unreadable, or holds no image in this data set's layout.
        """
