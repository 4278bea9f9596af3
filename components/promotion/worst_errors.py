"""Which wrong calls are looked at more closely: the surest first, no patient dominating."""

from __future__ import annotations

import dataclasses

import numpy as np

from components.core.array_types import Array, Integers

PER_GROUP = 3
"""Patches of one patient among the errors of one kind, where others can fill their place."""

BINARY, MULTICLASS = 12, 4
"""Patches that are shown of each kind of error, at most."""


@dataclasses.dataclass(frozen=True)
class ErrorKind:
    """Errors of one kind.

    Attributes:
        true: Class number of the patches.
        called: Class number that the model gave them.
        order: Their positions in the split, surest call first.
        worst: Those to look at, in the same order.
    """

    true: int
    called: int
    order: Integers
    worst: Integers


def worst_errors(
    labels: Array, groups: Array, probability: Array, threshold: float | Array | None, count: int
) -> list[ErrorKind]:
    """Every kind of error that can occur.

    Args:
        labels: Class numbers [N].
        groups: Patient of each patch [N].
        probability: P(positive) [N], or [N, C].
        threshold: Cut of a binary model, one or each patch's own.
        count: Patches to look at of each kind.
    """
    if probability.ndim == 1:
        called = (probability >= np.asarray(np.nan if threshold is None else threshold, np.float32)).astype(int)
        # By the score itself: 1 - p of two small p may be the same number.
        doubt = np.where(called == 1, -probability, probability)
        kinds = [(0, 1), (1, 0)]
    else:
        called, doubt = probability.argmax(axis=1), -probability.max(axis=1)
        n_classes = probability.shape[1]
        kinds = [(true, other) for true in range(n_classes) for other in range(n_classes) if true != other]
    found = []
    for true, other in kinds:
        rows = np.flatnonzero((labels == true) & (called == other))
        order = rows[np.argsort(doubt[rows], kind="stable")]
        found.append(ErrorKind(true, other, order, spread_over_groups(order, groups, count)))
    return found


def spread_over_groups(rows: Array, groups: Array, count: int) -> Integers:
    """The first `count` rows, at most `PER_GROUP` of a group unless nothing else is left; order is kept.

    Args:
        rows: Positions, best first.
        groups: Group of each patch of the split.
        count: How many.
    """
    seen: dict[str, int] = {}
    first: list[int] = []
    rest: list[int] = []
    for row in rows:
        group = str(groups[row])
        seen[group] = seen.get(group, 0) + 1
        (first if seen[group] <= PER_GROUP else rest).append(int(row))
        if len(first) == count:
            break
    chosen = set((first + rest)[:count])
    return np.array([row for row in rows if int(row) in chosen], int)
