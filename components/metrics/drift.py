"""Drift of the colour features against the data that the champion was trained on.

Patients differ in colour by themselves, so the patient is the unit: a feature is one mean per patient, and a shift is
told in standard deviations between the champion's patients. A shift counts when it is both large (`THRESHOLDS`) and
more than chance would make of so few patients (`Z` standard errors).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.errors import UsageError
from schemas.tables import COLOUR_COLUMNS

FORMAT = 1

THRESHOLDS: dict[str, float] = {
    "color/red_mean": 0.5,
    "color/green_mean": 0.5,
    "color/blue_mean": 0.5,
    "color/red_std": 0.5,
    "color/green_std": 0.5,
    "color/blue_std": 0.5,
    "color/hematoxylin_od": 0.5,
    "color/eosin_od": 0.5,
    # How much tissue a patch shows, and how sharp it is, follow the sampling of patches more than the scanner.
    "color/tissue_fraction": 0.8,
    "color/sharpness": 0.8,
}
"""Largest tolerated |standardised mean difference| per feature. 0.5 is a medium effect (J. Cohen, Statistical Power
Analysis for the Behavioral Sciences, 2nd ed. 1988): half of what patients differ by among themselves."""

Z = 5.0
"""Standard errors by which different patients must differ. Some 40 differences are looked at per run, and patients
are not normally distributed: between random halves of the patients of IDC the largest difference reached 4.3 standard
errors in one of 100 draws."""

MIN_GROUPS = 5
"""Fewer patients tell nothing; such a comparison is left out."""

MAX_GROUPS = 5_000
"""Up to so many groups the statistics keep each group's own means."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True)
class GroupMeans:
    """Colour features of a data set, one row per group.

    Attributes:
        groups: Names, [G].
        splits: Split of each group, [G].
        patches: Patches of each group, [G].
        means: Mean of each feature over the group's patches, [G, 10], columns as `COLOUR_COLUMNS`.
        patch_std: Deviation of each feature over all patches of a split: split -> [10].
    """

    groups: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    patches: npt.NDArray[np.int64]
    means: npt.NDArray[np.float64]
    patch_std: Mapping[str, npt.NDArray[np.float64]]


def group_means(groups: npt.ArrayLike, splits: npt.ArrayLike, features: npt.ArrayLike) -> GroupMeans:
    """Averages the features of patches over their groups.

    Args:
        groups: Group of each patch, [N].
        splits: Split of each patch, [N].
        features: [N, 10], columns as `COLOUR_COLUMNS`.
    """
    x, of = np.asarray(features, np.float64), np.asarray(splits, np.str_)
    names, first, index = np.unique(np.asarray(groups, np.str_), return_index=True, return_inverse=True)
    count = np.bincount(index, minlength=len(names))
    sums = np.stack([np.bincount(index, weights=column, minlength=len(names)) for column in x.T], axis=1)
    return GroupMeans(
        groups=names,
        splits=of[first],
        patches=count.astype(np.int64),
        means=sums / np.maximum(count, 1)[:, None],
        patch_std={str(split): x[of == split].std(axis=0) for split in np.unique(of)},
    )


