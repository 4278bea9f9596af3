"""What the gate is told of configuration and data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from components.promotion.evaluation_inputs import PromotedModel
from components.promotion.gate_facts import Making, disjointness, gate_policy, opponents
from components.training.recipe import TrainingConfig
from tests.components.promotion.test_champion import promotion
from tests.support import manifests


def test_the_policy_is_that_of_the_configuration():
    default = gate_policy(TrainingConfig().to_dict()["gate"])
    assert (default.criterion, default.resamples) == ("better", 2000)
    policy = gate_policy({"policy": "non-inferior", "margin": 0.02, "n_resamples": 500})
    assert (policy.criterion, policy.margin, policy.resamples) == ("non-inferior", 0.02, 500)
    assert gate_policy({"policy": "non-inferior", "margin": 0}).criterion == "better"
    assert gate_policy({"policy": "better", "margin": 0}).criterion == "better"


CHAMPION = Making("recipe", "source", frozenset("abc"), ("patient", ""))


@pytest.mark.parametrize(
    ("changes", "criterion", "said"),
    [
        ({}, "non-inferior", "its 4 training patients are the champion's 3 and more"),
        ({"recipe": "other"}, "better", "recipe is not"),
        ({"source": "other"}, "better", "code is not"),
        ({"fitted_on": frozenset("abc")}, "better", "and no more"),
        ({"fitted_on": frozenset("abde")}, "better", "do not include all"),
        ({"fitted_on": None}, "better", "does not say"),
        ({"names": ("patient", "key")}, "better", "other names"),
    ],
)
def test_auto_is_non_inferior_for_a_mere_retraining_only(changes, criterion, said):
    candidate = dataclasses.replace(CHAMPION, fitted_on=frozenset("abcd"))
    policy = gate_policy({"policy": "auto"}, dataclasses.replace(candidate, **changes), CHAMPION)
    assert (policy.requested, policy.criterion, policy.margin) == ("auto", criterion, 0.01) and said in policy.why
    policy = gate_policy({"policy": "better"}, dataclasses.replace(candidate, **changes), CHAMPION)
    assert (policy.requested, policy.criterion, policy.why) == ("", "better", "")


def test_auto_is_better_without_a_champion_or_with_one_of_before_it_kept_how_it_was_made():
    candidate = dataclasses.replace(CHAMPION, fitted_on=frozenset("abcd"))
    assert gate_policy({"policy": "auto"}, candidate, None).criterion == "better"
    for old in ({"recipe": ""}, {"source": ""}, {"fitted_on": None}):
        policy = gate_policy({"policy": "auto"}, candidate, dataclasses.replace(CHAMPION, **old))
        assert policy.criterion == "better" and "does not say" in policy.why


def test_the_baseline_of_the_policy():
    assert gate_policy({"baseline": "report"}).baseline == "report"
    assert gate_policy({"baseline": "non-inferior", "margin": 0.02}).baseline == "non-inferior"
    assert gate_policy({"baseline": "non-inferior", "margin": 0}).baseline == "better"


def test_what_a_champion_was_accepted_with_is_a_warning_of_everything_compared_with_it():
    entry = promotion(7, "hand", unproven="read the paper")
    model = PromotedModel(entry, Path(), frozenset("a"))
    _, warnings = opponents({"champion": model}, manifests.manifest(), {}, np.array(["b"]))
    assert len(warnings) == 1 and "Version 7 (champion)" in warnings[0] and "because: read the paper" in warnings[0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], "disjoint"), (["leaky"], "leaky"), (["not_patient_clustered"], "unproven"),
     (["not_provably_patient_disjoint"], "unproven"), (["not_patient_clustered", "leaky"], "leaky")],
)  # fmt: skip
def test_flags_of_the_data_set(flags, expected):
    proof, reason = disjointness(manifests.manifest(flags=tuple(flags)))
    assert proof == expected and bool(reason) == bool(flags)
