"""Colours of what a model is given, against the data that it was trained on: the drift that matters in use.

Sums by group add up in any order over parts, threads and machines. As in `components.metrics.drift` the patient is the
unit. There a data set is judged, here whatever somebody scores, which may be a single slide: so few patients are
compared, too, with a limit that grows as they become fewer (`Z` standard errors of a mean over so many).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.text import plural
from components.metrics.drift import MIN_GROUPS, THRESHOLDS, Shift, Z, readable, reference, sentence
from schemas.tables import COLOUR_COLUMNS

WHOLE = ""
"""Name under which patches stand whose group is unknown."""

IMAGE = "image"
"""Group unit of data sets in which every image is a group of its own."""

ADVICE = (
    "Its probabilities for such images may be wrong in ways that no figure here shows. Look at scanner, stain and file"
    " conversion. Before you rely on them, measure the model on labelled images of this origin (histoline evaluate), or"
    " train with such images among the data."
)

Array = npt.NDArray[np.float64]


class ColourSums:
    """Sums of colour features by group: what is left of patches that were measured.

    Attributes:
        sums: Group to [11]: number of patches, then the sum of each feature, columns as `COLOUR_COLUMNS`.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Array] = {}

    def add(self, groups: Sequence[str], features: npt.ArrayLike) -> None:
        """Adds patches.

        Args:
            groups: Group of each patch, [N]; `WHOLE` where it is unknown.
            features: [N, 10], columns as `COLOUR_COLUMNS`.
        """
        x = np.asarray(features, np.float64)
        names, index = np.unique(np.asarray(groups, np.str_), return_inverse=True)
        counted = np.concatenate([np.ones((len(x), 1)), x], axis=1)
        columns = [np.bincount(index, weights=column, minlength=len(names)) for column in counted.T]
        for name, row in zip(names.tolist(), np.stack(columns, axis=1)):
            self.sums[name] = self.sums[name] + row if name in self.sums else row

    @property
    def patches(self) -> int:
        """Patches of all groups."""
        return int(sum(row[0] for row in self.sums.values()))

    def means(self) -> tuple[list[str], Array]:
        """Names of the groups in order, and the mean of each feature over the patches of each, [G, 10]."""
        names = sorted(self.sums)
        rows = np.array([self.sums[name] for name in names]).reshape(len(names), 1 + len(COLOUR_COLUMNS))
        return names, rows[:, 1:] / rows[:, :1]


def compare(scored: ColourSums, statistics: Mapping[str, Any]) -> list[Shift]:
    """Compares what was scored with the data that the model was trained on.

    Args:
        scored: Of all patches that were scored, at least one. Where the statistics' unit is the image, all of them
            under `WHOLE`.
        statistics: What `drift.statistics` gave for the model's data set; must be `readable`.

    Returns:
        Every feature, as `scored`; where at least `MIN_GROUPS` groups are in the model's data, too, again as
        `same_groups`, each against itself. Empty where the model's own data hold too few groups to tell anything.
    """
    origin = reference(statistics)
    if origin.groups < MIN_GROUPS:
        return []
    names, means = scored.means()
    units = scored.patches if statistics.get("group_unit") == IMAGE else len(names)
    chance = Z * math.sqrt(1 / units + 1 / origin.groups)
    shifts = _shifts("scored", means.mean(axis=0), origin.mean, origin.spread, chance, units)
    own = statistics.get("groups") or {}
    known = [i for i, name in enumerate(names) if name in own]
    if len(known) >= MIN_GROUPS:
        before = np.array([own[names[i]] for i in known], np.float64)
        shifts += _shifts("same_groups", means[known].mean(axis=0), before.mean(axis=0), origin.spread, 0.0, len(known))
    return shifts


def _shifts(comparison: str, now: Array, then: Array, spread: Array, chance: float, units: int) -> list[Shift]:
    return [
        Shift(
            comparison, name, float((now[i] - then[i]) / spread[i]), max(THRESHOLDS[name], chance), float(now[i]),
            float(then[i]), units,
        )
        for i, name in enumerate(COLOUR_COLUMNS)
    ]  # fmt: skip


def report(
    scored: ColourSums | None, statistics: Mapping[str, Any] | None, version: str, unit: str = ""
) -> dict[str, Any]:
    """The comparison as the summary of a prediction keeps it.

    Args:
        scored: Of all patches that were scored; None where nothing was measured.
        statistics: Of the model's data set; None where the model carries none.
        version: What the model is called.
        unit: What the groups of `scored` are: `patient`, `slide`, `image`, or `folder` where all patches are one.

    Returns:
        `skipped` says why nothing was compared, `text` what has shifted and what to do; both are mostly empty.
    """
    skipped, shifts = "", []
    if statistics is None:
        skipped = f"no statistics to compare with: model {version} carries none"
    elif not readable(statistics):
        skipped = f"no statistics to compare with: those of model {version} are of another version of histoline"
    elif scored is None or not scored.sums:
        skipped = "nothing was scored"
    else:
        shifts = compare(scored, statistics)
        groups = reference(statistics).groups
        skipped = "" if shifts else f"the model was trained on {plural(groups, 'group')}, too few to compare with"
    drifted = [shift for shift in shifts if shift.drifted]
    what = f"The colours have shifted against the data that model {version} was trained on: {sentence(shifts)}."
    return {
        "metric": "standardised mean difference between group means",
        "version": version,
        "skipped": skipped,
        "unit": unit,
        "groups": shifts[0].groups if shifts else 0,
        "drifted": sorted({shift.feature for shift in drifted}),
        "text": f"{what} {ADVICE}" if drifted else "",
        "shifts": [{**dataclasses.asdict(shift), "drifted": shift.drifted} for shift in shifts],
    }
