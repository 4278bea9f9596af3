"""Plans which group goes into which split: stratified, disjoint by group, and stable when a data set grows.

Pure functions over patch counts; `components.splits.placement` does the arithmetic, `components.splits.ledger` is the
result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from components.core.array_types import Bools, Integers
from components.core.text import plural
from components.errors import DataError, UsageError
from components.splits.ledger import ALGORITHM_VERSION, DEFAULT_RATIOS, Ledger, check_ratios
from components.splits.placement import Problem, apportion
from components.splits.tables import (
    Infeasible,
    class_counts,
    infeasible_error,
    nothing_left_error,
    split_table,
    split_warnings,
)
from schemas.tables import SPLITS

ON_INFEASIBLE = ("fail", "train-only", "drop-class")
_TRAIN = 0
_PLACES = {split: bin_ for bin_, split in enumerate(SPLITS)}
_T = TypeVar("_T")
GroupCounts = Mapping[str, Sequence[int]]
"""Group -> patches of each class, in class order."""


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A ledger and what to tell people about it.

    Attributes:
        ledger: Every group with a patch of a class that is kept, and every group of the previous ledger.
        dropped_classes: Classes under `drop-class` whose patches are to be rejected as `infeasible_class`.
        train_only_classes: Classes under `train-only` whose groups went to train.
        table: Patches and groups by class and split, as plain text.
        warnings: Sentences for the summary and the manifest.
    """

    ledger: Ledger
    dropped_classes: tuple[str, ...]
    train_only_classes: tuple[str, ...]
    table: str
    warnings: tuple[str, ...]


def plan_splits(
    group_counts: GroupCounts,
    classes: Sequence[str],
    *,
    group_unit: str,
    ratios: tuple[float, float, float] | None = None,
    seed: int | None = None,
    previous: Ledger | None = None,
    train_only: Collection[str] = (),
    exclude: Collection[str] = (),
    on_infeasible: str = "fail",
    key_fingerprint: str = "",
) -> SplitPlan:
    """Plans train, eval and test over all groups.

    A group of the previous ledger never moves. One that vanished from the data stays in the ledger, but has
    no patches and therefore no weight when new groups are placed. Groups that hold nothing but dropped
    classes stay out of the ledger, so that they can still be placed once there are enough of them.

    Args:
        group_counts: Patches of each class for every group in the data, before filters and caps.
        classes: Class names in label order.
        group_unit: `patient`, `slide` or `image`.
        ratios: Target shares of (train, eval, test); default: the previous ledger's, else 70/10/20.
        seed: Decides between groups of about equal size; default: the previous ledger's, else 0.
        previous: Ledger to extend.
        train_only: Groups that may be in train only (`--unmapped train`). They are extra: the ratios speak of
            the others.
        exclude: Groups whose consent was withdrawn; they and the previous ledger's tombstones become
            tombstones.
        on_infeasible: What to do with a class that cannot be in every split: `fail`, `train-only` (each group
            that holds it goes to train, unless it already has its place) or `drop-class`.
        key_fingerprint: Fingerprint of the pseudonymisation key of the ids, empty for plain ids.

    Raises:
        UsageError: An unknown option; the previous ledger is of another unit or key, holds one of
            `train_only` in eval or test, or is one fold and lacks groups of the data.
        DataError: An empty class, or a class that cannot be in every split, with the feasibility table.
    """
    if previous is not None:
        previous.require(group_unit, key_fingerprint, "at hand")
    ratios = ratios_or_default(ratios, previous)
    seed = (previous.seed if previous else 0) if seed is None else seed
    tombstones = frozenset(exclude) | (previous.tombstones if previous else frozenset())
    old = {g: s for g, s in previous.splits.items() if g not in tombstones} if previous else {}
    extras = frozenset(train_only)
    stray = sorted(group for group in extras if old.get(group, "train") != "train")
    if stray:
        raise UsageError(
            f"{plural(len(stray), group_unit)} without a mapping may be in train only, but the ledger "
            f"has {stray[0]!r} in {old[stray[0]]}.",
            "Give that group another id in --groups-csv, or start a new ledger.",
        )
    data = Groups.of(group_counts, classes, tombstones)

    extra = np.array([name in extras for name in data.names], dtype=bool)

    def attempt(trial: Trial) -> Integers:
        fixed = np.array([_PLACES.get(old.get(name, ""), -1) for name in data.names], dtype=np.int64)
        fixed[(fixed < 0) & (extra | trial.parked)] = _TRAIN
        needed = trial.needed(len(SPLITS))
        return place(Problem(data.names, trial.counts, to_parts(ratios), seed, fixed, needed, ~extra), SPLITS)

    bins, dropped, parked_classes, kept = resolve(data, group_unit, on_infeasible, attempt)
    new = [name for row, name in enumerate(data.names) if kept[row] and name not in old]
    if previous is not None and previous.source == "fold" and new:
        raise UsageError(
            f"The ledger is fold {previous.fold} of {previous.folds} and lacks "
            f"{plural(len(new), group_unit)} of the data, such as {new[0]!r}.",
            "Plan all folds again over the grown data with --folds.",
        )
    splits = dict(old)
    splits.update({name: SPLITS[bins[row]] for row, name in enumerate(data.names) if kept[row]})
    base = previous or Ledger(group_unit, {}, key_fingerprint=key_fingerprint)
    ledger = dataclasses.replace(
        base,
        splits=splits,
        seed=seed,
        ratios=ratios,
        tombstones=tombstones,
        algorithm_version=ALGORITHM_VERSION,
    )
    warnings: list[str] = []
    if previous is not None and previous.ratios != ratios and previous.splits:
        warnings.append("The ratios differ from the ledger's: groups that already have their place keep it.")
    return make_plan(ledger, data, dropped, parked_classes, warnings, extras)


