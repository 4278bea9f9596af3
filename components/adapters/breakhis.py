"""BreakHis: breast tumours at four magnifications, 700x460, eight types.

Source: Spanhol et al. 2016 (IEEE TBME 63:1455). Names are `SOB_{B,M}_{type}-YEAR-CASE-MAGNIFICATION-SEQ.png`.
"""

from __future__ import annotations

import functools
import re

import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.base import DiscoverOptions, Discovery
from components.adapters.finish import finish
from components.adapters.sieve import Sieve, begin, class_names, numbers, task_names
from components.core import arrow_arrays

MAGNIFICATIONS = (40, 100, 200, 400)

TYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
"""Class name of each tumour type code; the first four are benign."""

_BENIGN = "A|F|PT|TA"
_MALIGNANT = "DC|LC|MC|PC"
# The original project wrote names without underscores, so they are optional.
_PATH = (
    r"(?s)^(?P<folder>(?:.*/)?)"
    rf"(?P<patch_id>SOB_?(?:B_?(?P<benign>{_BENIGN})|M_?(?P<malignant>{_MALIGNANT}))"
    r"-(?P<year>[0-9]{2})-(?P<digits>[0-9]+)(?P<part>[A-Za-z]*)-(?P<magnification>40|100|200|400)-[0-9]+)\.(?i:png)$"
)
_CASE_FOLDER = re.compile(rf"SOB_?[BM]_?(?P<type>{_BENIGN}|{_MALIGNANT})[_-](?P<case>[0-9]{{2}}-[0-9]+[A-Za-z]*)")
_CODES = {name: code for code, name in TYPES.items()}
_SCALE_FOLDER = re.compile(r"(40|100|200|400)x")


class BreakHis:
    """Adapter of BreakHis; the contract is `base.Adapter`."""

    name = "breakhis"
    title = "BreakHis, 7,909 images of 700x460 at 40x to 400x, eight tumour types"
    layout = "SOB_{B,M}_{type}-YEAR-CASE-MAGNIFICATION-SEQ.png in any folders (that agree with the name)"
    extensions = frozenset({".png"})
    source_size = (700, 460)
    stored_size = (350, 230)
    label_region: tuple[int, int, int, int] | None = None
    group_unit = "patient"
    microns_per_pixel: float | None = None  # depends on the magnification

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

        The group is year and digits of the case: letters after them (22549AB, 22549CD) name parts of one
        accession, and one case may show two types (14-13412, 14-29960, 14-21998).
        """
        listing = begin(self, root, options, MAGNIFICATIONS)
        sieve = Sieve(listing)
        sieve.parse_paths(_PATH)
        unknown = pc.is_null(sieve.table["patch_id"])
        sieve.reject(unknown, "bad_name", "expected a name such as SOB_B_TA-14-4659-40-001.png")
        table = sieve.table
        benign = pc.not_equal(table["benign"], "")
        group = pc.binary_join_element_wise(table["year"], table["digits"], "-")
        sieve.set("tumor_type", pc.if_else(benign, table["benign"], table["malignant"]))
        sieve.set("group_id", group)
        sieve.set("slide_id", pc.binary_join_element_wise(group, table["part"], ""))
        sieve.set("magnification", numbers(table["magnification"]))
        _reject_contradictions(sieve)
        self._set_label(sieve, options.task)
        return finish(sieve, self, options, listing, [])

    def _set_label(self, sieve: Sieve, task: str) -> None:
        names = self.classes(task)
        if task == "binary":
            of_type = [names.index("benign" if code in _BENIGN.split("|") else "malignant") for code in TYPES]
        else:
            of_type = [names.index(name) for name in TYPES.values()]
        at = pc.index_in(sieve.table["tumor_type"], value_set=arrow_arrays.strings(TYPES))
        sieve.set("label", arrow_arrays.numbers(of_type, pa.int32()).take(at))


def _reject_contradictions(sieve: Sieve) -> None:
    """Rejects images whose folders say another class, case or magnification than their name."""
    # Row by row: this data set is small, and its folders are far fewer than its files.
    columns = ("folder", "tumor_type", "slide_id", "magnification")
    rows = zip(*(sieve.table[name].to_pylist() for name in columns), strict=True)
    found = [_contradiction(*row) for row in rows]
    details = arrow_arrays.strings([detail for _, detail in found])
    for code in ("class_mismatch", "bad_name"):
        mask = arrow_arrays.numbers([found_code == code for found_code, _ in found], pa.bool_())
        sieve.reject(mask, code, details)
        details = details.filter(pc.invert(mask))
        found = [row for row in found if row[0] != code]


@functools.lru_cache(maxsize=1 << 16)
def _contradiction(folder: str, tumor_type: str, case: str, magnification: int) -> tuple[str, str]:
    """(code, detail) of the first folder that contradicts a file name; empty strings where none does."""
    is_benign = tumor_type in _BENIGN.split("|")
    for part in folder.split("/"):
        word = re.sub("[ -]", "_", part.lower()).replace("tumour", "tumor")
        case_folder = _CASE_FOLDER.fullmatch(part)
        folder_type = case_folder["type"] if case_folder else _CODES.get(word, tumor_type)
        if folder_type != tumor_type or word == ("malignant" if is_benign else "benign"):
            return "class_mismatch", f"the folder {part!r} says another class than the file name"
        if case_folder and case_folder["case"].upper() != case.upper():
            return "bad_name", f"the folder {part!r} says another case than the file name"
        if (scale := _SCALE_FOLDER.fullmatch(word)) and int(scale[1]) != magnification:
            return "bad_name", f"the folder {part!r} says another magnification than the file name"
    return "", ""
