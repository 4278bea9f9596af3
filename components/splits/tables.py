"""What people read of a split: tables, warnings, and the error of a class that cannot be in every split."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from components.core.array_types import Bools, Integers
from components.core.text import plural
from components.errors import DataError
from components.splits.ledger import Ledger
from schemas.tables import SPLITS

TOO_FEW_TEST_GROUPS = 5  # below this the gate can form no interval
_MAX_OFF = 0.05  # a split's share of patches may miss its target by this much without a warning
_DOMINANT = 1 / 3


class Infeasible(Exception):
    """The best placement found still lacks a class somewhere.

    Args:
        counts: int64 [groups, classes].
        placed: int64 [groups], bin of each group.
        fixed: int64 [groups], bin of the groups that may not move, -1 for the others.
        missing: bool [classes, bins].
        bins: Names of the bins.
    """

    def __init__(
        self,
        counts: Integers,
        placed: Integers,
        fixed: Integers,
        missing: Bools,
        bins: Sequence[str],
    ) -> None:
        super().__init__()
        self.counts, self.placed, self.fixed, self.missing, self.bins = counts, placed, fixed, missing, bins

    def shortage(self) -> Integers:
        """Int64 [classes]: how many further groups a class needs; 0 where its own groups would do."""
        present = self.counts > 0
        settled = np.stack(
            [present[self.fixed == bin_].any(axis=0) for bin_ in range(len(self.bins))], axis=1
        )
        free = present[self.fixed < 0].sum(axis=0)
        return np.where(self.missing.any(axis=1), np.maximum((~settled).sum(axis=1) - free, 0), 0)

    def blamed(self) -> list[int]:
        """Classes that have to give way: those that lack groups, else the rarest that is missing."""
        short = np.flatnonzero(self.shortage())
        if len(short):
            return [int(index) for index in short]
        groups = (self.counts > 0).sum(axis=0)
        return [int(min(np.flatnonzero(self.missing.any(axis=1)), key=lambda index: (groups[index], index)))]


def class_counts(
    group_counts: Mapping[str, Sequence[int]], names: Sequence[str], classes: Sequence[str]
) -> Integers:
    """Counts of the named groups as int64 [groups, classes].

    Raises:
        ValueError: A row does not have one non-negative number for each class, or a group id is empty.
    """
    rows = [group_counts[name] for name in names]
    wrong = next(
        (name for name, row in zip(names, rows, strict=True) if len(row) != len(classes) or not name), None
    )
    if wrong is not None:
        raise ValueError(
            f"group {wrong!r} does not have one count for each of {len(classes)} classes, or no name"
        )
    counts = np.array(rows, dtype=np.int64).reshape(len(names), len(classes))
    if (counts < 0).any():
        raise ValueError("negative patch counts")
    return counts


def feasibility_table(trouble: Infeasible, classes: Sequence[str], group_unit: str) -> str:
    """Per class: patches, groups, groups in each split of the best placement found, and what is missing."""
    present = trouble.counts > 0
    shortage = trouble.shortage()
    rows = []
    for index, name in enumerate(classes):
        note = ""
        if shortage[index]:
            note = f"needs {plural(int(shortage[index]), group_unit)} more"
        elif trouble.missing[index].any():
            note = f"its {group_unit}s are needed elsewhere for other classes"
        cells = [int(present[trouble.placed == bin_, index].sum()) for bin_ in range(len(trouble.bins))]
        patches, groups = int(trouble.counts[:, index].sum()), int(present[:, index].sum())
        rows.append([name, f"{patches:,}", f"{groups:,}", *(f"{cell:,}" for cell in cells), note])
    return _aligned([["class", "patches", f"{group_unit}s", *trouble.bins, "missing"], *rows], notes=True)


class InfeasibleError(DataError):
    """Groups that cannot be split as asked; tells ingest's ways out, others name their own."""


def infeasible_error(trouble: Infeasible, classes: Sequence[str], group_unit: str) -> InfeasibleError:
    """Error with the feasibility table and the three ways out."""
    names = [classes[index] for index in np.flatnonzero(trouble.missing.any(axis=1))]
    where = (
        " and ".join([", ".join(trouble.bins[:-1]), trouble.bins[-1]])
        if len(trouble.bins) <= 3
        else f"each of {len(trouble.bins)} folds"
    )
    settled = " A group that has its place in a ledger or a published split never moves."
    settled = settled if (trouble.fixed >= 0).any() else ""
    table = feasibility_table(trouble, classes, group_unit)
    return InfeasibleError(
        f"{plural(len(trouble.placed), group_unit)} cannot be split so that every class is in {where}; "
        f"not everywhere: {', '.join(names)}.{settled}\n\n{table}\n\n",
        "Add data, or choose: --on-infeasible train-only (these classes are learnt but not measured), "
        "--on-infeasible drop-class (their patches are left out), "
        "--on-infeasible fail (this error, the default).",
    )


