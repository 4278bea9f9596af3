"""PatchCamelyon as Kaggle's histopathologic-cancer-detection: 96x96 patches of lymph node sections.

Sources: Veeling et al. 2018 (MICCAI, arXiv:1806.03962), from Camelyon16 (Bejnordi et al. 2017, JAMA).
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.base import DiscoverOptions, Discovery
from components.adapters.finish import finish
from components.adapters.group_files import csv_rows, find_column, patch_key
from components.adapters.listing import read_file
from components.adapters.sieve import Sieve, begin, class_names, task_names
from components.core import arrow_arrays
from components.errors import UsageError

LABELS_FILE = "train_labels.csv"

_PATH = r"(?s)^(?P<above>(?:.*/)?)(?P<part>train|test)/(?P<patch_id>[^/]+)\.(?i:tiff?)$"


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a label CSV says.

    Attributes:
        label: Label of each id that has one.
        conflicting: Ids that bear both labels.
        repeated: Lines that say again what a line before them said.
    """

    label: dict[str, int]
    conflicting: frozenset[str]
    repeated: int


class PCam:
    """Adapter of PCam; the contract is `base.Adapter`."""

    name = "pcam"
    title = "PatchCamelyon (Kaggle histopathologic-cancer-detection), 220,025 labelled patches of 96x96"
    layout = f"train/ID.tif, {LABELS_FILE} beside train/, and optionally test/ID.tif"
    extensions = frozenset({".tif", ".tiff"})
    source_size = (96, 96)
    stored_size = (96, 96)
    # Positive means tumour tissue in the centre 32x32 (Veeling et al. 2018); around it is context only.
    label_region: tuple[int, int, int, int] | None = (32, 32, 32, 32)
    group_unit = "slide"
    microns_per_pixel: float | None = 0.972  # 10x, from 0.243 um at the scan's full resolution (Veeling et al. 2018)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the labels allow."""
        return task_names(self.name)

    def classes(self, task: str) -> tuple[str, ...]:
        """Class names in label order."""
        return class_names(self.name, task)

    def matches(self, paths: pa.Array) -> pa.Array:
        """Whether each path is in the layout."""
        return pc.match_substring_regex(paths, _PATH)

    def discover(self, root: str, options: DiscoverOptions) -> Discovery:
        """Lists the folder once; see `base.Adapter`.

        Raises:
            UsageError: Besides what every adapter raises: no label CSV, a wrong one, or nothing says which
                patches belong together.
        """
        if not options.groups and not options.group_by:
            raise UsageError(
                "PCam names neither patient nor slide, so nothing says which patches may not be split.",
                "Give --groups-csv FILE with columns id and slide (or patient); or, knowing that the splits "
                "are then not patient-clustered, --group-by image.",
            )
        listing = begin(self, root, options, magnifications=())
        sieve = Sieve(listing)
        sieve.parse_paths(_PATH)
        sieve.reject(pc.is_null(sieve.table["patch_id"]), "bad_name", f"expected {self.layout}")
        above = pc.unique(sieve.table["above"]).to_pylist()
        # Files in test/ have no published label, and a CSV that names one of them speaks of train/ID.
        sieve.reject(pc.equal(sieve.table["part"], "test"), "unlabelled", "in test/, which has no labels")
        labels = _labels(root, sorted(above, key=lambda folder: (folder.count("/"), folder)))

        ids = sieve.table["patch_id"].combine_chunks()
        named = arrow_arrays.strings([*labels.label, *labels.conflicting])
        absent = sorted(named.filter(pc.invert(pc.is_in(named, value_set=ids))).to_pylist())
        warnings = []
        if labels.repeated:
            warnings.append(f"{LABELS_FILE} says {labels.repeated} labels more than once.")
        if absent:
            warnings.append(f"{LABELS_FILE} names {len(absent)} ids without a file in train/.")
        conflicting = pc.is_in(ids, value_set=arrow_arrays.strings(sorted(labels.conflicting)))
        sieve.reject(conflicting, "label_conflict", f"{LABELS_FILE} gives it both labels")
        known = arrow_arrays.strings(labels.label)
        values = arrow_arrays.numbers(list(labels.label.values()), pa.int32())
        sieve.set("label", values.take(pc.index_in(sieve.table["patch_id"].combine_chunks(), value_set=known)))
        sieve.reject(pc.is_null(sieve.table["label"]), "unlabelled", f"not in {LABELS_FILE}")
        discovery = finish(sieve, self, options, listing, warnings)
        discovery.ids_without_file = absent
        return discovery


def _labels(root: str, folders: list[str]) -> Labels:
    """Reads the label CSV that lies highest in the input folder."""
    for folder in folders:
        data = read_file(root, folder + LABELS_FILE)
        if data is not None:
            return parse_labels(data, folder + LABELS_FILE)
    raise UsageError(
        f"There is no {LABELS_FILE} beside train/ under {root!r}.",
        "Give the folder that holds both, as downloaded.",
    )


def parse_labels(data: bytes, name: str) -> Labels:
    """Parses a label CSV with the columns id and label.

    Args:
        data: Content of the file.
        name: Name for messages.

    Raises:
        UsageError: A column is missing, an id is empty, or a label is not 0 or 1.
    """
    rows = csv_rows(data, name)
    _, header = next(rows, (1, []))
    id_column, label_column = find_column(header, ("id",), name), find_column(header, ("label",), name)
    if id_column is None or label_column is None:
        raise UsageError(
            f"{name!r} has the columns {', '.join(header) or '(none)'}.", "Its first line must be `id,label`."
        )
    values = {"0": 0, "1": 1}
    label: dict[str, int] = {}
    conflicting: set[str] = set()
    repeated = 0
    for line, row in rows:
        if len(row) <= max(id_column, label_column) or row[label_column] not in values:
            cell = row[label_column] if len(row) > label_column else ""
            raise UsageError(f"{name!r}, line {line}: the label is {cell!r}.", "It must be 0 or 1.")
        key, value = patch_key(row[id_column]), values[row[label_column]]
        if not key:
            raise UsageError(f"{name!r}, line {line}: no id.", "Fill it in or delete the line.")
        if key not in label:
            label[key] = value
        elif label[key] == value:
            repeated += 1
        else:
            conflicting.add(key)
    return Labels(
        {key: value for key, value in label.items() if key not in conflicting},
        frozenset(conflicting),
        repeated,
    )
