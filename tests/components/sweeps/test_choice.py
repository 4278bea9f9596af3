"""The simplest within one standard error of the best, by a difference that is paired by patient."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.metrics.bootstrap import BootstrapPlan, paired_difference
from components.sweeps.choice import Candidate, choose, rank

PLAN = BootstrapPlan(resamples=400)
RNG = np.random.default_rng(3)
GROUPS = np.repeat([f"p{i:02d}" for i in range(24)], 12)
LABELS = np.tile([0, 1], len(GROUPS) // 2)
OWN = np.repeat(RNG.normal(0, 0.6, 24), 12)  # a patient is hard or easy for every model
NOISE = RNG.normal(0, 0.7, len(LABELS))


def candidate(number: int, skill: float, parameters: int, pixels: int = 100, own_noise: float = 0.4) -> Candidate:
    scores = skill * LABELS + OWN + NOISE + np.random.default_rng(number).normal(0, own_noise, len(LABELS))
    return Candidate(number, f"Recipe-{number}", scores, parameters, pixels)


def test_the_simplest_within_one_standard_error_is_chosen_and_said() -> None:
    large, small, tiny = candidate(0, 1.30, 3_000_000), candidate(1, 1.31, 100_000), candidate(2, 0.9, 1_000)
    ranked = rank(LABELS, GROUPS, [tiny, small, large], PLAN)
    assert [entry.candidate.number for entry in ranked] == [0, 1, 2]
    assert [entry.within for entry in ranked] == [True, True, False]
    choice = choose(ranked, "patient")
    assert (choice.best, choice.winner, choice.within) == (0, 1, (0, 1))
    assert choice.reason.startswith("Trial 1 (Recipe-1) is chosen, AUC ")
    assert "100,000 weights against 3,000,000" in choice.reason and "paired by patient" in choice.reason
    expected = paired_difference(LABELS, tiny.probability, large.probability, GROUPS, PLAN).difference
    assert choice.differences["2"] == dataclasses.asdict(expected)


def test_pairing_tells_apart_what_single_intervals_do_not() -> None:
    # A difference far inside each model's own interval, but the same for every patient.
    best, other = candidate(0, 1.30, 3_000_000, own_noise=0.01), candidate(1, 1.18, 100_000, own_noise=0.01)
    ranked = rank(LABELS, GROUPS, [best, other], PLAN)
    alone = paired_difference(LABELS, other.probability, best.probability, GROUPS, PLAN)
    assert alone.first.high is not None and alone.first.high > alone.second.estimate
    assert choose(ranked, "patient").winner == 0


def test_of_equal_weights_the_cheaper_to_score_is_chosen_then_the_earlier() -> None:
    eight_views, one_view = candidate(0, 1.30, 5_000, pixels=800), candidate(1, 1.31, 5_000, pixels=100)
    choice = choose(rank(LABELS, GROUPS, [eight_views, one_view], PLAN), "patient")
    assert choice.winner == 1 and "100 pixels of work for an image against 800" in choice.reason
    twins = [dataclasses.replace(one_view, number=number) for number in (4, 3)]
    assert choose(rank(LABELS, GROUPS, twins, PLAN), "patient").winner == 3


def test_with_too_few_patients_the_best_is_chosen_and_that_is_said() -> None:
    few = np.isin(GROUPS, ["p00", "p01", "p02"])
    pair = [candidate(0, 1.30, 3_000_000), candidate(1, 1.2, 100_000)]
    part = [dataclasses.replace(c, probability=c.probability[few]) for c in pair]
    ranked = rank(LABELS[few], GROUPS[few], part, PLAN)
    choice = choose(ranked, "patient")
    assert choice.winner == choice.best and choice.within == (choice.best,)
    assert "can't be said (too few groups)" in choice.reason


def test_several_classes_are_ranked_by_macro_f1() -> None:
    labels = np.arange(len(GROUPS)) % 3
    good = np.eye(3)[labels] * 0.8 + 0.1
    turned = np.where(RNG.random(len(labels)) < 0.3, (labels + 1) % 3, labels)
    poor = np.eye(3)[turned] * 0.8 + 0.1
    plan = dataclasses.replace(PLAN, pool=True)
    ranked = rank(labels, GROUPS, [Candidate(0, "a", poor, 1, 1), Candidate(1, "b", good, 9, 1)], plan)
    assert ranked[0].estimate == pytest.approx(1.0) and ranked[0].candidate.number == 1
    assert "macro-F1 1.000" in choose(ranked, "slide").reason
