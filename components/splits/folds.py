"""Plans a cross-validation whose folds share no group in test (`--folds K`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from components.core.array_types import Bools, Integers
from components.errors import UsageError
from components.splits.ledger import SMALLEST_RATIO, Ledger
from components.splits.placement import Problem
from components.splits.planner import (
    GroupCounts,
    Groups,
    SplitPlan,
    Trial,
    make_plan,
    place,
    ratios_or_default,
    resolve,
    to_parts,
)
from schemas.tables import SPLITS

_TRAIN, _EVAL, _TEST = range(3)
_MOST_FOLDS = 100


def plan_folds(
    group_counts: GroupCounts,
    classes: Sequence[str],
    folds: int,
    *,
    group_unit: str,
    ratios: tuple[float, float, float] | None = None,
    seed: int | None = None,
    previous: Sequence[Ledger] = (),
    train_only: Collection[str] = (),
    exclude: Collection[str] = (),
    on_infeasible: str = "fail",
    key_fingerprint: str = "",
) -> list[SplitPlan]:
    """Plans a cross-validation: each group is in test in exactly one fold (those bound to train: in none).

    Test holds 1/`folds` of the data; the rest of each fold is shared between train and eval as their ratios
    say.

    Args:
        group_counts: As for `plan_splits`.
        classes: As for `plan_splits`.
        folds: Number of folds, at least 2.
        group_unit: As for `plan_splits`.
        ratios: Only the proportion of train to eval counts; with `previous`, its ratios stay.
        seed: As for `plan_splits`.
        previous: All ledgers of an earlier plan with as many folds; no group changes its place in any of
            them.
        train_only: As for `plan_splits`; these are in train in every fold.
        exclude: As for `plan_splits`.
        on_infeasible: As for `plan_splits`; the classes that it concerns are the same in every fold.
        key_fingerprint: As for `plan_splits`.

    Returns:
        The plans of folds 1 to `folds`, in order.

    Raises:
        UsageError: Fewer than two folds; `previous` does not fit.
        DataError: An empty class, or too few groups of a class for so many folds, with the feasibility table.
    """
    _check(folds, previous, group_unit, key_fingerprint)
    ratios = ratios_or_default(None if previous else ratios, previous[0] if previous else None)
    eval_share = max(SMALLEST_RATIO, ratios[_EVAL] / (ratios[_TRAIN] + ratios[_EVAL]) * (1 - 1 / folds))
    fold_ratios = previous[0].ratios if previous else (1 - 1 / folds - eval_share, eval_share, 1 / folds)
    seed = (previous[0].seed if previous else 0) if seed is None else seed
    tombstones = frozenset(exclude).union(*(ledger.tombstones for ledger in previous))
    tested = {group: ledger.fold - 1 for ledger in previous for group in ledger.groups("test")}
    extras = frozenset(train_only)
    data = Groups.of(group_counts, classes, tombstones)
    cohort = _Cohort(
        data=data,
        folds=folds,
        ratios=ratios,
        seed=seed,
        previous=tuple(ledger.splits for ledger in previous),
        tested=np.array([tested.get(name, -1) for name in data.names], dtype=np.int64),
        extra=np.array([name in extras for name in data.names], dtype=bool),
    )
    per_fold, dropped, parked_classes, kept = resolve(data, group_unit, on_infeasible, cohort.place)
    plans = []
    for fold, bins in enumerate(per_fold):
        splits = {g: s for g, s in previous[fold].splits.items() if g not in tombstones} if previous else {}
        splits.update({name: SPLITS[bins[row]] for row, name in enumerate(data.names) if kept[row]})
        ledger = Ledger(
            group_unit=group_unit, splits=splits, seed=seed, ratios=fold_ratios, tombstones=tombstones,
            key_fingerprint=key_fingerprint, source="fold", fold=fold + 1, folds=folds,
        )  # fmt: skip
        plans.append(make_plan(ledger, data, dropped, parked_classes, [], extras))
    return plans


def _check(folds: int, previous: Sequence[Ledger], group_unit: str, key_fingerprint: str) -> None:
    """Refuses a number of folds out of range, and earlier ledgers that are not these folds."""
    if not 2 <= folds <= _MOST_FOLDS:
        raise UsageError(
            f"A cross-validation has 2 to {_MOST_FOLDS} folds, not {folds}.", "Choose another --folds."
        )
    numbers = [(ledger.fold, ledger.folds) for ledger in previous]
    if previous and numbers != [(fold + 1, folds) for fold in range(folds)]:
        raise UsageError(
            f"The earlier ledgers are not the folds 1 to {folds} of {folds}.", "Keep the number of folds."
        )
    for ledger in previous:
        ledger.require(group_unit, key_fingerprint, f"of fold {ledger.fold}")


@dataclasses.dataclass(frozen=True)
class _Cohort:
    """All groups, and what is settled about them before the folds are placed.

    Attributes:
        data: The groups.
        folds: Number of folds.
        ratios: Only the proportion of train to eval counts.
        seed: Of the choice between groups of about equal size.
        previous: Group -> split in each fold of the earlier plan; empty without one.
        tested: int64 [groups], the fold that has the group in test by the earlier plan; -1 where none has.
        extra: bool [groups], which may be in train only.
    """

    data: Groups
    folds: int
    ratios: tuple[float, float, float]
    seed: int
    previous: tuple[Mapping[str, str], ...]
    tested: Integers
    extra: Bools

    def place(self, trial: Trial) -> list[Integers]:
        """For each fold the split of each group: int64 [groups], index into `SPLITS`.

        Raises:
            Infeasible: A required class cannot be in test in every fold, or not in train and eval of one.
        """
        known = np.array([bool(self.previous) and name in self.previous[0] for name in self.data.names], dtype=bool)
        bound = (self.extra | trial.parked | known) & (self.tested < 0)  # in train in every fold
        test = self._test_folds(trial, bound)
        return [self._one_fold(trial, bound, test, fold) for fold in range(self.folds)]

    def _test_folds(self, trial: Trial, bound: Bools) -> Integers:
        """The fold in which each group is in test: int64 [groups], -1 for those that never are."""
        everyone = Problem(
            names=self.data.names,
            counts=trial.counts,
            ratios=[1] * self.folds,
            seed=self.seed,
            fixed=self.tested,
            required=trial.needed(self.folds),
            balanced=np.ones(len(self.data.names), dtype=bool),
        )
        shared = np.flatnonzero(~bound)
        test = np.full(len(self.data.names), -1, np.int64)
        test[shared] = place(everyone.take(shared), [f"fold {fold + 1}" for fold in range(self.folds)])
        return test

    def _one_fold(self, trial: Trial, bound: Bools, test: Integers, fold: int) -> Integers:
        """Shares what a fold does not test between train and eval."""
        old = self.previous[fold] if self.previous else {}
        fixed = np.array([SPLITS.index(old.get(name, "test")) for name in self.data.names], dtype=np.int64)
        fixed[fixed == _TEST] = -1
        fixed[bound & (fixed < 0)] = _TRAIN
        everyone = Problem(
            names=self.data.names,
            counts=trial.counts,
            ratios=to_parts(self.ratios)[:2],
            seed=self.seed,
            fixed=fixed,
            required=trial.needed(2),
            balanced=~self.extra,
        )
        rest = np.flatnonzero(test != fold)
        bins = np.full(len(self.data.names), _TEST, np.int64)
        bins[rest] = place(everyone.take(rest), SPLITS[:2])
        return bins
