"""Figures by patient: one decision each, and an AUC in which each weighs the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from components.metrics import patient_level
from components.metrics.bootstrap import BootstrapPlan, plan_resamples

RNG = np.random.default_rng(0)
SIZES = RNG.integers(1, 30, 40)
GROUP = np.repeat([f"p{i:02d}" for i in range(40)], SIZES)
OF_PATIENT = RNG.integers(0, 2, 40)
LABELS = np.repeat(OF_PATIENT, SIZES)
LOGITS = RNG.normal(size=LABELS.size) + LABELS + np.repeat(RNG.normal(size=40), SIZES)
PROBABILITY = 1 / (1 + np.exp(-LOGITS))


def test_a_patient_is_the_mean_of_its_logits():
    order = RNG.permutation(LABELS.size)
    found = patient_level.patients(LABELS[order], PROBABILITY[order], GROUP[order])
    assert found is not None and list(found.names) == sorted(set(GROUP))
    means = np.array([LOGITS[GROUP == name].mean() for name in found.names])
    assert found.probability == pytest.approx(1 / (1 + np.exp(-means)))
    assert (found.labels == OF_PATIENT).all()
    assert sk.roc_auc_score(OF_PATIENT, means) == pytest.approx(sk.roc_auc_score(found.labels, found.probability))


def test_several_classes():
    labels = np.repeat(np.arange(40) % 3, SIZES)
    p = RNG.dirichlet(np.ones(3), labels.size)
    found = patient_level.patients(labels, p, GROUP)
    assert found is not None and found.probability.shape == (40, 3)
    first = np.log(p[GROUP == "p00"]).mean(axis=0)
    assert found.probability[0] == pytest.approx(np.exp(first) / np.exp(first).sum())


def test_there_is_none_where_a_patient_has_several_labels():
    mixed = LABELS.copy()
    mixed[0] = 1 - mixed[0]
    assert SIZES[0] > 1 and patient_level.patients(mixed, PROBABILITY, GROUP) is None
    assert patient_level.patients([], [], []) is None


def test_patient_weighted_auc_agrees_with_scikit_learn_and_has_an_interval():
    labels = RNG.integers(0, 2, LABELS.size)
    score = LOGITS + labels
    weight = 1 / np.repeat(SIZES, SIZES)
    resamples = plan_resamples(labels, GROUP, 2, BootstrapPlan(300))
    found = patient_level.patient_weighted_auc(labels, score, resamples)
    assert found.estimate == pytest.approx(sk.roc_auc_score(labels, score, sample_weight=weight), abs=1e-9)
    assert found.low is not None and found.high is not None and found.low < found.estimate < found.high
    drawn = weight * resamples.weights[7][resamples.index]
    expected = sk.roc_auc_score(labels, score, sample_weight=drawn)
    each = np.asarray(resamples.weights[7:8], float) / SIZES
    from components.metrics.resampled import weighted_auc

    assert weighted_auc(labels, score, resamples.index)(each)[0] == pytest.approx(expected, abs=1e-9)
    few = plan_resamples(labels[:60], GROUP[:60], 2, BootstrapPlan(300))
    assert patient_level.patient_weighted_auc(labels[:60], score[:60], few).reason == "too_few_groups"
