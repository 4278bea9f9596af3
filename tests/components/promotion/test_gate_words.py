"""Sentences of the gate about models that hardly differ."""

from __future__ import annotations

import dataclasses

import numpy as np

from components.promotion.gate import decide
from tests.components.promotion.test_gate import inputs, model


def test_an_identical_model_is_told_as_that_and_small_figures_are_not_rounded_to_nothing():
    same = model(1.5, 2)
    reason = decide(inputs(candidate=same, champion=same)).reason
    assert "the same on every resample" in reason and "0.000 or more" not in reason and "-0.000" not in reason
    probability = np.array(same.probability)
    order = np.argsort(probability)
    probability[order[len(order) // 2]] = probability[order[len(order) // 2 + 40]]
    near = decide(inputs(candidate=dataclasses.replace(same, probability=probability), champion=same))
    assert near.code == "not_distinguishable" and 0 < near.smallest_detectable < 0.0005
    assert "difference of 0.000 or more" not in near.reason and "difference of 0.000" in near.reason
