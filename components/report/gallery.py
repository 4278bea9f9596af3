"""Which patches a report shows: calls right and wrong, the most instructive first, no patient dominating."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.text import spaced
from components.report.evidence import Evidence, SplitPredictions
from components.report.pixels import Picture

Array = npt.NDArray[Any]
PER_GROUP = 3
"""Patches of one patient in one panel, where others can fill it."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """A patch of the gallery.

    Attributes:
        patch_id: As in the data set.
        group: Its patient.
        score: P(positive), or the probability of the predicted class.
        picture: Its pixels, None where they are gone.
        alt: The image in words.
    """

    patch_id: str
    group: str
    score: float
    picture: Picture | None
    alt: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """Patches of one kind.

    Attributes:
        title: What they have in common.
        order: In which order they stand.
        patches: Those shown.
        total: How many there are.
    """

    title: str
    order: str
    patches: tuple[Shown, ...]
    total: int


def spread_over_groups(rows: Array, groups: Array, count: int) -> Array:
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


def binary(evidence: Evidence, per_panel: int) -> list[Panel]:
    """False and true positives and negatives at the stored threshold.

    Errors stand with the surest first; correct calls are spread evenly from the surest to the barest.

    Args:
        evidence: With a test split.
        per_panel: Patches shown in each panel.
    """
    test, cut = evidence.test, evidence.threshold
    if test is None or cut is None or not per_panel:
        return []
    called, truth, score = test.predicted(cut) == 1, test.labels == 1, test.probability
    negative, positive = map(spaced, evidence.classes)
    kinds = (
        ("False positives", f"{negative} called {positive}", called & ~truth, -score, True),
        ("False negatives", f"{positive} called {negative}", ~called & truth, score, True),
        ("True positives", f"{positive} called {positive}", called & truth, -score, False),
        ("True negatives", f"{negative} called {negative}", ~called & ~truth, score, False),
    )
    panels = []
    for kind, calls, rows, key, wrong in kinds:
        order = np.flatnonzero(rows)[np.argsort(key[rows], kind="stable")]
        chosen = spread_over_groups(order, test.groups, per_panel) if wrong else _evenly(order, per_panel)
        order_shown = "surest errors first" if wrong else "from the surest call to the barest"
        shown = _show(evidence, test, chosen, score, f"{kind[:-1]}, {calls}", f"P({positive})")
        panels.append(Panel(f"{kind}: {calls}", order_shown, shown, len(order)))
    return panels


def multiclass(evidence: Evidence, per_panel: int) -> list[Panel]:
    """One panel per pair of true and predicted type that occurs: errors first, the commonest before the rarer.

    Args:
        evidence: With a test split.
        per_panel: Patches shown in each panel.
    """
    test = evidence.test
    if test is None or not per_panel:
        return []
    predicted, sure = test.predicted(None), test.probability.max(axis=1)
    names = [spaced(name) for name in evidence.classes]
    pairs = []
    for true in range(len(names)):
        for other in range(len(names)):
            rows = np.flatnonzero((test.labels == true) & (predicted == other))
            if rows.size:
                pairs.append((true == other, -rows.size, true, other, rows))
    panels = []
    for right, _, true, other, rows in sorted(pairs, key=lambda pair: pair[:4]):
        order = rows[np.argsort(-sure[rows], kind="stable")]
        title = f"{names[true]}, called {names[other]}"
        chosen = _evenly(order, per_panel) if right else spread_over_groups(order, test.groups, per_panel)
        order_shown = "from the surest call to the barest" if right else "surest errors first"
        shown = _show(evidence, test, chosen, sure, title, f"P({names[other]})")
        panels.append(Panel(title, order_shown, shown, len(order)))
    return panels


def _evenly(order: Array, count: int) -> Array:
    if len(order) <= count:
        return order
    spread: Array = order[np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))]
    return spread


def _show(
    evidence: Evidence, test: SplitPredictions, rows: Array, score: Array, what: str, probability: str
) -> tuple[Shown, ...]:
    pictures: list[Picture | None] = [None] * len(rows)
    if test.facts is not None:
        pictures = evidence.images.patches(test.facts["shard"][rows].tolist(), test.facts["offset"][rows].tolist())
    return tuple(
        Shown(
            str(test.patch_id[row]), str(test.groups[row]), float(score[row]), picture,
            f"{what}; {probability} {score[row]:.3f}; {evidence.unit} {test.groups[row]}",
        )
        for row, picture in zip(rows, pictures)
    )  # fmt: skip
