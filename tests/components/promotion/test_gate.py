"""The gate, sentence by sentence of its contract."""

from __future__ import annotations

import dataclasses
import json
import statistics

import numpy as np
import pytest

from components.errors import UsageError
from components.metrics import point
from components.promotion.gate import GateInputs, GateModel, GatePolicy, decide
from components.promotion.gate_words import power_line

PATIENTS, PATCHES = 30, 30
GROUPS = np.array([f"patient-{i:02d}" for i in np.repeat(np.arange(PATIENTS), PATCHES)])
_RNG = np.random.default_rng(0)
LABELS = (_RNG.random(GROUPS.size) < _RNG.beta(2, 2, PATIENTS).repeat(PATCHES)).astype(int)
NOISE = _RNG.normal(size=(4, GROUPS.size))
NON_INFERIOR = GatePolicy(criterion="non-inferior", margin=0.02)


def scores(effect: float, own: int = 0, share: float = 0.3):
    """Probabilities whose AUC rises with `effect`; models share most noise and differ by noise row `own`."""
    logit = effect * (LABELS - 0.5) + NOISE[3] + share * NOISE[own]
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


BASELINE = scores(0.5)


def model(effect: float, own: int = 0, name: str = "1700000000", trained_on=()):
    return GateModel(name, scores(effect, own), frozenset(trained_on))


def inputs(candidate=2.5, champion=None, **changes) -> GateInputs:
    made = GateInputs(
        labels=LABELS,
        groups=GROUPS,
        candidate=model(candidate, 1, "run-7") if isinstance(candidate, float) else candidate,
        baseline=BASELINE,
        champion=model(champion, 2) if isinstance(champion, float) else champion,
    )
    return dataclasses.replace(made, **changes)


def comparison(decision, against):
    return next(c for c in decision.comparisons if c.against == against)


def figures(decision, against="champion"):
    return comparison(decision, against).result


def only_groups(made: GateInputs, names) -> GateInputs:
    keep = np.isin(GROUPS, list(names))

    def part(m):
        return m and dataclasses.replace(m, probability=np.asarray(m.probability)[keep])

    return dataclasses.replace(
        made,
        labels=LABELS[keep],
        groups=GROUPS[keep],
        baseline=np.asarray(made.baseline)[keep],
        candidate=part(made.candidate),
        champion=part(made.champion),
        best_ever=part(made.best_ever),
    )


def test_the_first_model_needs_floors_and_baseline_only():
    decision = decide(inputs())
    assert (decision.decision, decision.code, decision.metric) == ("promoted", "first_model", "auc")
    assert decision.reason.startswith("Promoted as the first model: it meets the floors, and it beats the colour")
    assert decision.becomes_best_ever and not decision.weak_evidence
    assert figures(decision, "baseline").difference.low > 0
    assert all(check.passed for check in decision.checks)


def test_the_reason_is_one_sentence_with_the_figures():
    decision = decide(inputs(champion=1.5))
    result = figures(decision)
    for figure in (result.first.estimate, result.second.estimate):
        assert f"{figure:.3f}" in decision.reason
    for figure in (result.difference.estimate, result.difference.low, result.difference.high):
        assert f"{figure:+.3f}" in decision.reason
    assert "95 % interval" in decision.reason and "30 patients" in decision.reason
    assert "1700000000" in decision.reason
    assert decision.reason.endswith(".") and ". " not in decision.reason and "\n" not in decision.reason
    slides = decide(inputs(champion=1.5, group_unit="slide")).reason
    assert "30 slides" in slides and "patient" not in slides


def test_not_blessed_is_refused_whatever_else_holds():
    decision = decide(inputs(champion=0.6, blessed=False, blessing_reason="AUC 0.71 is below the floor of 0.75"))
    assert (decision.decision, decision.code) == ("refused", "below_floors")
    assert "AUC 0.71 is below the floor of 0.75" in decision.reason
    assert figures(decision).difference.low > 0, "the comparison is made and shown all the same"


def test_a_blessing_alone_does_not_promote():
    assert decide(inputs(champion=3.5, blessed=True)).decision == "refused"


