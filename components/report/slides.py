"""Slide maps of a run: predicted probability beside ground truth, worst slides first, then the best."""

from __future__ import annotations

import dataclasses

import numpy as np

from components.prediction import slide_maps as drawing
from components.report.evidence import Evidence
from components.report.pixels import data_uri

WORST, BEST = 6, 3


@dataclasses.dataclass(frozen=True)
class SlideMap:
    """A slide's two maps.

    Attributes:
        name: Slide, or the group where no slide is known.
        patches: Patches with coordinates.
        positives: Of them, labelled positive.
        right: Share that was called rightly at the stored threshold.
        predicted: PNG of P(positive) as a data URI.
        truth: PNG of the labels likewise.
        width: Cells across.
        height: Cells down.
        best: Among the best, not the worst.
    """

    name: str
    patches: int
    positives: int
    right: float
    predicted: str
    truth: str
    width: int
    height: int
    best: bool


@dataclasses.dataclass(frozen=True)
class SlideMaps:
    """The maps shown.

    Attributes:
        maps: Worst first, then the best.
        total: Slides with coordinates in the test split.
        unit: What a map shows: slide, or the group unit.
    """

    maps: tuple[SlideMap, ...]
    total: int
    unit: str


def slide_maps(evidence: Evidence, worst: int = WORST, best: int = BEST) -> SlideMaps | None:
    """Maps of the test split; None where there are no coordinates, no threshold or several classes.

    Args:
        evidence: Of the run.
        worst: How many of the slides with the smallest share of right calls.
        best: How many of those with the largest.
    """
    test, cut = evidence.test, evidence.threshold
    if test is None or test.facts is None or cut is None:
        return None
    placed = drawing.has_place(test.facts["x"], test.facts["y"])
    if not placed.any():
        return None
    known = bool((test.slides.astype(str) != "").all())
    names, index = np.unique((test.slides if known else test.groups).astype(str), return_inverse=True)
    right = (test.predicted(evidence.cuts) == test.labels) & placed
    count = np.bincount(index[placed], minlength=len(names))
    share = np.bincount(index, weights=right, minlength=len(names)) / np.maximum(count, 1)
    order = [int(i) for i in np.argsort(share, kind="stable") if count[i]]
    first = order[:worst]
    last = [i for i in reversed(order[worst:])][:best]
    maps = []
    for i in [*first, *last]:
        rows = np.flatnonzero((index == i) & placed)
        cells = drawing.grid(test.facts["x"][rows], test.facts["y"][rows])
        predicted = drawing.to_png(drawing.fill(cells, test.probability[rows]), middle=cut)
        truth = drawing.to_png(drawing.fill(cells, test.labels[rows]))
        maps.append(
            SlideMap(
                name=str(names[i]), patches=len(rows), positives=int(test.labels[rows].sum()), right=float(share[i]),
                predicted=data_uri(predicted), truth=data_uri(truth), width=cells.width, height=cells.height,
                best=i in last,
            )
        )  # fmt: skip
    return SlideMaps(tuple(maps), len(order), "slide" if known else evidence.unit)
