"""Placement of groups in bins: targets, fixed groups, required classes, and independence of the input's order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from components.splits.placement import Problem, apportion


def problem(counts: list[list[int]], ratios: tuple[int, ...] = (1, 1), **given: Any) -> Problem:
    table = np.array(counts, np.int64)
    n, classes = table.shape
    return Problem(
        names=given.get("names", [f"g{i:03d}" for i in range(n)]),
        counts=table,
        ratios=ratios,
        seed=given.get("seed", 0),
        fixed=np.array(given.get("fixed", [-1] * n), np.int64),
        required=np.array(given.get("required", [[True] * len(ratios)] * classes), bool),
        balanced=np.array(given.get("balanced", [True] * n), bool),
    )


def test_patches_come_to_their_targets() -> None:
    counts = [[10 + i % 5, 10 - i % 5] for i in range(100)]
    bins, missing = apportion(problem(counts, (7, 1, 2)))
    assert not missing.any()
    shares = np.array([np.array(counts)[bins == b].sum() for b in range(3)]) / np.sum(counts)
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


def test_fixed_groups_stay_and_count() -> None:
    bins, _ = apportion(problem([[10, 10]] * 8, fixed=[0, 0, 0, -1, -1, -1, -1, -1]))
    assert bins[:3].tolist() == [0, 0, 0] and (bins == 0).sum() == 4


def test_groups_outside_the_targets_pull_nobody() -> None:
    extra = [False, False, False, *[True] * 6]
    bins, _ = apportion(problem([[10, 10]] * 9, fixed=[0, 0, 0, *[-1] * 6], balanced=extra))
    assert (bins[3:] == 0).sum() == 3


def test_a_class_that_is_needed_everywhere_is_brought_everywhere() -> None:
    # The two groups of the rare class are so large that balance alone would keep them apart from nothing.
    bins, missing = apportion(problem([[0, 500], [0, 1], *[[20, 0]] * 20], (9, 1)))
    assert not missing.any() and set(bins[:2]) == {0, 1}


def test_an_exact_search_finds_what_greedy_steps_miss() -> None:
    # Each bin needs all three classes; only groups of two classes may be combined.
    counts = [[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 1, 1]]
    _, missing = apportion(problem(counts, (1, 1, 1), required=[[True] * 3] * 3))
    assert not missing.any()


def test_what_cannot_be_had_is_told_by_class_and_bin() -> None:
    bins, missing = apportion(problem([[5, 1], [5, 0], [5, 0]]))
    assert missing.shape == (2, 2) and missing.sum() == 1 and missing[1].sum() == 1
    assert not missing[1, bins[0]]


def test_where_nothing_is_required_nothing_is_missing() -> None:
    _, missing = apportion(problem([[5, 1]], required=[[True, False], [False, False]]))
    assert not missing.any()


def test_no_free_group_and_no_group_at_all() -> None:
    bins, missing = apportion(problem([[1], [1]], fixed=[1, 0]))
    assert bins.tolist() == [1, 0] and not missing.any()
    none = problem([[1]]).take(np.zeros(0, np.int64))
    bins, missing = apportion(none)
    assert not len(bins) and missing.all()


def test_the_seed_decides_between_equals_and_equal_input_gives_equal_output() -> None:
    counts = [[3, 3]] * 40
    placed = [apportion(problem(counts, seed=seed))[0].tolist() for seed in (1, 1, 2)]
    assert placed[0] == placed[1] != placed[2]


def test_take_keeps_the_rows_of_every_array_together() -> None:
    whole = problem([[1, 0], [2, 0], [3, 0]], fixed=[0, -1, 1], balanced=[True, False, True])
    part = whole.take(np.array([0, 2]))
    assert part.names == ["g000", "g002"] and part.counts.tolist() == [[1, 0], [3, 0]]
    assert part.fixed.tolist() == [0, 1] and part.balanced.all()
    assert part.required is whole.required