def test_a_model_that_does_not_answer_is_refused():
    decision = decide(inputs(answers=False, answers_reason="serve_bytes differs by 0.02"))
    assert decision.code == "does_not_answer" and "serve_bytes differs by 0.02" in decision.reason
    gone = decide(inputs(champion=1.0, candidate=None, answers=False, answers_reason="no saved_model.pb"))
    assert gone.code == "does_not_answer" and gone.comparisons == () and not gone.becomes_best_ever
    broken = np.array(scores(2.5))
    broken[3] = np.nan
    nan = decide(inputs(champion=1.0, candidate=GateModel("run-7", broken)))
    assert nan.decision == "refused" and "no usable probabilities" in nan.reason


def test_the_colour_baseline_must_be_beaten():
    same = decide(inputs(candidate=0.5))
    assert (same.decision, same.code) == ("refused", "baseline_not_beaten")
    assert figures(same, "baseline").difference.low <= 0
    assert "is not shown to beat the colour baseline" in same.reason
    # Also where the champion is beaten.
    assert decide(inputs(candidate=0.5, champion=0.01)).code == "baseline_not_beaten"


def test_better_is_promoted():
    decision = decide(inputs(champion=1.5))
    assert (decision.decision, decision.code) == ("promoted", "better")
    result = figures(decision)
    assert result.difference.low > 0
    assert result.first.estimate == pytest.approx(point.roc_auc(LABELS, scores(2.5, 1)))
    assert result.second.estimate == pytest.approx(point.roc_auc(LABELS, scores(1.5, 2)))


def test_worse_is_refused():
    decision = decide(inputs(champion=3.5))
    assert (decision.decision, decision.code) == ("refused", "worse")
    assert "worse than the champion" in decision.reason and not decision.becomes_best_ever


def test_not_distinguishable_is_refused_and_says_what_could_have_been_found():
    decision = decide(inputs(champion=2.5))
    result = figures(decision)
    assert (decision.decision, decision.code) == ("refused", "not_distinguishable")
    assert result.difference.low <= 0 <= result.difference.high
    expected = 2.92188 * result.difference.standard_error  # Student, 29 degrees of freedom
    assert decision.smallest_detectable == pytest.approx(expected, rel=1e-4)
    assert f"{decision.smallest_detectable:.3f} or more was likely to be found" in decision.reason


def test_ahead_by_chance_is_not_better():
    decision = decide(inputs(champion=2.4))
    result = figures(decision)
    assert result.difference.low <= 0 < result.difference.estimate
    assert (decision.decision, decision.code) == ("refused", "not_distinguishable")


def test_a_champion_that_is_the_best_ever_is_compared_once():
    champion = model(2.5, 2)
    decision = decide(inputs(champion=champion, best_ever=champion), NON_INFERIOR)
    assert decision.code == "non_inferior"
    assert figures(decision, "best_ever") is figures(decision, "champion")


def test_without_a_champion_the_detectable_difference_is_that_of_an_independent_model():
    decision = decide(inputs())
    error = figures(decision, "baseline").first.standard_error
    assert decision.smallest_detectable == pytest.approx(2.92188 * 2**0.5 * error, rel=1e-4)


def test_non_inferior_is_off_by_default_and_needs_the_margin():
    made = inputs(champion=2.5)
    assert decide(made).code == "not_distinguishable"
    decision = decide(made, NON_INFERIOR)
    assert (decision.decision, decision.code) == ("promoted", "non_inferior")
    assert -0.02 < figures(decision).difference.low <= 0
    narrow = decide(made, dataclasses.replace(NON_INFERIOR, margin=0.001))
    assert (narrow.decision, narrow.code) == ("refused", "inferior_to_champion")
    assert decide(inputs(champion=3.5), NON_INFERIOR).code == "inferior_to_champion"


def test_non_inferior_also_counts_against_the_best_ever():
    made = inputs(champion=2.5, best_ever=model(3.2, 0, "1600000000"))
    decision = decide(made, NON_INFERIOR)
    assert (decision.decision, decision.code) == ("refused", "inferior_to_best_ever")
    assert "1600000000" in decision.reason
    close = decide(inputs(champion=2.5, best_ever=model(2.5, 0)), NON_INFERIOR)
    assert close.code == "non_inferior" and "best model ever" in close.reason


