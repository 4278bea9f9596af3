"""The gap between splits: figures of the point metrics, an interval that covers what patients' own spread makes."""

from __future__ import annotations

import numpy as np
import pytest

from components.metrics.bootstrap import BootstrapPlan
from components.metrics.leakage import TestPart, leakage_gap
from components.metrics.point import binary_metrics, multiclass_metrics

PLAN = BootstrapPlan(resamples=400)


def part(seed: int, groups: range, skill: float, per_group: int = 8, classes: int = 2) -> TestPart:
    rng = np.random.default_rng(seed)
    names = np.repeat([f"p{number:03d}" for number in groups], per_group)
    labels = np.tile(np.arange(per_group) % classes, len(groups))
    logits = rng.normal(0, 1, (names.size, classes)) + skill * np.eye(classes)[labels]
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return TestPart(labels, names, odds[:, 1] if classes == 2 else odds, 0.4 if classes == 2 else None)


def test_figures_are_means_over_seeds_of_the_point_metrics() -> None:
    patient = [part(seed, range(20, 40), 1.0) for seed in (1, 2)]
    random = [part(seed, range(40), 2.0, 4) for seed in (3, 4)]
    found = leakage_gap(patient, random, PLAN)
    for name in ("auc", "f1", "balanced_accuracy", "log_loss"):
        for parts, seeds, interval in (
            (patient, found[name].patient_seeds, found[name].patient),
            (random, found[name].random_seeds, found[name].random),
        ):
            wanted = [binary_metrics(p.labels, p.probability, 0.4)[name] for p in parts]
            assert seeds == pytest.approx(wanted) and interval.estimate == pytest.approx(np.mean(wanted))
            assert interval.low is not None and interval.low < interval.estimate < interval.high  # type: ignore
        assert found[name].gap.estimate == pytest.approx(found[name].random.estimate - found[name].patient.estimate)
    auc = found["auc"]
    assert auc.gap.low is not None and auc.gap.low > 0, "the better model is shown to be better"
    assert (auc.patient.groups, auc.random.groups, auc.gap.groups) == (20, 40, 20)
    assert leakage_gap(patient, random, PLAN) == found, "equal input, equal answer"


def test_patients_in_both_parts_count_alike_in_both() -> None:
    # The same model on the same patients: whoever is drawn, there is no gap and no doubt about it.
    same = [part(5, range(20), 1.0)]
    gap = leakage_gap(same, same, PLAN)["auc"].gap
    assert (gap.estimate, gap.low, gap.high) == (0.0, 0.0, 0.0)
    # Drawn apart from each other, two such sets differ.
    other = [part(6, range(20, 40), 1.0)]
    apart = leakage_gap(same, other, PLAN)["auc"].gap
    assert apart.low is not None and apart.high is not None and apart.high - apart.low > 0.05


def test_several_classes_and_too_few_patients() -> None:
    patient, random = [part(7, range(12), 1.0, 9, 3)], [part(8, range(30), 2.0, 9, 3)]
    found = leakage_gap(patient, random, PLAN)["macro_f1"]
    assert found.patient.estimate == pytest.approx(
        multiclass_metrics(patient[0].labels, patient[0].probability)["macro_f1"]
    )
    assert found.gap.low is not None
    few = leakage_gap([part(7, range(4), 1.0)], [part(8, range(30), 2.0)], PLAN)["auc"]
    assert few.gap.low is None and few.gap.reason == few.patient.reason == "too_few_groups"