def nothing_left_error(
    classes: Sequence[str], counts: Integers, group_unit: str, on_infeasible: str
) -> DataError:
    """Error for data of which fewer than two classes could be measured."""
    groups = (counts > 0).sum(axis=0)
    pairs = zip(classes, groups.tolist(), strict=True)
    held = ", ".join(f"{name} in {plural(number, group_unit)}" for name, number in pairs)
    return DataError(
        f"{plural(len(counts), group_unit)} cannot be split: with --on-infeasible {on_infeasible} fewer than "
        f"two classes would be left in every split ({held}).",
        f"Each of two classes needs at least three {group_unit}s: add data.",
    )


def split_table(
    splits: Mapping[str, str], group_counts: Mapping[str, Sequence[int]], classes: Sequence[str]
) -> str:
    """Patches with their share, and groups, by class and split, of the groups in the data."""
    patches, groups = totals(splits, group_counts, classes)
    rows = [["class", *(f"{split} {what}" for split in SPLITS for what in ("patches", "groups"))]]
    for index, name in enumerate([*classes, "all"]):
        whole = max(int(patches[index].sum()), 1)
        cells = []
        for bin_ in range(len(SPLITS)):
            cells.append(f"{int(patches[index, bin_]):,} ({patches[index, bin_] / whole:.1%})")
            cells.append(f"{int(groups[index, bin_]):,}")
        rows.append([name, *cells])
    return _aligned(rows)


def totals(
    splits: Mapping[str, str], group_counts: Mapping[str, Sequence[int]], classes: Sequence[str]
) -> tuple[Integers, Integers]:
    """Patches and groups, each int64 [classes + 1, 3]; the last row is over all classes."""
    names = list(group_counts)
    counts = class_counts(group_counts, names, classes)
    where = np.array([SPLITS.index(splits[name]) for name in names], dtype=np.int64)
    patches, groups = (np.zeros((len(classes) + 1, len(SPLITS)), np.int64) for _ in range(2))
    for bin_ in range(len(SPLITS)):
        here = counts[where == bin_]
        patches[:-1, bin_], groups[:-1, bin_] = here.sum(axis=0), (here > 0).sum(axis=0)
        patches[-1, bin_], groups[-1, bin_] = here.sum(), len(here)
    return patches, groups


def split_warnings(
    ledger: Ledger,
    group_counts: Mapping[str, Sequence[int]],
    classes: Sequence[str],
    train_only_classes: Collection[str],
    extra: frozenset[str],
) -> list[str]:
    """Sentences about a split that is legal but weak; `extra` groups are outside the ratios."""
    unit, warnings = ledger.group_unit, []
    counted = {group: row for group, row in group_counts.items() if group not in extra}
    patches = totals(ledger.splits, counted, classes)[0]
    whole = int(patches[-1].sum())
    for bin_, split in enumerate(SPLITS):
        share, target = patches[-1, bin_] / max(whole, 1), ledger.ratios[bin_]
        if whole and (abs(share - target) > _MAX_OFF or share < target / 2):
            warnings.append(f"{split} holds {share:.1%} of the patches; the target is {target:.1%}.")
    largest = max(counted, key=lambda group: (int(sum(counted[group])), group), default=None)
    if largest is not None and sum(counted[largest]) > _DOMINANT * whole:
        share, place = sum(counted[largest]) / whole, ledger.splits[largest]
        warnings.append(f"One {unit} ({largest!r}, in {place}) holds {share:.1%} of the patches.")
    groups = totals(ledger.splits, group_counts, classes)[1]
    few = []
    for index, name in enumerate(classes):
        tested = int(groups[index, SPLITS.index("test")])
        if name in train_only_classes and groups[index, 1:].any():
            warnings.append(f"Class {name!r} stays in eval or test where a {unit} already had its place.")
        elif name not in train_only_classes and tested < TOO_FEW_TEST_GROUPS:
            few.append(f"{name} ({tested})")
    if few:
        warnings.append(
            f"test holds fewer than {TOO_FEW_TEST_GROUPS} {unit}s, too few for an interval by class, "
            f"of: {', '.join(few)}."
        )
    return warnings


def _aligned(rows: Sequence[Sequence[str]], notes: bool = False) -> str:
    """Columns side by side: names and notes flush left, numbers flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        if notes:
            cells[-1] = row[-1]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
