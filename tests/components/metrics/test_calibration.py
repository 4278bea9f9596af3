"""Temperature, threshold, calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from components.errors import DataError, UsageError
from components.metrics import calibration, point


def overconfident(seed: int, factor: float):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=4000) * 2
    y = (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(int)
    return y, 1 / (1 + np.exp(-factor * z))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_factor_on_the_logits(factor):
    y, p = overconfident(0, factor)
    fitted = calibration.fit_temperature(y, p)
    assert fitted.value == pytest.approx(factor, rel=0.1) and fitted.note == ""

    def loss(temperature):
        return point.log_loss(y, calibration.apply_temperature(p, temperature))

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8})
    assert fitted.value == pytest.approx(best.x, rel=1e-4)
    assert point.roc_auc(y, calibration.apply_temperature(p, fitted.value)) == pytest.approx(
        point.roc_auc(y, p)
    )


def test_temperature_of_several_classes():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(4000, 4)) * 1.5
    true = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random((4000, 1)) > np.cumsum(true, axis=1)[:, :-1]).sum(axis=1)
    sharp = calibration.apply_temperature(true, 0.4)
    fitted = calibration.fit_temperature(y, sharp)
    assert fitted.value == pytest.approx(2.5, rel=0.1)
    assert calibration.apply_temperature(sharp, fitted.value) == pytest.approx(true, abs=0.05)


def test_two_columns_calibrate_like_one():
    y, p = overconfident(2, 2.0)
    both = np.stack([1 - p, p], axis=1)
    assert calibration.fit_temperature(y, both).value == pytest.approx(
        calibration.fit_temperature(y, p).value, rel=1e-5
    )
    assert calibration.apply_temperature(both, 3.0)[:, 1] == pytest.approx(
        calibration.apply_temperature(p, 3.0)
    )


@pytest.mark.parametrize(
    ("labels", "probability", "value", "note"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9], 1.0, "no_optimum"),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 1.0, "no_optimum"),
        ([0, 1], [1.0, 0.0], 20.0, "at_bound"),
        ([0, 0, 1, 1], np.array([0.0, 0.0, 1.0, 1.0], np.float32), 1.0, "no_optimum"),
    ],
)
def test_temperature_stays_sane_where_likelihood_has_no_optimum(labels, probability, value, note):
    assert calibration.fit_temperature(labels, probability) == calibration.Temperature(value, note)


@pytest.mark.parametrize("probability", [[], [0.5, np.nan]])
def test_temperature_of_nothing_or_nan_is_a_data_error(probability):
    with pytest.raises(DataError, match="eval"):
        calibration.fit_temperature([1] * len(probability), probability)


def brute_force(y, p, quality):
    cuts = np.unique(p)
    return max(quality(point.binary_metrics(y, p, cut)) for cut in cuts)


@pytest.mark.parametrize(
    ("criterion", "quality"),
    [
        ("max balanced accuracy", lambda m: m["balanced_accuracy"]),
        ("max_balanced_accuracy", lambda m: m["balanced_accuracy"]),
        ("youden", lambda m: m["sensitivity"] + m["specificity"] - 1),
        ("f1", lambda m: m["f1"]),
        ("sensitivity=0.95", lambda m: m["specificity"] if m["sensitivity"] >= 0.95 else -1),
    ],
)
@pytest.mark.parametrize("decimals", [1, 6])
def test_threshold_is_the_best_of_all_cuts(criterion, quality, decimals):
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 300)
    p = np.round(1 / (1 + np.exp(-(rng.normal(size=300) + y))), decimals).astype(np.float32)
    threshold = calibration.choose_threshold(y, p, criterion)
    assert quality(point.binary_metrics(y, p, threshold)) == pytest.approx(brute_force(y, p, quality))
    assert threshold == float(np.float32(threshold))
    shuffled = rng.permutation(300)
    assert calibration.choose_threshold(y[shuffled], p[shuffled], criterion) == threshold


def test_threshold_lies_half_way_and_ties_go_towards_one_half():
    assert calibration.choose_threshold([0, 0, 1, 1], [0.25, 0.5, 0.75, 1.0]) == 0.625
    # Cuts at 0.25 and 0.75 are equally good (one error each) and equally far from 0.5: the lower.
    assert calibration.choose_threshold([0, 1, 0, 1], [0.125, 0.375, 0.625, 0.875]) == 0.25
    assert calibration.choose_threshold([0, 1, 0, 1], [0.125, 0.375, 0.5, 0.75]) == 0.625


def test_threshold_between_neighbouring_float32():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    p = np.array([low, high], np.float32)
    threshold = np.float32(calibration.choose_threshold([0, 1], p))
    assert list(p >= threshold) == [False, True]


def test_sensitivity_of_one_keeps_every_positive():
    threshold = calibration.choose_threshold([1, 0, 1, 0], [0.25, 0.375, 0.75, 0.125], "sensitivity=1")
    assert threshold == 0.1875
    assert calibration.choose_threshold([1, 0], [0.125, 0.5], "sensitivity = 0.9") == 0.0


@pytest.mark.parametrize(
    "text", ["", "accuracy", "sensitivity=0", "sensitivity=1.5", "sensitivity", "sensitivity=.9.5"]
)
def test_unknown_criterion_is_told(text):
    with pytest.raises(UsageError, match="criterion"):
        calibration.choose_threshold([0, 1], [0.1, 0.9], text)


@pytest.mark.parametrize(
    ("y", "p"), [([1, 1], [0.2, 0.3]), ([0, 0], [0.2, 0.3]), ([0, 1], [0.2, np.nan]), ([], [])]
)
def test_threshold_needs_both_classes(y, p):
    with pytest.raises(DataError, match="eval"):
        calibration.choose_threshold(y, p)


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


def test_calibrated_probabilities_have_a_small_error_and_temperature_lowers_it():
    y, p = overconfident(9, 3.0)
    after = calibration.apply_temperature(p, calibration.fit_temperature(y, p).value)
    before = calibration.expected_calibration_error(y, p)
    assert calibration.expected_calibration_error(y, after) < 0.03 < 0.08 < before
    assert np.isnan(calibration.expected_calibration_error([], []))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=40))
def test_temperature_never_raises_the_loss(rows):
    y = np.array([row[0] for row in rows], int)
    p = np.array([row[1] for row in rows])
    clipped = calibration.apply_temperature(p, 1.0)
    after = calibration.apply_temperature(p, calibration.fit_temperature(y, p).value)
    assert point.log_loss(y, after) <= point.log_loss(y, clipped) + 1e-9
    assert np.isfinite(after).all()
    table = calibration.reliability_bins(y, p)
    assert table.count.sum() == y.size
    assert 0 <= calibration.expected_calibration_error(y, p) <= 1