def statistics(data: GroupMeans, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What later runs compare with, as plain JSON: written as statistics.json and kept with the model version.

    Args:
        data: Of the data set that the model is trained on.
        facts: Added at the top level, such as data set, task and content digest.
    """
    splits: dict[str, Any] = {}
    for split in sorted(data.patch_std):
        rows = data.splits == split
        means, weights = data.means[rows], data.patches[rows]
        quantiles = np.quantile(means, QUANTILES, axis=0)
        overall = np.average(means, axis=0, weights=weights)
        splits[split] = {
            "patches": int(weights.sum()),
            "groups": int(rows.sum()),
            "features": {
                name: {
                    "mean": float(overall[i]),
                    "std": float(data.patch_std[split][i]),
                    "group_mean": float(means[:, i].mean()),
                    "group_std": float(means[:, i].std(ddof=1)) if len(means) > 1 else 0.0,
                    "group_quantiles": {str(q): float(quantiles[j, i]) for j, q in enumerate(QUANTILES)},
                }
                for i, name in enumerate(COLOUR_COLUMNS)
            },
        }
    own = {}
    if len(data.groups) <= MAX_GROUPS:
        own = {
            str(g): [round(float(v), 6) for v in row] for g, row in zip(data.groups, data.means, strict=True)
        }
    return {**facts, "format": FORMAT, "features": list(COLOUR_COLUMNS), "splits": splits, "groups": own}


@dataclasses.dataclass(frozen=True)
class Reference:
    """The train split of a model's data, as far as later data are compared with it.

    Attributes:
        mean: Of each feature over the groups' means, [10], columns as `COLOUR_COLUMNS`.
        spread: Standard deviation of each feature between groups, [10].
        groups: Their number.
    """

    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    groups: int


def readable(champion: Mapping[str, Any]) -> bool:
    """Whether statistics were written by this version: the same format and features."""
    return champion.get("format") == FORMAT and champion.get("features") == list(COLOUR_COLUMNS)


def reference(champion: Mapping[str, Any]) -> Reference:
    """What differences are told from.

    Args:
        champion: What `statistics` gave; must be `readable`.
    """
    then = champion["splits"]["train"]
    mean = np.array([then["features"][name]["group_mean"] for name in COLOUR_COLUMNS])
    spread = np.array([then["features"][name]["group_std"] for name in COLOUR_COLUMNS])
    # Groups that are all alike make any change look infinite; patches then tell what is much.
    patch = np.array([then["features"][name]["std"] for name in COLOUR_COLUMNS])
    return Reference(mean, np.maximum(spread, np.maximum(0.1 * patch, 1e-6)), int(then["groups"]))


@dataclasses.dataclass(frozen=True)
class Shift:
    """One feature in one comparison.

    Attributes:
        comparison: `train` or `held_out` (eval and test) against the champion's train split, `new_groups` against all
            groups that the champion's data set had, `same_groups` against themselves; `scored` what a model is given
            against its train split (`components.metrics.scored_drift`).
        feature: Name.
        difference: Standardised mean difference, now minus then, in deviations between the champion's groups.
        limit: What its absolute value must not exceed.
        now: Mean now, in the feature's unit.
        then: Mean in the champion's data.
        groups: Groups compared, now.
    """

    comparison: str
    feature: str
    difference: float
    limit: float
    now: float
    then: float
    groups: int

    @property
    def drifted(self) -> bool:
        """Whether the limit is exceeded."""
        return abs(self.difference) > self.limit


def compare(
    now: GroupMeans, champion: Mapping[str, Any], thresholds: Mapping[str, float] | None = None
) -> list[Shift]:
    """Compares a data set with the champion's statistics.

    Four comparisons, because each is blind to something: drift of the train split, skew of the held-out splits, new
    patients by themselves (a new scanner that reaches a tenth of the data would drown in the whole), and patients that
    both data sets hold (scanned anew: paired, so that few patients suffice).

    Args:
        now: Of the data set at hand.
        champion: What `statistics` gave for the champion's data set.
        thresholds: Instead of `THRESHOLDS`, for single features.

    Returns:
        Every feature of every comparison with enough groups on both sides.

    Raises:
        UsageError: Thresholds of unknown features, or statistics of another version.
    """
    limits = {**THRESHOLDS, **(thresholds or {})}
    if unknown := sorted(set(limits) - set(THRESHOLDS)):
        raise UsageError(
            f"There is no colour feature {unknown[0]!r}.", f"Features are {', '.join(THRESHOLDS)}."
        )
    if not readable(champion):
        raise UsageError(
            "The champion's colour statistics were written by another version of histoline.",
            "Train with --accept-drift REASON once: the next champion carries statistics of this version.",
        )
    origin = reference(champion)
    mean, spread, n = origin.mean, origin.spread, origin.groups
    shifts: list[Shift] = []

    def add(
        comparison: str, rows: npt.NDArray[np.float64], origin: npt.NDArray[np.float64], others: int
    ) -> None:
        if len(rows) < MIN_GROUPS or n < MIN_GROUPS:
            return
        found = rows.mean(axis=0)
        chance = Z * math.sqrt(1 / len(rows) + 1 / others) if others else 0.0
        for i, name in enumerate(COLOUR_COLUMNS):
            difference = float((found[i] - origin[i]) / spread[i])
            limit = max(limits[name], chance)
            shifts.append(
                Shift(comparison, name, difference, limit, float(found[i]), float(origin[i]), len(rows))
            )

    train = now.splits == "train"
    add("train", now.means[train], mean, n)
    add("held_out", now.means[~train], mean, n)
    old = champion.get("groups") or {}
    if old:
        known = np.isin(now.groups, list(old))
        past = np.array(list(old.values()), np.float64)
        add("new_groups", now.means[~known], past.mean(axis=0), len(past))
        if known.any():
            before = np.array([old[str(g)] for g in now.groups[known]], np.float64)
            add("same_groups", now.means[known], before.mean(axis=0), 0)
    return shifts


def summary(shifts: list[Shift], accepted: str = "", champion: str = "") -> dict[str, Any]:
    """The comparison as run.json keeps it.

    Args:
        shifts: Of `compare`; empty where there is no champion.
        accepted: Reason of --accept-drift.
        champion: Version compared with, empty for none.
    """
    drifted = [shift for shift in shifts if shift.drifted]
    return {
        "metric": "standardised mean difference between patient means",
        "champion": champion or None,
        "skipped": "" if champion else "no champion to compare with",
        "drifted": sorted({shift.feature for shift in drifted}),
        "accepted": accepted,
        "shifts": [{**dataclasses.asdict(shift), "drifted": shift.drifted} for shift in shifts],
    }


def sentence(shifts: list[Shift]) -> str:
    """The drifted features in words, the largest first; empty where there are none."""
    where = {
        "train": "the train split",
        "held_out": "the eval and test splits",
        "new_groups": "the groups that are new",
        "same_groups": "groups that both data sets hold",
        "scored": "what was scored",
    }
    drifted = sorted((s for s in shifts if s.drifted), key=lambda s: -abs(s.difference) / s.limit)
    sentences = [
        f"{s.feature} in {where[s.comparison]} is {s.now:.3g} instead of {s.then:.3g}"
        f" ({s.difference:+.2f} deviations between patients, limit {s.limit:.2f}, {s.groups} groups)"
        for s in drifted[:3]
    ]
    more = f", and {len(drifted) - 3} more" if len(drifted) > 3 else ""
    return "; ".join(sentences) + more