def test_drift_by_small_steps_down_is_stopped_by_the_best_ever():
    best = champion = GateModel("v0", scores(3.0, 0, 0.05))
    accepted = 0
    for step in range(1, 12):
        candidate = GateModel(f"v{step}", scores(3.0 - 0.07 * step, 0, 0.05))
        made = inputs(champion=champion, candidate=candidate, best_ever=best)
        decision = decide(made, dataclasses.replace(NON_INFERIOR, resamples=300))
        if decision.decision == "refused":
            assert decision.code == "inferior_to_best_ever"
            break
        assert not decision.becomes_best_ever
        champion, accepted = candidate, accepted + 1
    else:
        pytest.fail("small losses were promoted without end")
    assert accepted >= 1
    assert point.roc_auc(LABELS, champion.probability) > point.roc_auc(LABELS, best.probability) - 0.02
    # Against the champion alone the same candidate would have passed.
    alone = dataclasses.replace(made, best_ever=None)
    assert decide(alone, dataclasses.replace(NON_INFERIOR, resamples=300)).decision == "promoted"


def test_later_looks_need_more_certainty():
    first = decide(inputs(champion=2.29))
    low, high = first.comparisons[1].low, first.comparisons[1].high
    assert (first.code, first.confidence) == ("better", 0.95) and "look" not in first.reason
    result = figures(first).difference
    assert (low, high) == (result.low, result.high), "the first look keeps 95 %"
    late = decide(inputs(champion=2.29, look=10))
    assert (late.code, late.look) == ("not_distinguishable", 10) and late.confidence == pytest.approx(1 - 0.05 / 90)
    assert "99.94 % interval at look 10" in late.reason
    assert late.comparisons[1].low < low < high < late.comparisons[1].high
    assert figures(late).difference == result, "what is shown beside it stays at 95 %"
    assert late.smallest_detectable > first.smallest_detectable
    assert decide(inputs(champion=1.0, look=10)).code == "better", "a large gain is found at any look"
    weak_lead = decide(inputs(candidate=0.6, look=1)), decide(inputs(candidate=0.6, look=10))
    assert [d.code for d in weak_lead] == ["first_model", "baseline_not_beaten"], "a first model's baseline decides"
    beside = decide(inputs(candidate=0.6, champion=0.01, look=10))
    assert beside.checks[4].passed and "(95 % interval +" in beside.checks[4].detail
    assert [(c.look, c.confidence) for c in beside.comparisons] == [(1, 0.95), (10, beside.confidence)]
    by_hand = decide(inputs(candidate=0.6, champion=GateModel("old", scores(0.01), by_gate=False), look=10))
    assert by_hand.code == "baseline_not_beaten", "a champion by hand need not be better than colours"


def test_the_chance_of_promoting_a_better_model():
    decision = decide(inputs(champion=2.4))
    power, error = decision.power, figures(decision).difference.standard_error
    assert (power.against, power.name, power.criterion, power.margin) == ("champion", "1700000000", "better", 0.0)
    assert [c.difference for c in power.chances] == [0.01, 0.02, 0.05]
    t29 = 2.04523 * (30 / 29) ** 0.5
    for each in power.chances:
        expected = statistics.NormalDist().cdf(each.difference / error - t29)
        assert each.chance == pytest.approx(expected, abs=1e-4)
    found = statistics.NormalDist().cdf(decision.smallest_detectable / error - t29)
    assert found == pytest.approx(0.8, abs=1e-4), "both figures say the same"
    chances = {look: decide(inputs(champion=2.4, look=look)).power.chances[1].chance for look in (1, 2, 10)}
    assert chances[1] > chances[2] > chances[10]
    easier = decide(inputs(champion=2.4), NON_INFERIOR).power
    assert (easier.criterion, easier.margin) == ("non-inferior", 0.02)
    assert easier.chances[0].chance > power.chances[1].chance
    assert decide(inputs()).power.against == "baseline"
    assert decide(inputs(), GatePolicy(baseline="report")).power is None
    line = power_line(dataclasses.asdict(decision))
    assert line.startswith("A model truly better than the champion 1700000000 by 0.01 / 0.02 / 0.05 in AUC would have")
    assert "look 1, limits at 95 %" in line and line.count("%") == 2 and power_line(None) == ""


