"""Abstaining on the least certain patches, against scikit-learn on what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from components.metrics import selective
from components.metrics.bootstrap import BootstrapPlan, plan_resamples

RNG = np.random.default_rng(2)
LABELS = RNG.integers(0, 2, 600)
PROBABILITY = 1 / (1 + np.exp(-(RNG.normal(size=600) + 2.5 * LABELS - 1.2)))
CUT = 0.3
CALLED = (PROBABILITY >= CUT).astype(int)
CERTAIN = selective.certainty(PROBABILITY, CUT)
GROUP = RNG.integers(0, 25, 600)


def test_certainty_is_the_distance_from_the_models_own_cut():
    assert CERTAIN.argmin() == np.abs(np.log(PROBABILITY / (1 - PROBABILITY)) - np.log(CUT / (1 - CUT))).argmin()
    several = RNG.dirichlet(np.ones(4), 9)
    assert (selective.certainty(several, None) == several.max(axis=1)).all()


def test_the_curve_and_its_area_by_hand():
    wrong, certain = [False, True, False, True], [0.9, 0.8, 0.8, 0.1]
    coverage, error = selective.risk_coverage(wrong, certain)
    assert list(coverage) == [0.25, 0.75, 1.0] and list(error) == pytest.approx([0, 1 / 3, 0.5])
    one = selective.weighted_aurc(wrong, certain, np.zeros(4, int))(np.ones((1, 1)))
    assert one[0] == pytest.approx((0 + 1 / 3 + 1 / 3 + 0.5) / 4)


def test_abstaining_agrees_with_scikit_learn_on_what_is_kept():
    order = np.argsort(-CERTAIN)
    rows = selective.abstaining(LABELS, CALLED, CERTAIN, 2)
    assert [row.coverage for row in rows] == list(selective.COVERAGES) and rows[0].patches == 600
    for row in rows:
        kept = order[: row.patches]
        assert row.patches == pytest.approx(600 * row.coverage)
        assert row.error == pytest.approx(1 - sk.accuracy_score(LABELS[kept], CALLED[kept]), abs=1e-9)
        assert row.figures["sensitivity"] == pytest.approx(sk.recall_score(LABELS[kept], CALLED[kept]), abs=1e-9)
    assert rows[-1].error < rows[0].error / 2
    coverage, error = selective.risk_coverage(LABELS != CALLED, CERTAIN)
    assert error[coverage.searchsorted(0.8)] == pytest.approx(rows[3].error)
    several = RNG.dirichlet(np.ones(4), 600)
    called, labels = several.argmax(axis=1), RNG.integers(0, 4, 600)
    last = selective.abstaining(labels, called, several.max(axis=1), 4)[-1]
    kept = np.argsort(-several.max(axis=1))[: last.patches]
    assert last.figures["macro_f1"] == pytest.approx(sk.f1_score(labels[kept], called[kept], average="macro"))


def test_area_under_weights_is_that_of_repeated_patients(monkeypatch):
    wrong, certain = LABELS != CALLED, np.round(CERTAIN, 1)  # with ties
    resamples = plan_resamples(LABELS, GROUP, 2, BootstrapPlan(50))
    monkeypatch.setattr(selective, "BLOCK_CELLS", 3000)
    values = selective.weighted_aurc(wrong, certain, resamples.index)(resamples.weights)
    for i in (0, 49):
        rows = np.repeat(np.arange(600), resamples.weights[i][resamples.index])
        w, c = wrong[rows], certain[rows]
        expected = np.mean([w[c >= one].mean() for one in c])
        assert values[i] == pytest.approx(expected)
    found = selective.aurc_interval(wrong, certain, resamples)
    assert found.low is not None and found.high is not None and found.low < found.estimate < found.high
    assert found.estimate < wrong.mean()
