"""Plans a cross-validation whose folds share no group in test (`--folds K`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from components.errors import UsageError
from components.splits.ledger import SMALLEST_RATIO, Ledger
from components.splits.planner import (
    GroupCounts,
    Groups,
    SplitPlan,
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
    ratios = ratios_or_default(None if previous else ratios, previous[0] if previous else None)
    eval_share = max(SMALLEST_RATIO, ratios[_EVAL] / (ratios[_TRAIN] + ratios[_EVAL]) * (1 - 1 / folds))
    fold_ratios = previous[0].ratios if previous else (1 - 1 / folds - eval_share, eval_share, 1 / folds)
    seed = (previous[0].seed if previous else 0) if seed is None else seed
    tombstones = frozenset(exclude).union(*(ledger.tombstones for ledger in previous))
    tested = {group: ledger.fold - 1 for ledger in previous for group in ledger.groups("test")}
    extras = frozenset(train_only)
    data = Groups.of(group_counts, classes, tombstones)
    extra = np.array([name in extras for name in data.names], dtype=bool)
    known = np.array([bool(previous) and name in previous[0].splits for name in data.names], dtype=bool)
    titles = [f"fold {fold + 1}" for fold in range(folds)]

    def attempt(counts: np.ndarray, required: np.ndarray, parked: np.ndarray) -> list[np.ndarray]:
        placed = np.array([tested.get(name, -1) for name in data.names], dtype=np.int64)
        bound = (extra | parked | known) & (placed < 0)  # in train in every fold
        shared = np.flatnonzero(~bound)
        test = np.full(len(data.names), -1, np.int64)
        needed = np.repeat(required[:, None], folds, axis=1)
        names = [data.names[row] for row in shared]
        test[shared] = place(names, counts[shared], titles, [1] * folds, seed, placed[shared], needed)
        result = []
        for fold in range(folds):
            rest = np.flatnonzero(test != fold)
            old = previous[fold].splits if previous else {}
            fixed = np.array([SPLITS.index(old.get(data.names[row], "test")) for row in rest], dtype=np.int64)
            fixed[fixed == _TEST] = -1
            fixed[bound[rest] & (fixed < 0)] = _TRAIN
            needed = np.repeat(required[:, None], 2, axis=1)
            bins = np.full(len(data.names), _TEST, np.int64)
            names = [data.names[row] for row in rest]
            bins[rest] = place(
                names, counts[rest], SPLITS[:2], to_parts(ratios)[:2], seed, fixed, needed, ~extra[rest]
            )
            result.append(bins)
        return result

    per_fold, dropped, parked_classes, kept = resolve(data, group_unit, on_infeasible, attempt)
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
