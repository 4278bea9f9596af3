"""Which errors are looked at more closely."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.promotion.worst_errors import PER_GROUP, spread_over_groups, worst_errors


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 12))
def test_a_panel_is_full_ordered_and_not_one_patients(groups: list[int], count: int) -> None:
    rows = np.arange(len(groups))
    chosen = spread_over_groups(rows, np.array(groups, object), count)
    assert len(chosen) == min(count, len(groups)) and list(chosen) == sorted(set(chosen))
    taken = np.bincount(np.array(groups, int)[chosen], minlength=5) if len(chosen) else np.zeros(5, int)
    there = np.bincount(np.array(groups, int), minlength=5) if groups else np.zeros(5, int)
    if (taken > PER_GROUP).any():  # only where nobody else could fill it
        assert (taken >= np.minimum(there, PER_GROUP)).all()


def test_binary_errors_are_those_of_the_stored_cut_surest_first() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1])
    score = np.array([0.9, 0.5, 0.1, 0.3, 0.2, 0.8], np.float32)
    false_positive, false_negative = worst_errors(labels, np.array(list("abcdef"), object), score, 0.4, 1)
    assert (false_positive.true, false_positive.called) == (0, 1) and list(false_positive.order) == [0, 1]
    assert (false_negative.true, false_negative.called) == (1, 0) and list(false_negative.order) == [2, 3]
    assert list(false_positive.worst) == [0] and list(false_negative.worst) == [2]


def test_every_pair_of_classes_is_a_kind_of_error() -> None:
    labels = np.array([0, 1, 2, 2])
    p = np.array([[0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]], np.float32)
    found = {(kind.true, kind.called): list(kind.order) for kind in worst_errors(labels, labels, p, None, 4)}
    assert len(found) == 6
    assert {pair: rows for pair, rows in found.items() if rows} == {(0, 1): [0], (2, 0): [3, 2]}
