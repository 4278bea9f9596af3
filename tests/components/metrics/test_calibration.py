"""Scale and bias of the logits, calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from components.errors import DataError
from components.metrics import calibration, point
from components.metrics.calibration_fit import Calibration, fit_calibration, weights_bias


def overconfident(seed: int, factor: float):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=4000) * 2
    y = (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(int)
    return y, 1 / (1 + np.exp(-factor * z))


def alone(labels, probability, expected=None):
    """Every patch a patient of its own."""
    return fit_calibration(labels, probability, np.arange(len(labels)), expected)


def applied(fitted, probability):
    bias = fitted.bias[0] if np.ndim(probability) == 1 else fitted.bias
    return calibration.apply_calibration(probability, fitted.temperature, bias)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_factor_on_the_logits_is_undone(factor):
    y, p = overconfident(0, factor)
    fitted = alone(y, p)
    assert fitted.temperature == pytest.approx(factor, rel=0.1) and fitted.note == ""
    assert abs(fitted.bias[0]) < 0.1

    def loss(temperature):
        stated = calibration.apply_calibration(p, temperature, fitted.bias[0])
        return point.log_loss(y, stated)

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8})
    assert fitted.temperature == pytest.approx(best.x, rel=1e-4)
    assert point.roc_auc(y, applied(fitted, p)) == pytest.approx(point.roc_auc(y, p))


def test_class_weights_are_undone_which_a_temperature_cannot():
    """A model trained with balanced weights at 20 % prevalence: odds four times too high, logits twice too large."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=6000) * 1.5 - 1.9
    y = (rng.random(6000) < 1 / (1 + np.exp(-z))).astype(int)
    weights = {0: 0.625, 1: 2.5}
    p = 1 / (1 + np.exp(-2 * (z + np.log(4))))
    assert weights_bias(weights, 2) == pytest.approx([-np.log(4)])
    fitted = alone(y, p)  # many patients find it without being told
    assert fitted.bias[0] == pytest.approx(-np.log(4), abs=0.15) and fitted.temperature == pytest.approx(2, rel=0.1)
    after = applied(fitted, p)
    by_scale = [calibration.apply_calibration(p, t) for t in np.geomspace(0.05, 20, 200)]
    best_scale = min(point.log_loss(y, stated) for stated in by_scale)
    assert point.log_loss(y, after) < best_scale - 0.05
    assert calibration.expected_calibration_error(y, after) < 0.02
    assert point.roc_auc(y, after) == pytest.approx(point.roc_auc(y, p))
    assert calibration.undo_calibration(after, fitted.temperature, fitted.bias[0]) == pytest.approx(p, abs=1e-5)


def test_few_patients_leave_the_bias_where_the_weights_put_it():
    y, p = overconfident(5, 1.0)
    y, p = y[:300], calibration.apply_calibration(p[:300], 1.0, 2.0)
    few, many = np.arange(300) // 100, np.arange(300)
    assert fit_calibration(y, p, few, [-2.0]).bias[0] == pytest.approx(-2.0, abs=0.1)
    assert -1.0 < fit_calibration(y, p, few).bias[0] < 0  # held at 0: three patients say little
    assert fit_calibration(y, p, many).bias[0] < -1.7


def test_a_scale_and_biases_of_several_classes():
    rng = np.random.default_rng(1)
    share = np.array([0.55, 0.25, 0.15, 0.05])
    z = rng.normal(size=(6000, 4)) * 1.5 + np.log(share)
    true = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random((6000, 1)) > np.cumsum(true, axis=1)[:, :-1]).sum(axis=1)
    weights = dict(enumerate(1 / (4 * share)))
    weighed = true / share / (true / share).sum(axis=1, keepdims=True)
    sharp = calibration.apply_calibration(weighed, 0.4)
    fitted = alone(y, sharp, weights_bias(weights, 4))
    assert fitted.temperature == pytest.approx(2.5, rel=0.1)
    assert fitted.bias == pytest.approx(np.log(share) - np.log(share).mean(), abs=0.15)
    assert sum(fitted.bias) == pytest.approx(0, abs=1e-6)
    assert applied(fitted, sharp) == pytest.approx(true, abs=0.05)
    assert calibration.undo_calibration(true, 2.0, fitted.bias).shape == true.shape
    assert weights_bias({0: 1.0, 1: 0.0, 2: 1.0}, 3) == (0.0, 0.0, 0.0) == weights_bias(None, 3)


@pytest.mark.parametrize(
    ("labels", "probability", "value", "note"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9], 1.0, "no_optimum"),
        ([0, 0, 1, 1], [0.6, 0.7, 0.8, 0.9], 1.0, "no_optimum"),  # apart, though not at 0.5
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 1.0, "no_optimum"),
        ([0, 1], [1.0, 0.0], 20.0, "at_bound"),
        ([0, 0, 1, 1], np.array([0.0, 0.0, 1.0, 1.0], np.float32), 1.0, "no_optimum"),
        ([1, 1, 1], [0.2, 0.3, 0.9], 1.0, "no_optimum"),
        ([0, 1, 2], np.eye(3) * 0.7 + 0.1, 1.0, "no_optimum"),
    ],
)
def test_the_temperature_stays_sane_where_likelihood_has_no_optimum(labels, probability, value, note):
    fitted = alone(labels, probability)
    assert isinstance(fitted, Calibration) and (fitted.temperature, fitted.note) == (value, note)
    assert np.abs(fitted.bias).max() < 1


@pytest.mark.parametrize("probability", [[], [0.5, np.nan]])
def test_calibration_on_nothing_or_nan_is_a_data_error(probability):
    with pytest.raises(DataError, match="eval"):
        alone([1] * len(probability), probability)


def test_expected_calibration_error_by_hand():
    y = [0, 1, 1, 1]
    p = [0.05, 0.05, 0.95, 0.85]
    # Bins of 0.1: [0.05, 0.05] states 0.05 and half come true; 0.95 and 0.85 come true.
    assert calibration.expected_calibration_error(y, p, 10) == pytest.approx((2 * 0.45 + 0.05 + 0.15) / 4)
    table = calibration.reliability_bins(y, p, 10)
    assert list(table.count) == [2, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert np.isnan(table.observed[1]) and table.stated[0] == pytest.approx(0.05)


def test_calibration_error_of_several_classes_is_that_of_the_predicted_class():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    assert calibration.expected_calibration_error([0, 2], p) == pytest.approx((0.3 + 0.8) / 2)


def test_calibrated_probabilities_have_a_small_error():
    y, p = overconfident(9, 3.0)
    after = applied(alone(y, p), p)
    before = calibration.expected_calibration_error(y, p)
    assert calibration.expected_calibration_error(y, after) < 0.03 < 0.08 < before
    assert np.isnan(calibration.expected_calibration_error([], []))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=40))
def test_calibration_never_raises_the_loss(rows):
    y = np.array([row[0] for row in rows], int)
    p = np.array([row[1] for row in rows])
    clipped = calibration.apply_calibration(p, 1.0)
    after = applied(alone(y, p), p)
    assert point.log_loss(y, after) <= point.log_loss(y, clipped) + 1e-9
    assert np.isfinite(after).all()
    table = calibration.reliability_bins(y, p)
    assert table.count.sum() == y.size
    assert 0 <= calibration.expected_calibration_error(y, p) <= 1
