"""The gate: whether a trained model is promoted, and why, in a sentence that a pathologist can read.

`decide` is a pure function of arrays and facts; it loads no model and touches no file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from components.errors import UsageError
from components.metrics.bootstrap import TOO_FEW_GROUPS, BootstrapPlan, paired_difference
from components.metrics.intervals import Interval, smallest_detectable_difference, unpaired_standard_error
from components.promotion.gate_types import Check, Comparison, GateDecision, GateInputs, GateModel, GatePolicy

__all__ = ["Check", "Comparison", "GateDecision", "GateInputs", "GateModel", "GatePolicy", "decide"]


def decide(inputs: GateInputs, policy: GatePolicy | None = None) -> GateDecision:
    """Decides whether the candidate is promoted.

    In this order: the data must be provably patient-disjoint, the floors met, the exported model sound, the
    colour baseline beaten, and, unless it is the first model, the champion beaten (or not inferior, where the
    policy says so). Comparisons use the same resamples of groups for both models and leave out the test
    groups that the other model was trained on.

    Args:
        inputs: Facts and arrays.
        policy: What is asked for; None: the default (`better`).

    Raises:
        UsageError: Arrays of different lengths or shapes, labels that are no class, a policy that does not
            fit.
    """
    policy = policy or GatePolicy()
    comparisons = _compare(inputs, policy)
    sound = _soundness(inputs)
    checks = [*sound, _baseline_check(inputs, policy, comparisons.get("baseline"))]
    code = "first_model"
    if inputs.champion is not None:
        code, check = _champion_check(inputs, policy, comparisons)
        checks.append(check)
    failed = next((check for check in checks if not check.passed), None)
    counted = [comparisons[key] for key in ("baseline", "champion") if key in comparisons]
    if code in ("non_inferior", "inferior_to_best_ever"):
        counted += [comparisons["best_ever"]] if "best_ever" in comparisons else []
    weak = any(c.result.difference.weak and c.result.difference.low is not None for c in counted)
    weakness = ""
    if weak and not (failed and failed in sound):
        weakness = f"; weak evidence, as some classes have too few {inputs.group_unit}s and all were pooled"
    if failed:
        reason = f"Refused: {failed.detail}"
    elif code == "first_model":
        reason = f"Promoted as the first model: it meets the floors, and {checks[-1].detail}"
    else:
        reason = f"Promoted: {checks[-1].detail}"
    return GateDecision(
        decision="refused" if failed else "promoted",
        code=failed.code if failed else code,
        reason=f"{reason}{weakness}.",
        metric="macro_f1" if np.ndim(inputs.baseline) == 2 else "auc",
        checks=tuple(checks),
        comparisons=tuple(comparisons.values()),
        weak_evidence=weak,
        smallest_detectable=_detectable(comparisons, policy),
        becomes_best_ever=failed is None and _at_least_best(comparisons, inputs),
    )


def _soundness(inputs: GateInputs) -> list[Check]:
    """Conditions that need no statistics."""
    unit, unknown = inputs.group_unit, "no reason was recorded"
    test_groups = {str(group) for group in np.unique(np.asarray(inputs.groups))}
    seen = test_groups & inputs.candidate.trained_on if inputs.candidate else set()
    leak = inputs.disjointness_reason or unknown
    if seen:
        leak = f"the model was trained on {_count(len(seen), unit)} of the test split"

    def check(code: str, passed: bool, good: str, bad: str) -> Check:
        return Check(code, passed, good if passed else bad)

    return [
        check(
            "leaky_split",
            inputs.disjointness != "leaky" and not seen,
            f"no {unit} of the test split was trained on",
            f"the data set is leaky and can never promote a model ({leak})",
        ),
        check(
            "not_provably_disjoint",
            inputs.disjointness != "unproven",
            f"the splits share no {unit}",
            f"the splits are not proved to be disjoint by patient, so no model is promoted ({leak})",
        ),
        check(
            "below_floors",
            inputs.blessed,
            "the model meets the absolute floors",
            f"the model does not meet the absolute floors ({inputs.blessing_reason or unknown})",
        ),
        check(
            "does_not_answer",
            inputs.answers and inputs.candidate is not None,
            "the exported model loads afresh and answers as it did in the run",
            "the exported model does not load afresh and answer as it did in the run"
            f" ({inputs.answers_reason or unknown})",
        ),
    ]


def _compare(inputs: GateInputs, policy: GatePolicy) -> dict[str, Comparison]:
    """All comparisons that can be made; none without a candidate that answers with numbers."""
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
        if name != "candidate" and not np.isfinite(array).all():
            raise UsageError(f"The {name} gave probabilities that are not finite.", "Roll back or retrain it.")


def _comparison(
    inputs: GateInputs, candidate: GateModel, against: str, other: GateModel, plan: BootstrapPlan
) -> Comparison:
    """The candidate against one model, on the groups that this one was not trained on."""
    labels, groups = np.asarray(inputs.labels), np.asarray(inputs.groups).astype(str)
    keep = ~np.isin(groups, list(other.trained_on)) if other.trained_on else np.ones(groups.size, bool)
    first, second = (np.asarray(model.probability)[keep] for model in (candidate, other))
    result = paired_difference(labels[keep], first, second, groups[keep], plan)
    error = result.difference.standard_error
    return Comparison(
        against=against,
        name=other.name,
        result=result,
        groups=int(np.unique(groups[keep]).size),
        left_out=int(np.unique(groups[~keep]).size),
        smallest_detectable=None
        if error is None
        else smallest_detectable_difference(error, confidence=plan.confidence),
    )


def _same_answers(first: GateModel, second: GateModel) -> bool:
    """Whether two entries are one model, as the champion mostly is the best ever: then one comparison serves."""
    return first.trained_on == second.trained_on and np.array_equal(first.probability, second.probability)


def _baseline_check(inputs: GateInputs, policy: GatePolicy, comparison: Comparison | None) -> Check:
    if comparison is None:
        return Check("baseline_not_beaten", False, "the model gave no usable probabilities to compare")
    difference = comparison.result.difference
    if difference.low is None:
        return _no_interval(inputs, comparison)
    beaten = difference.low > 0
    verb = "beats" if beaten else "is not shown to beat"
    return Check(
        "baseline_not_beaten",
        beaten,
        f"it {verb} the colour baseline: {_figures(inputs, policy, comparison)}",
    )


def _champion_check(inputs: GateInputs, policy: GatePolicy, comparisons: Mapping[str, Comparison]) -> tuple[str, Check]:
    """Code and check of the comparison with the champion, and with the best ever where that counts."""
    champion = comparisons.get("champion")
    if champion is None:
        return "worse", Check("worse", False, "the model gave no usable probabilities to compare with the champion")
    difference = champion.result.difference
    if difference.low is None or difference.high is None:
        check = _no_interval(inputs, champion)
        return check.code, check
    figures = _figures(inputs, policy, champion)
    name = f"champion {champion.name}"
    if difference.low > 0:
        return "better", Check("better", True, f"it is better than the {name}: {figures}")
    if policy.criterion == "better":
        if difference.high < 0:
            return "worse", Check("worse", False, f"it is worse than the {name}: {figures}")
        could = f", while only a difference of {champion.smallest_detectable:.3f} or more was likely to be found"
        detail = f"it cannot be told apart from the {name}: {figures}{could}"
        return "not_distinguishable", Check("not_distinguishable", False, detail)
    if not difference.low > -policy.margin:
        detail = f"it may be more than {policy.margin:g} below the {name}: {figures}"
        return "inferior_to_champion", Check("inferior_to_champion", False, detail)
    best = comparisons.get("best_ever")
    if best is not None:
        if best.result.difference.low is None:
            check = _no_interval(inputs, best)
            return check.code, check
        if not best.result.difference.low > -policy.margin:
            detail = (
                f"it may be more than {policy.margin:g} below the best model ever promoted, {best.name}:"
                f" {_figures(inputs, policy, best)}"
            )
            return "inferior_to_best_ever", Check("inferior_to_best_ever", False, detail)
    also = "" if best is None else " nor below the best model ever promoted"
    detail = f"it is at most {policy.margin:g} below the {name}{also}: {figures}"
    return "non_inferior", Check("non_inferior", True, detail)


def _no_interval(inputs: GateInputs, comparison: Comparison) -> Check:
    """Refusal where a comparison has no interval."""
    reason = comparison.result.difference.reason
    unit = inputs.group_unit
    what = f"{_count(comparison.groups, unit)} to compare with the {_called(comparison)} on"
    if comparison.left_out:
        what += f" ({_count(comparison.left_out, unit)} that it was trained on left out)"
    if reason == TOO_FEW_GROUPS:
        plan = BootstrapPlan()
        need = f"at least {plan.min_groups_per_class} of each class are needed"
        if np.ndim(inputs.baseline) == 2:
            need += f", or {plan.min_groups_pooled} in all where classes may be pooled"
        return Check(TOO_FEW_GROUPS, False, f"the test split has too few {unit}s, {what}; {need}")
    return Check("no_interval", False, f"the metric has no interval ({reason}) with {what}")


def _detectable(comparisons: Mapping[str, Comparison], policy: GatePolicy) -> float | None:
    if "champion" in comparisons:
        return comparisons["champion"].smallest_detectable
    if "baseline" not in comparisons:
        return None
    error = comparisons["baseline"].result.first.standard_error
    if error is None:
        return None
    return smallest_detectable_difference(unpaired_standard_error(error), confidence=policy.confidence)


def _at_least_best(comparisons: Mapping[str, Comparison], inputs: GateInputs) -> bool:
    """Whether the candidate is the best so far; where the two cannot be compared the old one stays."""
    return inputs.best_ever is None or comparisons["best_ever"].result.difference.estimate >= 0


def _called(comparison: Comparison) -> str:
    names = {"baseline": "colour baseline", "champion": "champion", "best_ever": "best model ever promoted"}
    return names[comparison.against]


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _figures(inputs: GateInputs, policy: GatePolicy, comparison: Comparison) -> str:
    """Both figures, the difference and its interval, and on how many groups."""
    metric = "macro-F1" if np.ndim(inputs.baseline) == 2 else "AUC"
    first, second, difference = (
        comparison.result.first,
        comparison.result.second,
        comparison.result.difference,
    )
    on = _count(comparison.groups, inputs.group_unit)
    if comparison.left_out:
        on += f", leaving out {comparison.left_out} that the other model was trained on"
    return (
        f"{metric} {first.estimate:.3f} against {second.estimate:.3f}, difference {difference.estimate:+.3f}"
        f" ({policy.confidence * 100:g} % interval {_limits(difference)}; {on})"
    )


def _limits(interval: Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}"