@dataclasses.dataclass(frozen=True)
class Groups:
    """Patch counts as an array.

    Attributes:
        names: Groups, sorted.
        counts: int64 [groups, classes].
        classes: Class names in label order.
    """

    names: list[str]
    counts: Integers  # int64 [groups, classes]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, group_counts: GroupCounts, classes: Sequence[str], tombstones: frozenset[str]) -> Groups:
        """Builds the array from a mapping, without the withdrawn groups."""
        names = sorted(group for group in group_counts if group not in tombstones)
        return cls(names, class_counts(group_counts, names, classes), tuple(classes))


def ratios_or_default(
    ratios: tuple[float, float, float] | None, previous: Ledger | None
) -> tuple[float, float, float]:
    """The ratios asked for, else those of the ledger, else 70/10/20."""
    return check_ratios(ratios or (previous.ratios if previous else DEFAULT_RATIOS))


def to_parts(ratios: Sequence[float]) -> list[int]:
    """Ratios as integers, so that no float enters the placement."""
    return [round(ratio * 1_000_000) for ratio in ratios]


def place(problem: Problem, bins: Sequence[str]) -> Integers:
    """Places the groups that have patches; the others keep what the problem's `fixed` says.

    Args:
        problem: All groups.
        bins: Names of the bins, for messages.

    Returns:
        int64 [groups], the bin of each.

    Raises:
        Infeasible: Says which classes stand in the way.
    """
    rows = np.flatnonzero(problem.counts.any(axis=1))
    part = problem.take(rows)
    placed, missing = apportion(part)
    if missing.any():
        raise Infeasible(part.counts, placed, part.fixed, missing, bins)
    result = problem.fixed.copy()
    result[rows] = placed
    return result


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one try at a placement has to keep to.

    Attributes:
        counts: int64 [groups, classes], patches; zero for dropped classes.
        required: bool [classes], which have to be in every bin.
        parked: bool [groups], which are bound to train for the sake of a class that cannot be everywhere.
    """

    counts: Integers
    required: Bools
    parked: Bools

    def needed(self, bins: int) -> Bools:
        """`required` for each of so many bins: bool [classes, bins]."""
        return np.repeat(self.required[:, None], bins, axis=1)


def resolve(
    data: Groups,
    group_unit: str,
    on_infeasible: str,
    attempt: Callable[[Trial], _T],
) -> tuple[_T, tuple[str, ...], tuple[str, ...], Bools]:
    """Tries until the classes that cannot be everywhere are dropped or bound to train, as the user chose.

    Args:
        data: All groups.
        group_unit: For messages.
        on_infeasible: One of `ON_INFEASIBLE`.
        attempt: Places groups; raises Infeasible.

    Returns:
        What `attempt` gave; dropped classes; classes bound to train; bool [groups], which still have patches.

    Raises:
        UsageError: An unknown choice.
        DataError: A class that is empty or cannot be everywhere, or too few classes are left.
    """
    if on_infeasible not in ON_INFEASIBLE:
        choices = ", ".join(ON_INFEASIBLE)
        raise UsageError(f"Unknown choice {on_infeasible!r}.", f"--on-infeasible takes {choices}.")
    counts = data.counts.copy()
    dropped = parked = np.zeros(len(data.classes), dtype=bool)
    empty = ~counts.any(axis=0)
    if empty.any():
        if on_infeasible != "drop-class":
            name = data.classes[int(empty.argmax())]
            raise DataError(
                f"Class {name!r} has no patch at all in {plural(len(data.names), group_unit)}.",
                "Check --input and the labels, or leave the class out with --on-infeasible drop-class.",
            )
        dropped = empty
    while True:
        required = ~(dropped | parked)
        if required.sum() < min(2, len(data.classes)):
            raise nothing_left_error(data.classes, data.counts, group_unit, on_infeasible)
        try:
            result = attempt(Trial(counts, required, (counts[:, parked] > 0).any(axis=1)))
        except Infeasible as trouble:
            if on_infeasible == "fail":
                raise infeasible_error(trouble, data.classes, group_unit) from None
            blamed = np.isin(np.arange(len(data.classes)), trouble.blamed())
            if on_infeasible == "drop-class":
                dropped = dropped | blamed
                counts[:, blamed] = 0
            else:
                parked = parked | blamed
            continue
        names = np.array(data.classes, dtype=object)
        return result, tuple(names[dropped]), tuple(names[parked]), counts.any(axis=1)


def make_plan(
    ledger: Ledger,
    data: Groups,
    dropped: tuple[str, ...],
    parked: tuple[str, ...],
    warnings: list[str],
    extra: frozenset[str],
) -> SplitPlan:
    """Puts a finished ledger together with its table and warnings; `extra` groups are outside the ratios."""
    kept = [index for index, name in enumerate(data.classes) if name not in dropped]
    rows = zip(data.names, data.counts[:, kept].tolist(), strict=True)
    counts = {name: row for name, row in rows if name in ledger.splits}
    classes = [data.classes[index] for index in kept]
    if dropped:
        warnings.append(f"Left out, too few {ledger.group_unit}s for every split: {', '.join(dropped)}.")
    if parked:
        warnings.append(f"Bound to train, too few {ledger.group_unit}s for every split: {', '.join(parked)}.")
    warnings += split_warnings(ledger, counts, classes, parked, extra)
    return SplitPlan(ledger, dropped, parked, split_table(ledger.splits, counts, classes), tuple(warnings))
