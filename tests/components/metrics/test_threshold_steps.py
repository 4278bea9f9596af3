"""The threshold's steps say what the metrics at that threshold say, with the same intervals."""

from __future__ import annotations

import numpy as np
import pytest

from components.metrics.bootstrap import BootstrapPlan, split_intervals
from components.metrics.threshold_steps import SHOWN, STEPS, threshold_steps

PLAN = BootstrapPlan(resamples=200)


def split(groups: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 600)
    probability = 1 / (1 + np.exp(-(rng.normal(0, 1.2, 600) + 2 * labels - 1)))
    return labels, probability.astype(np.float32), np.array([f"p{i % groups}" for i in range(600)])


def test_each_step_is_what_the_metrics_are_at_that_threshold() -> None:
    labels, probability, groups = split()
    steps = threshold_steps(labels, probability, groups, 0.4321, PLAN)
    assert [step.threshold for step in steps] == sorted([*STEPS, 0.4321])
    assert [step.threshold for step in steps if step.stored] == [0.4321]
    for step in (steps[0], next(s for s in steps if s.stored), steps[-4]):
        expected, _ = split_intervals(labels, probability, groups, np.float32(step.threshold), PLAN)
        assert {name: step.figures[name] for name in SHOWN} == {name: expected[name] for name in SHOWN}
        called = probability >= np.float32(step.threshold)
        assert step.called == called.sum() and step.missed == (labels[~called] == 1).sum()
        assert step.false_alarms == (labels[called] == 0).sum()


def test_sensitivity_falls_and_specificity_rises() -> None:
    steps = threshold_steps(*split(), 0.5, PLAN)
    assert len(steps) == len(STEPS) and sum(step.stored for step in steps) == 1
    for name, order in (("sensitivity", -1), ("specificity", 1)):
        found = [order * step.figures[name].estimate for step in steps]
        assert found == sorted(found)


@pytest.mark.parametrize("stored", [0.0, 1.0])
def test_without_enough_patients_there_is_no_interval_but_the_figures(stored: float) -> None:
    steps = threshold_steps(*split(groups=4), stored, PLAN)
    assert {step.figures["sensitivity"].reason for step in steps} == {"too_few_groups"}
    assert steps[3].figures["sensitivity"].estimate > 0.9
