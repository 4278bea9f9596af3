"""Which trial is chosen: the simplest within one standard error of the best, all judged on the same resamples.

The one-standard-error rule (Breiman, Friedman, Olshen and Stone 1984, Classification and Regression Trees, section
3.4.3), with the standard error of the difference, paired by patient: what two models share cancels out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.core.array_types import Array
from components.core.text import number, plural
from components.metrics.bootstrap import BootstrapPlan, Resamples, percentile_interval, plan_resamples
from components.metrics.intervals import Interval
from components.metrics.resampled import weighted_primary
from components.sweeps.sweep_types import Choice

METRICS = {"auc": "AUC", "macro_f1": "macro-F1"}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trial that was trained to its end.

    Attributes:
        number: Of the trial.
        name: Of its recipe, for people.
        probability: P(positive) [N], or [N, C].
        parameters: Weights of the network.
        pixels: Image area that the network works on for one image.
    """

    number: int
    name: str
    probability: Array
    parameters: int
    pixels: int

    @property
    def label(self) -> str:
        """Trial and recipe, as sentences name it."""
        return f"trial {self.number} ({self.name})"


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A candidate beside the best one.

    Attributes:
        candidate: The trial.
        estimate: Its primary metric.
        difference: That minus the best one's, paired by patient; 0 of the best itself.
    """

    candidate: Candidate
    estimate: float
    difference: Interval

    @property
    def within(self) -> bool:
        """Whether it lies within one standard error of the best; without one only the best does."""
        error = self.difference.standard_error
        return self.difference.estimate >= -(error or 0.0)


def rank(
    labels: npt.ArrayLike, groups: npt.ArrayLike, candidates: Sequence[Candidate], plan: BootstrapPlan
) -> list[Ranked]:
    """Sets all candidates beside the best, best first.

    Args:
        labels: Class numbers, [N].
        groups: Group of each patch, [N].
        candidates: At least one, all of the same patches.
        plan: How patients are drawn.
    """
    n_classes = 2 if candidates[0].probability.ndim == 1 else candidates[0].probability.shape[1]
    resamples = plan_resamples(labels, groups, n_classes, plan)
    points, values = [], []
    for candidate in candidates:
        metric = weighted_primary(np.asarray(labels), candidate.probability, resamples.index, resamples.groups)
        points.append(float(metric(np.ones((1, resamples.groups)))[0]))
        values.append(metric(resamples.weights) if len(resamples.weights) else np.zeros(0))
    # Of equals the simpler one is the best.
    order = sorted(range(len(candidates)), key=lambda i: (-points[i], *_cost(candidates[i])))
    best = order[0]
    return [Ranked(candidates[i], points[i], _difference(points, values, i, best, resamples)) for i in order]


def _difference(points: list[float], values: list[Array], at: int, best: int, resamples: Resamples) -> Interval:
    if at == best:
        return Interval(0.0, 0.0, 0.0, 0.0, groups=resamples.groups, weak=resamples.weak)
    return percentile_interval(points[at] - points[best], values[at] - values[best], resamples)


def _cost(candidate: Candidate) -> tuple[int, int, int]:
    """What a simpler one has less of: weights, then work for an image; of equals the earlier trial."""
    return candidate.parameters, candidate.pixels, candidate.number


def choose(ranked: Sequence[Ranked], unit: str, where: str = "eval") -> Choice:
    """Applies the rule and says what it did.

    Args:
        ranked: Of `rank`.
        unit: What was drawn: patient, slide or image.
        where: Whose patients they are.
    """
    best = ranked[0]
    within = [entry for entry in ranked if entry.within]
    winner = min(within, key=lambda entry: _cost(entry.candidate))
    return Choice(
        best=best.candidate.number,
        winner=winner.candidate.number,
        reason=_reason(ranked, within, winner, unit, where),
        within=tuple(entry.candidate.number for entry in within),
        differences={str(entry.candidate.number): dataclasses.asdict(entry.difference) for entry in ranked},
    )


def _reason(ranked: Sequence[Ranked], within: Sequence[Ranked], winner: Ranked, unit: str, where: str) -> str:
    best = ranked[0]
    metric = METRICS["auc" if best.candidate.probability.ndim == 1 else "macro_f1"]
    head = f"T{winner.candidate.label[1:]} is chosen, {metric} {number(winner.estimate)}"
    head += f" on the {unit}s of {where}"
    if len(ranked) == 1:
        return f"{head}: no other trial was trained to its end."
    if winner is not best:
        error = winner.difference.standard_error
        cheaper = (
            f"{winner.candidate.parameters:,} weights against {best.candidate.parameters:,}"
            if winner.candidate.parameters != best.candidate.parameters
            else f"{winner.candidate.pixels:,} pixels of work for an image against {best.candidate.pixels:,}"
        )
        return (
            f"{head}: it is the simplest ({cheaper}) within one standard error of the best, {best.candidate.label} with"
            f" {number(best.estimate)}: {number(-winner.difference.estimate)} below, where the difference has a"
            f" standard error of {number(error)}, paired by {unit}."
        )
    if all(entry.difference.standard_error is None for entry in ranked[1:]):
        why = ranked[1].difference.reason.replace("_", " ")
        return f"{head}: it is the best; how far the others really lie behind can't be said ({why})."
    others = [entry for entry in within if entry is not winner]
    if others:
        count = plural(len(others), "other trial")
        verb = "lies" if len(others) == 1 else "lie"
        return f"{head}: it is the best, and the simplest too; {count} {verb} within one standard error of it."
    return f"{head}: it is the best, and no other lies within one standard error of it (paired by {unit})."
