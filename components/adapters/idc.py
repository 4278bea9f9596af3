"""Breast Histopathology Images: invasive ductal carcinoma in 50x50 patches of whole slides.

Sources: Cruz-Roa et al. 2014 (SPIE 9041), Janowczyk and Madabhushi 2016 (J Pathol Inform 7:29).
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.base import DiscoverOptions, Discovery
from components.adapters.finish import finish
from components.adapters.sieve import Sieve, begin, class_names, numbers, task_names

# Coordinates beyond nine digits would not fit into int32; no slide is that wide.
_REST = r"_idx[0-9]+_x(?P<x>[0-9]{1,9})_y(?P<y>[0-9]{1,9})_class(?P<label>[01]))\.(?i:png)$"
_FOLDERS = r"(?P<folder>[^/]+)/(?P<class_folder>[01])/"
_PATH = rf"(?s)^(?:.*/)?{_FOLDERS}(?P<patch_id>(?P<group_id>[^/]+){_REST}"
_PLAIN_PATH = rf"(?s)^{_FOLDERS}(?P<patch_id>(?P<group_id>[^/_]+){_REST}"


class Idc:
    """Adapter of the IDC patches; the contract is `base.Adapter`."""

    name = "idc"
    title = "Breast Histopathology Images (IDC), 277,524 patches of 50x50"
    layout = "PATIENT/{0,1}/PATIENT_idx5_xX_yY_classC.png"
    extensions = frozenset({".png"})
    source_size = (50, 50)
    stored_size = (50, 50)
    label_region: tuple[int, int, int, int] | None = None
    group_unit = "patient"
    # Slides were scanned at 40x and read at a 16th of that (Cruz-Roa 2014: 4 um); the public archive of 50x50
    # patches does not state its own scale, so none is claimed.
    microns_per_pixel: float | None = None

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
        """Lists the folder once; see `base.Adapter`."""
        listing = begin(self, root, options, magnifications=())
        sieve = Sieve(listing)
        sieve.parse_paths(_PATH, _PLAIN_PATH)
        sieve.reject(pc.is_null(sieve.table["patch_id"]), "bad_name", f"expected {self.layout}")
        # Each mask is made from the rows that the rejects before it left.
        table = sieve.table
        two_patients = pc.not_equal(table["folder"], table["group_id"])
        sieve.reject(two_patients, "bad_name", "the folder and the file name say different patients")
        table = sieve.table
        two_classes = pc.not_equal(table["class_folder"], table["label"])
        sieve.reject(two_classes, "class_mismatch", "the folder and the file name say different classes")
        for name in ("label", "x", "y"):
            sieve.set(name, numbers(sieve.table[name]))
        return finish(sieve, self, options, listing, [])
