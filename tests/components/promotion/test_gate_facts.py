"""What the gate is told of configuration and data set."""

from __future__ import annotations

import pytest

from components.promotion.gate_facts import disjointness, gate_policy
from components.training.recipe import TrainingConfig
from tests.support import manifests


def test_the_policy_is_that_of_the_configuration():
    default = gate_policy(TrainingConfig().to_dict()["gate"])
    assert (default.criterion, default.resamples) == ("better", 2000)
    asked = gate_policy({"policy": "non-inferior", "margin": 0.02, "n_resamples": 500})
    assert (asked.criterion, asked.margin, asked.resamples) == ("non-inferior", 0.02, 500)
    assert gate_policy({"policy": "non-inferior", "margin": 0}).criterion == "better"
    assert gate_policy({"policy": "better", "margin": 0}).criterion == "better"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], "disjoint"), (["leaky"], "leaky"), (["not_patient_clustered"], "unproven"),
     (["not_provably_patient_disjoint"], "unproven"), (["not_patient_clustered", "leaky"], "leaky")],
)  # fmt: skip
def test_flags_of_the_data_set(flags, expected):
    proof, reason = disjointness(manifests.manifest(flags=tuple(flags)))
    assert proof == expected and bool(reason) == bool(flags)
