"""Which patches a report shows: calls right and wrong, the most instructive first, no patient dominating."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.text import spaced
from components.promotion.worst_errors import worst_errors
from components.report.evidence import Evidence, SplitPredictions
from components.report.heat import heat_picture, strongest
from components.report.pixels import Picture, picture

Array = npt.NDArray[Any]


SUREST, SPREAD = "surest errors first", "from the surest call to the barest"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A patch of the gallery.

    Attributes:
        patch_id: As in the data set.
        group: Its patient.
        score: P(positive), or the probability of the predicted class.
        picture: Its pixels, None where they are gone.
        alt: The image in words.
        heat: Where the model looked, over the same pixels in grey; None for right calls and where it is not known.
        heat_alt: That image in words.
    """

    patch_id: str
    group: str
    score: float
    picture: Picture | None
    alt: str
    heat: Picture | None = None
    heat_alt: str = ""


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


def binary(evidence: Evidence, per_panel: int) -> list[Panel]:
    """False and true positives and negatives at the stored threshold.

    Errors stand with the surest first; correct calls are spread evenly from the surest to the barest.

    Args:
        evidence: With a test split.
        per_panel: Patches shown in each panel.
    """
    test, cut = evidence.test, evidence.cuts
    if test is None or cut is None or not per_panel:
        return []
    called, truth, score = test.predicted(cut) == 1, test.labels == 1, test.probability
    negative, positive = map(spaced, evidence.classes)
    panels = []
    errors = worst_errors(test.labels, test.groups, score, cut, per_panel)
    for kind, error in zip(("False positives", "False negatives"), errors, strict=True):
        calls = f"{negative} called {positive}" if error.called else f"{positive} called {negative}"
        shown = _show(evidence, test, error.worst, score, f"{kind[:-1]}, {calls}", f"P({positive})", error.called)
        panels.append(Panel(f"{kind}: {calls}", SUREST, shown, len(error.order)))
    kinds = (
        ("True positives", f"{positive} called {positive}", called & truth, -score),
        ("True negatives", f"{negative} called {negative}", ~called & ~truth, score),
    )
    for kind, calls, rows, key in kinds:
        order = np.flatnonzero(rows)[np.argsort(key[rows], kind="stable")]
        shown = _show(evidence, test, _evenly(order, per_panel), score, f"{kind[:-1]}, {calls}", f"P({positive})")
        panels.append(Panel(f"{kind}: {calls}", SPREAD, shown, len(order)))
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
    errors = worst_errors(test.labels, test.groups, test.probability, None, per_panel)
    panels = []
    for error in sorted(errors, key=lambda error: (-len(error.order), error.true, error.called)):
        if error.order.size:
            title, score_of = f"{names[error.true]}, called {names[error.called]}", f"P({names[error.called]})"
            shown = _show(evidence, test, error.worst, sure, title, score_of, error.called)
            panels.append(Panel(title, SUREST, shown, len(error.order)))
    right = [np.flatnonzero((test.labels == k) & (predicted == k)) for k in range(len(names))]
    for k in sorted(range(len(names)), key=lambda k: (-len(right[k]), k)):
        if right[k].size:
            order = right[k][np.argsort(-sure[right[k]], kind="stable")]
            title = f"{names[k]}, called {names[k]}"
            shown = _show(evidence, test, _evenly(order, per_panel), sure, title, f"P({names[k]})")
            panels.append(Panel(title, SPREAD, shown, len(order)))
    return panels


def _evenly(order: Array, count: int) -> Array:
    if len(order) <= count:
        return order
    spread: Array = order[np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))]
    return spread


def _show(
    evidence: Evidence,
    test: SplitPredictions,
    rows: Array,
    score: Array,
    what: str,
    probability: str,
    called: int | None = None,
) -> tuple[Shown, ...]:
    """Patches with their pixels; with maps, where these are errors that were called something."""
    pixels: list[npt.NDArray[np.uint8] | None] = [None] * len(rows)
    if test.facts is not None:
        pixels = evidence.images.pixels(test.facts["shard"][rows].tolist(), test.facts["offset"][rows].tolist())
    shown = []
    for row, image in zip(rows, pixels, strict=True):
        name, group = str(test.patch_id[row]), str(test.groups[row])
        alt = f"{what}; {probability} {score[row]:.3f}; {evidence.unit} {group}"
        heat, heat_alt = None, ""
        if called is not None and evidence.error_maps is not None and image is not None:
            heat_map = evidence.error_maps.maps.get((name, called))
            if heat_map is not None:
                heat = heat_picture(image, heat_map)
                heat_alt = f"Grad-CAM of {name} for {spaced(evidence.classes[called])}: {strongest(heat_map)}"
        patch = None if image is None else picture(image)
        shown.append(Shown(name, group, float(score[row]), patch, alt, heat, heat_alt))
    return tuple(shown)
