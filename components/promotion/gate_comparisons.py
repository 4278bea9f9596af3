"""The paired comparisons that the gate decides on: arrays in, figures with limits out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.errors import UsageError
from components.metrics.bootstrap import BootstrapPlan, paired_difference
from components.metrics.error_spending import confidence_at, limits_at
from components.metrics.intervals import chance_of_passing, smallest_detectable_difference, unpaired_standard_error
from components.promotion.gate_types import GAINS, Chance, Comparison, GateInputs, GateModel, GatePolicy, Power


def compare(inputs: GateInputs, policy: GatePolicy) -> dict[str, Comparison]:
    """All comparisons that can be made, by what they are against; none without a candidate that answers with numbers.

    Args:
        inputs: Facts and arrays.
        policy: How resamples are drawn.

    Raises:
        UsageError: Arrays of different lengths or shapes, labels that are no class, a policy that does not fit.
    """
    n_classes = 2 if np.ndim(inputs.baseline) == 1 else np.shape(inputs.baseline)[1]
    _check_labels(np.asarray(inputs.labels), n_classes, policy)
    if inputs.candidate is None:
        return {}
    others = {"baseline": GateModel("colour baseline", inputs.baseline)}
    for key, model in (("champion", inputs.champion), ("best_ever", inputs.best_ever)):
        if model is not None:
            others[key] = model
    _check_scores(inputs, {"candidate": inputs.candidate, **others})
    if not np.isfinite(np.asarray(inputs.candidate.probability)).all():
        return {}
    plan = BootstrapPlan(
        resamples=policy.resamples,
        confidence=policy.confidence,
        pool=n_classes > 2 if policy.pool is None else policy.pool,
        seed=policy.seed,
    )
    comparisons: dict[str, Comparison] = {}
    for key, model in others.items():
        if key == "best_ever" and inputs.champion is not None and _same_answers(model, inputs.champion):
            comparisons[key] = dataclasses.replace(comparisons["champion"], against=key, name=model.name)
        else:
            comparisons[key] = _comparison(inputs, inputs.candidate, key, model, plan)
    return comparisons


def _check_labels(labels: npt.NDArray[Any], n_classes: int, policy: GatePolicy) -> None:
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise UsageError(
            f"The gate was given labels from {labels.min()} to {labels.max()} for {n_classes} classes.",
            "Every test patch needs a label of the task.",
        )
    if n_classes == 2 and policy.pool:
        raise UsageError(
            "The gate cannot pool patients over classes in a binary task, since AUC needs both classes.",
            "Leave `pool` out, and ingest more groups of the rare class into the test split.",
        )


def _check_scores(inputs: GateInputs, models: Mapping[str, GateModel]) -> None:
    """All models were scored on the same patches; only the candidate's numbers may be unusable."""
    shape, n_labels, n_groups = np.shape(inputs.baseline), np.size(inputs.labels), np.size(inputs.groups)
    for name, model in models.items():
        array = np.asarray(model.probability)
        if array.shape != shape or len(array) != n_labels or len(array) != n_groups:
            raise UsageError(
                f"The gate was given {n_labels} labels, {n_groups} groups and {name} probabilities of"
                f" shape {array.shape}.",
                "All models must be scored on the same test patches with the same classes.",
            )
        counted = array if model.scored is None else array[np.asarray(model.scored, bool)]
        if name != "candidate" and not np.isfinite(counted).all():
            raise UsageError(f"The {name} gave probabilities that are not finite.", "Roll back or retrain it.")


def _comparison(
    inputs: GateInputs, candidate: GateModel, against: str, other: GateModel, plan: BootstrapPlan
) -> Comparison:
    """The candidate against one model, on the groups that this one was not trained on."""
    labels, groups = np.asarray(inputs.labels), np.asarray(inputs.groups).astype(str)
    keep = ~np.isin(groups, list(other.trained_on)) if other.trained_on else np.ones(groups.size, bool)
    left_out = int(np.unique(groups[~keep]).size)
    if other.scored is not None:
        keep &= np.asarray(other.scored, bool)
    unpaired = int(np.unique(groups).size) - int(np.unique(groups[keep]).size) - left_out + other.others
    first, second = (np.asarray(model.probability)[keep] for model in (candidate, other))
    result = paired_difference(labels[keep], first, second, groups[keep], plan)
    difference = result.difference
    # What is not better than colours is not better than a champion that is: its comparison alone is spent on then.
    guarded = against == "baseline" and inputs.champion is not None and inputs.champion.by_gate
    look = 1 if guarded else inputs.look
    wanted = confidence_at(look, plan.confidence)
    low, high = limits_at(difference, plan.confidence, wanted)
    detectable = None
    if difference.standard_error is not None:
        detectable = smallest_detectable_difference(difference.standard_error, difference.groups, confidence=wanted)
    return Comparison(
        against=against,
        name=other.name,
        result=result,
        groups=int(np.unique(groups[keep]).size),
        left_out=left_out,
        smallest_detectable=detectable,
        look=look,
        confidence=wanted,
        low=low,
        high=high,
        unpaired=unpaired,
    )


def _same_answers(first: GateModel, second: GateModel) -> bool:
    """Whether two entries are one model, as the champion mostly is the best ever: then one comparison serves."""
    same = np.array_equal(first.probability, second.probability, equal_nan=True)
    return first.trained_on == second.trained_on and same


def detectable_difference(comparisons: Mapping[str, Comparison]) -> float | None:
    """Smallest detectable difference to the champion; of a first model, to an independent one as precise as it.

    Args:
        comparisons: As `compare` gives them.
    """
    if "champion" in comparisons:
        return comparisons["champion"].smallest_detectable
    if "baseline" not in comparisons:
        return None
    first = comparisons["baseline"].result.first
    if first.standard_error is None:
        return None
    error = unpaired_standard_error(first.standard_error)
    return smallest_detectable_difference(error, first.groups, confidence=comparisons["baseline"].confidence)


def power_of(comparisons: Mapping[str, Comparison], policy: GatePolicy) -> Power | None:
    """How likely the decisive comparison would have let a truly better model pass.

    Args:
        comparisons: As `compare` gives them.
        policy: What the gate asks for.

    Returns:
        None where no comparison decides, it has no interval, or its evidence is weak and could promote nothing.
    """
    against = "champion" if "champion" in comparisons else "baseline"
    criterion = policy.criterion if against == "champion" else policy.baseline
    comparison = comparisons.get(against)
    if comparison is None or criterion == "report":
        return None
    difference = comparison.result.difference
    if difference.standard_error is None or difference.weak:
        return None
    margin = policy.margin if criterion == "non-inferior" else 0.0
    error, groups = difference.standard_error, difference.groups
    chances = [Chance(d, chance_of_passing(error, groups, d + margin, comparison.confidence)) for d in GAINS]
    return Power(against, comparison.name, criterion, margin, error, tuple(chances))
