"""The gate: whether a trained model is promoted, and why, in a sentence that a pathologist can read.

`decide` is a pure function of arrays and facts; it loads no model and touches no file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from components.core.text import number
from components.metrics.bootstrap import TOO_FEW_GROUPS, BootstrapPlan
from components.metrics.error_spending import confidence_at
from components.promotion.gate_comparisons import compare, detectable_difference, power_of
from components.promotion.gate_types import Check, Comparison, GateDecision, GateInputs, GateModel, GatePolicy
from components.promotion.gate_words import CALLED, count, figures, metric_of

__all__ = ["Check", "Comparison", "GateDecision", "GateInputs", "GateModel", "GatePolicy", "decide"]


def decide(inputs: GateInputs, policy: GatePolicy | None = None) -> GateDecision:
    """Decides whether the candidate is promoted.

    In this order: drawn images never replace real ones, the data must be provably patient-disjoint, the floors met, the
    exported model sound, the colour baseline beaten (or what the policy says of it), and, unless it is the first model,
    the champion beaten (or not inferior, where the policy says so); and none of it on weak evidence. Comparisons use
    the same resamples of groups for both models and leave out the test groups that the other model was trained on; what
    decides is as certain as this look at the test split asks for.

    Args:
        inputs: Facts and arrays.
        policy: What is asked for; None: the default (`better`).

    Raises:
        UsageError: Arrays of different lengths or shapes, labels that are no class, a policy that does not
            fit.
    """
    policy = policy or GatePolicy()
    confidence = confidence_at(inputs.look, policy.confidence)
    comparisons = compare(inputs, policy)
    sound = _soundness(inputs)
    checks = [*sound, _baseline_check(inputs, policy, comparisons.get("baseline"))]
    code = "first_model"
    if inputs.incomparable:
        code = "other_decision"
        checks.append(Check(code, False, inputs.incomparable))
    elif inputs.champion is not None:
        code, check = _champion_check(inputs, policy, comparisons)
        checks.append(check)
    verdict = checks[-1]
    decisive = [] if policy.baseline == "report" else ["baseline"]
    decisive += ["champion", "best_ever"] if code in ("non_inferior", "inferior_to_best_ever") else ["champion"]
    counted = [comparisons[key] for key in decisive if key in comparisons]
    weak = any(c.result.difference.weak and c.result.difference.low is not None for c in counted)
    if weak:
        checks.append(_weakness(inputs, verdict))
    failed = next((check for check in checks if not check.passed), None)
    if failed:
        reason = f"Refused: {failed.detail}"
        if weak and failed not in (*sound, checks[-1]):
            reason += f"; weak evidence, as some classes have too few {inputs.group_unit}s and all were pooled"
    elif code == "first_model":
        reason = f"Promoted as the first model: it meets the floors, and {verdict.detail}"
    else:
        reason = f"Promoted: {verdict.detail}"
    if policy.requested and inputs.champion is not None and failed not in sound:
        reason += f"; policy {policy.requested} applied {_applied(policy)}, as {policy.why}"
    return GateDecision(
        decision="refused" if failed else "promoted",
        code=failed.code if failed else code,
        reason=f"{reason}. {inputs.remark}".rstrip(),
        metric=metric_of(inputs),
        checks=tuple(checks),
        comparisons=tuple(comparisons.values()),
        weak_evidence=weak,
        smallest_detectable=detectable_difference(comparisons),
        becomes_best_ever=failed is None and _at_least_best(comparisons, inputs),
        look=inputs.look,
        confidence=confidence,
        power=power_of(comparisons, policy),
    )


def _applied(policy: GatePolicy) -> str:
    return policy.criterion if policy.criterion == "better" else f"{policy.criterion} by {policy.margin:g}"


def _soundness(inputs: GateInputs) -> list[Check]:
    """Conditions that need no statistics."""
    unit, unknown = inputs.group_unit, "no reason was recorded"
    test_groups = {str(group) for group in np.unique(np.asarray(inputs.groups))}
    seen = test_groups & inputs.candidate.trained_on if inputs.candidate else set()
    leak = inputs.disjointness_reason or unknown
    if seen:
        leak = f"the model was trained on {count(len(seen), unit)} of the test split"

    def check(code: str, passed: bool, good: str, bad: str) -> Check:
        return Check(code, passed, good if passed else bad)

    drawn = check(
        "drawn_data",
        not inputs.real_champion,
        "its images are synthetic (a program drew them), and so are those of every champion that it could replace",
        f"its images are synthetic (a program drew them), and champion {inputs.real_champion} was trained on real ones:"
        " such a model never replaces it",
    )
    return [
        *([drawn] if inputs.drawn else []),
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


def _weakness(inputs: GateInputs, verdict: Check) -> Check:
    """Refusal of what rests on pooled classes alone; what was found is told all the same."""
    least, unit = BootstrapPlan().min_groups_per_class, inputs.group_unit
    return Check(
        "weak_evidence",
        False,
        f"the evidence is weak and promotes nothing by itself, as some classes have fewer than {least} test {unit}s and"
        f" {unit}s of all classes were pooled: {verdict.detail}",
    )


def _baseline_check(inputs: GateInputs, policy: GatePolicy, comparison: Comparison | None) -> Check:
    if comparison is None:
        return Check("baseline_not_beaten", False, "the model gave no usable probabilities to compare")
    if policy.baseline == "report":
        difference = comparison.result.difference
        shown = f": {figures(inputs, comparison)}" if difference.low is not None else ""
        return Check("baseline_reported", True, f"the colour baseline is compared with but does not decide{shown}")
    if comparison.low is None:
        return _no_interval(inputs, comparison)
    if policy.baseline == "non-inferior":
        passed = comparison.low > -policy.margin
        verb = f"is at most {policy.margin:g} below" if passed else f"may be more than {policy.margin:g} below"
    else:
        passed = comparison.low > 0
        verb = "beats" if passed else "is not shown to beat"
    detail = f"it {verb} the colour baseline: {figures(inputs, comparison)}"
    return Check("baseline_not_beaten", passed, detail)


def _champion_check(inputs: GateInputs, policy: GatePolicy, comparisons: Mapping[str, Comparison]) -> tuple[str, Check]:
    """Code and check of the comparison with the champion, and with the best ever where that counts."""
    champion = comparisons.get("champion")
    if champion is None:
        return "worse", Check("worse", False, "the model gave no usable probabilities to compare with the champion")
    if champion.low is None or champion.high is None:
        check = _no_interval(inputs, champion)
        return check.code, check
    shown = figures(inputs, champion)
    name = f"champion {champion.name}"
    if champion.low > 0:
        return "better", Check("better", True, f"it is better than the {name}: {shown}")
    if policy.criterion == "better":
        if champion.high < 0:
            return "worse", Check("worse", False, f"it is worse than the {name}: {shown}")
        detail = f"it cannot be told apart from the {name}: {shown}{_likely_found(champion)}"
        return "not_distinguishable", Check("not_distinguishable", False, detail)
    if not champion.low > -policy.margin:
        detail = f"it may be more than {policy.margin:g} below the {name}: {shown}"
        return "inferior_to_champion", Check("inferior_to_champion", False, detail)
    best = comparisons.get("best_ever")
    if best is not None:
        if best.low is None:
            check = _no_interval(inputs, best)
            return check.code, check
        if not best.low > -policy.margin:
            detail = (
                f"it may be more than {policy.margin:g} below the best model ever promoted, {best.name}:"
                f" {figures(inputs, best)}"
            )
            return "inferior_to_best_ever", Check("inferior_to_best_ever", False, detail)
    also = "" if best is None else " nor below the best model ever promoted"
    detail = f"it is at most {policy.margin:g} below the {name}{also}: {shown}"
    return "non_inferior", Check("non_inferior", True, detail)


def _likely_found(comparison: Comparison) -> str:
    """What a comparison that found nothing could have found, as a clause."""
    if not comparison.result.difference.standard_error:
        return ", the same on every resample: both models answer alike"
    least = number(comparison.smallest_detectable, 3 if (comparison.smallest_detectable or 0) >= 0.0005 else 6)
    return f", while only a difference of {least} or more was likely to be found"


def _no_interval(inputs: GateInputs, comparison: Comparison) -> Check:
    """Refusal where a comparison has no interval."""
    reason = comparison.result.difference.reason
    unit = inputs.group_unit
    what = f"{count(comparison.groups, unit)} to compare with the {CALLED[comparison.against]} on"
    if comparison.left_out:
        what += f" ({count(comparison.left_out, unit)} that it was trained on left out)"
    if reason == TOO_FEW_GROUPS:
        plan = BootstrapPlan()
        need = f"at least {plan.min_groups_per_class} of each class are needed"
        if np.ndim(inputs.baseline) == 2:
            need += f", or {plan.min_groups_pooled} in all where classes may be pooled"
        return Check(TOO_FEW_GROUPS, False, f"the test split has too few {unit}s, {what}; {need}")
    return Check("no_interval", False, f"the metric has no interval ({reason}) with {what}")


def _at_least_best(comparisons: Mapping[str, Comparison], inputs: GateInputs) -> bool:
    """Whether the candidate is the best so far; where the two cannot be compared the old one stays."""
    return inputs.best_ever is None or comparisons["best_ever"].result.difference.estimate >= 0
