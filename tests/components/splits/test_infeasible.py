"""Classes that cannot be in every split or fold: the error, and the ways out."""

from __future__ import annotations

import pytest

from components.errors import DataError, UsageError
from components.splits.folds import plan_folds
from schemas.tables import SPLITS
from tests.components.splits.test_planner import BINARY, THREE, cohort, plan


def rare(groups_of_c: int) -> dict[str, list[int]]:
    counts = {f"p{i}": [5 + i, 3, 0] for i in range(12)}
    counts.update({f"c{i}": [0, 0, 4] for i in range(groups_of_c)})
    return counts


def test_infeasible_class_gives_a_table_and_three_ways_out() -> None:
    with pytest.raises(DataError) as caught:
        plan(rare(2), THREE)
    text = str(caught.value)
    line = next(line for line in text.splitlines() if line.startswith("c "))
    assert line.split()[:3] == ["c", "8", "2"] and line.endswith("needs 1 patient more")
    assert all(f"--on-infeasible {choice}" in text for choice in ("fail", "train-only", "drop-class"))
    assert "not everywhere: c." in text


def test_train_only() -> None:
    result = plan(rare(2), THREE, on_infeasible="train-only")
    assert result.train_only_classes == ("c",) and result.dropped_classes == ()
    assert {result.ledger.splits[group] for group in ("c0", "c1")} == {"train"}
    assert any("Bound to train" in warning for warning in result.warnings)


def test_drop_class_leaves_room_for_later() -> None:
    result = plan(rare(2), THREE, on_infeasible="drop-class")
    assert result.dropped_classes == ("c",) and not {"c0", "c1"} & set(result.ledger.splits)
    later = plan(rare(3), THREE, previous=result.ledger)
    assert {later.ledger.splits[f"c{i}"] for i in range(3)} == set(SPLITS)


def test_old_groups_do_not_move_for_a_class_that_became_feasible() -> None:
    first = plan(rare(2), THREE, on_infeasible="train-only").ledger
    with pytest.raises(DataError, match="never moves"):
        plan(rare(3), THREE, previous=first)
    assert plan(rare(4), THREE, previous=first).ledger.splits.items() >= first.splits.items()


@pytest.mark.parametrize("choice", ["fail", "train-only", "drop-class"])
@pytest.mark.parametrize(
    "counts", [{"only": [50, 50]}, {"a": [1, 0], "b": [0, 1]}, {"a": [9, 1], "b": [3, 3]}, {"a": [1, 0]}, {}]
)
def test_too_few_patients(counts, choice) -> None:
    with pytest.raises(DataError) as caught:
        plan(counts, on_infeasible=choice)
    assert caught.value.fix


def test_empty_class_is_named() -> None:
    counts = {f"p{i}": [3, 2, 0] for i in range(9)}
    for choice in ("fail", "train-only"):
        with pytest.raises(DataError, match="'c' has no patch"):
            plan(counts, THREE, on_infeasible=choice)
    assert plan(counts, THREE, on_infeasible="drop-class").dropped_classes == ("c",)


def test_folds_that_cannot_be() -> None:
    with pytest.raises(UsageError):
        plan_folds(cohort(30), BINARY, 1, group_unit="patient")
    with pytest.raises(DataError, match="each of 4 folds"):
        plan_folds(rare(3), THREE, 4, group_unit="patient")
    with pytest.raises(DataError, match="train and eval"):  # one group is left for both
        plan_folds(rare(2), THREE, 2, group_unit="patient")
    dropped = plan_folds(rare(3), THREE, 4, group_unit="patient", on_infeasible="drop-class")
    assert {p.dropped_classes for p in dropped} == {("c",)}
    parked = plan_folds(rare(3), THREE, 4, group_unit="patient", on_infeasible="train-only")
    assert {p.ledger.splits["c0"] for p in parked} == {"train"}
    again = plan_folds(rare(4), THREE, 4, group_unit="patient", previous=[p.ledger for p in parked],
                       on_infeasible="train-only")  # fmt: skip
    assert {p.ledger.splits["c0"] for p in again} == {"train"}