def test_the_baseline_may_be_reported_only_or_reached_within_the_margin():
    poor = inputs(candidate=0.48)
    assert decide(poor).code == "baseline_not_beaten"
    shown = decide(poor, GatePolicy(baseline="report"))
    assert (shown.decision, shown.code) == ("promoted", "first_model")
    assert "compared with but does not decide: AUC" in shown.reason
    assert figures(shown, "baseline").difference.low < 0
    near = decide(poor, GatePolicy(baseline="non-inferior", margin=0.05))
    assert near.code == "first_model" and "at most 0.05 below the colour baseline" in near.reason
    far = decide(inputs(candidate=0.1), GatePolicy(baseline="non-inferior", margin=0.05))
    assert far.code == "baseline_not_beaten" and "may be more than 0.05 below" in far.reason
    with_champion = decide(inputs(candidate=0.48, champion=0.01), GatePolicy(baseline="report"))
    assert with_champion.code == "better", "the champion decides all the same"


def test_auto_says_what_it_applied_and_why():
    policy = dataclasses.replace(NON_INFERIOR, requested="auto", why="recipe and code are the champion's")
    decision = decide(inputs(champion=2.5), policy)
    assert decision.code == "non_inferior"
    said = "; policy auto applied non-inferior by 0.02, as recipe and code are the champion's."
    assert decision.reason.endswith(said)
    better = decide(inputs(champion=3.5), GatePolicy(requested="auto", why="its code is another"))
    assert better.reason.endswith("; policy auto applied better, as its code is another.")
    assert "auto" not in decide(inputs(), policy).reason, "a first model is compared with no champion"


def test_better_does_not_ask_for_the_best_ever():
    # A rolled-back champion: the candidate beats it without reaching the best model of old.
    decision = decide(inputs(champion=1.0, best_ever=model(3.5, 0)))
    assert decision.code == "better" and not decision.becomes_best_ever
    assert decide(inputs(champion=1.0, best_ever=model(3.5, 0)), NON_INFERIOR).code == "better"
    assert decide(inputs(champion=1.0, best_ever=model(2.0, 0))).becomes_best_ever


def test_the_same_inputs_give_the_same_decision_in_any_patch_order():
    made = inputs(champion=2.5)
    order = np.random.default_rng(3).permutation(GROUPS.size)
    shuffled = dataclasses.replace(
        made,
        labels=LABELS[order],
        groups=GROUPS[order],
        baseline=BASELINE[order],
        candidate=dataclasses.replace(made.candidate, probability=np.asarray(made.candidate.probability)[order]),
        champion=dataclasses.replace(made.champion, probability=np.asarray(made.champion.probability)[order]),
    )
    assert decide(made).to_json() == decide(made).to_json()
    assert decide(shuffled).reason == decide(made).reason


def test_as_json_nothing_is_nan():
    few = only_groups(inputs(champion=1.0), ["patient-00"])
    one_class = dataclasses.replace(few, labels=np.zeros(PATCHES, int))
    text = json.dumps(decide(one_class).to_json(), allow_nan=False)
    assert json.loads(text)["comparisons"][0]["result"]["difference"]["estimate"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": LABELS[:-1]},
        {"labels": LABELS + 1},
        {"baseline": BASELINE[:-1]},
        {"champion": GateModel("old", np.full(GROUPS.size, np.nan))},
        {"champion": GateModel("old", np.eye(2)[LABELS])},
    ],
)
def test_arrays_that_do_not_fit_are_told(changes):
    with pytest.raises(UsageError):
        decide(inputs(**changes))


@pytest.mark.parametrize(
    "wrong",
    [
        {"criterion": "worse"},
        {"baseline": "worse"},
        {"margin": 0.0},
        {"margin": -0.1},
        {"resamples": 10},
        {"confidence": 1.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_told(wrong):
    with pytest.raises(UsageError):
        GatePolicy(**wrong)
