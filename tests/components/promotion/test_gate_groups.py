"""Which groups the gate counts: left out, too few, pooled over classes, or leaked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.errors import UsageError
from components.metrics import point
from components.promotion.gate import GateInputs, GateModel, GatePolicy, decide
from tests.components.promotion.test_gate import (
    GROUPS,
    LABELS,
    NON_INFERIOR,
    comparison,
    figures,
    inputs,
    model,
    only_groups,
    scores,
)


def test_groups_that_the_champion_trained_on_are_left_out():
    known = sorted(set(GROUPS))[:18]
    memorised = scores(1.5, 2)
    memorised[np.isin(GROUPS, known)] = LABELS[np.isin(GROUPS, known)]
    honest = decide(inputs(champion=GateModel("old", memorised, frozenset([*known, "elsewhere"]))))
    assert honest.code == "better"
    left = comparison(honest, "champion")
    assert (left.groups, left.left_out) == (12, 18) and "leaving out 18" in honest.reason
    rest = ~np.isin(GROUPS, known)
    assert left.result.first.estimate == pytest.approx(point.roc_auc(LABELS[rest], scores(2.5, 1)[rest]))
    assert comparison(honest, "baseline").groups == 30
    fooled = decide(inputs(champion=GateModel("old", memorised)))
    assert fooled.decision == "refused"


def test_a_champion_trained_on_nearly_all_test_groups_leaves_too_few():
    for known in (sorted(set(GROUPS))[4:], set(GROUPS)):
        decision = decide(inputs(champion=model(1.0, 2, trained_on=known)))
        assert (decision.decision, decision.code) == ("refused", "too_few_groups")
        assert f"({len(known)} patients that it was trained on left out)" in decision.reason


def test_too_few_groups_of_a_class_is_refused_for_binary():
    few = only_groups(inputs(champion=1.0), sorted(set(GROUPS))[:4])
    decision = decide(few)
    assert (decision.decision, decision.code) == ("refused", "too_few_groups")
    assert figures(decision).difference.low is None
    assert "4 patients" in decision.reason and "at least 5 of each class" in decision.reason
    assert decide(dataclasses.replace(few, champion=None)).code == "too_few_groups"
    rare = (np.isin(GROUPS, sorted(set(GROUPS))[:4]) & (LABELS == 1)).astype(int)
    assert decide(inputs(labels=rare)).code == "too_few_groups"
    with pytest.raises(UsageError, match="pool"):
        decide(few, GatePolicy(pool=True))


@pytest.mark.parametrize(("disjointness", "code"), [("leaky", "leaky_split"), ("unproven", "not_provably_disjoint")])
def test_leaky_or_unproven_data_never_promote(disjointness, code):
    made = inputs(champion=0.6, disjointness=disjointness, disjointness_reason="ingested with --allow-leak")
    for policy in (GatePolicy(), NON_INFERIOR):
        decision = decide(made, policy)
        assert (decision.decision, decision.code) == ("refused", code)
        assert "ingested with --allow-leak" in decision.reason
    assert decide(dataclasses.replace(made, champion=None)).code == code


def test_a_candidate_trained_on_test_groups_is_a_leak():
    decision = decide(inputs(candidate=model(2.5, 1, trained_on=["patient-03", "other"])))
    assert decision.code == "leaky_split" and "1 patient of the test split" in decision.reason


def subtype_inputs(patients: int, classes: int = 8, candidate: float = 3.0, champion: float | None = 0.5):
    group = np.repeat(np.arange(patients), 12)
    y = group % classes
    noise = np.random.default_rng(1).normal(size=(2, y.size, classes))

    def scored(effect, own):
        z = np.exp(effect * np.eye(classes)[y] + noise[0] + 0.3 * noise[1] * own)
        return z / z.sum(axis=1, keepdims=True)

    return GateInputs(
        labels=y,
        groups=group.astype(str),
        candidate=GateModel("run-8", scored(candidate, 1)),
        baseline=scored(0.2, 0),
        champion=None if champion is None else GateModel("old", scored(champion, -1)),
    )


def test_subtype_pools_and_promotes_nothing_on_weak_evidence():
    decision = decide(subtype_inputs(12))
    assert (decision.decision, decision.code, decision.metric) == ("refused", "weak_evidence", "macro_f1")
    assert decision.weak_evidence and not decision.becomes_best_ever and decision.power is None
    assert "fewer than 5 test patients" in decision.reason and "better than the champion" in decision.reason
    assert "macro-F1" in decision.reason and decision.reason.count("weak") == 1
    assert figures(decision).difference.low > 0, "the figures are shown all the same"
    first = decide(subtype_inputs(12, champion=None))
    assert (first.decision, first.code) == ("refused", "weak_evidence") and "beats the colour" in first.reason
    worse = decide(subtype_inputs(12, candidate=0.5, champion=3.0))
    assert worse.code != "weak_evidence" and "weak evidence" in worse.reason


def test_a_pooled_comparison_that_does_not_decide_is_no_weak_evidence():
    decision = decide(subtype_inputs(12, champion=None), GatePolicy(baseline="report"))
    assert (decision.decision, decision.code, decision.weak_evidence) == ("promoted", "first_model", False)


def test_subtype_needs_ten_groups_and_pooling_can_be_switched_off():
    nine = decide(subtype_inputs(9))
    assert (nine.decision, nine.code) == ("refused", "too_few_groups")
    assert "or 10 in all" in nine.reason and not nine.weak_evidence
    assert decide(subtype_inputs(10)).code == "weak_evidence"
    assert decide(subtype_inputs(12), GatePolicy(pool=False)).code == "too_few_groups"


def test_subtype_with_enough_groups_is_not_weak():
    decision = decide(subtype_inputs(20, classes=4))
    assert decision.code == "better" and not decision.weak_evidence and "weak" not in decision.reason
