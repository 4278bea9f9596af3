"""Point metrics against scikit-learn, what is undefined, patient metrics, recognition rates."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from components.metrics import point
from components.metrics.bootstrap import BootstrapPlan
from components.metrics.per_group import per_group_metrics
from components.metrics.recognition import recognition_rates


def binary_case(seed: int, decimals: int | None = None):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 400)
    p = 1 / (1 + np.exp(-(rng.normal(size=400) + y)))
    return y, p if decimals is None else np.round(p, decimals)


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("seed", range(3))
def test_binary_metrics_agree_with_scikit_learn(seed, decimals):
    y, p = binary_case(seed, decimals)
    called = p >= 0.6
    expected = {
        "auc": sk.roc_auc_score(y, p),
        "pr_auc": sk.average_precision_score(y, p),
        "log_loss": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, p),
        "accuracy": sk.accuracy_score(y, called),
        "sensitivity": sk.recall_score(y, called),
        "specificity": sk.recall_score(y, called, pos_label=0),
        "ppv": sk.precision_score(y, called),
        "npv": sk.precision_score(y, called, pos_label=0),
        "f1": sk.f1_score(y, called),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "mcc": sk.matthews_corrcoef(y, called),
    }
    assert point.binary_metrics(y, p, 0.6) == pytest.approx(expected, abs=1e-9, rel=0)


def test_multiclass_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(4)
    y = rng.choice([0, 1, 2, 4], 300)
    p = rng.dirichlet(np.ones(5), 300)
    called = p.argmax(axis=1)
    present = [0, 1, 2, 4]
    better = np.where(rng.random(300) < 0.5, y, called)
    found = point.agreement(point.confusion_matrix(y, better, 5))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(y, better), abs=1e-9)
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(y, better), abs=1e-9)
    alone = point.agreement(point.confusion_matrix([1, 1], [1, 1], 3))
    assert np.isnan(alone["mcc"]) and np.isnan(alone["kappa"])
    ours = point.multiclass_metrics(y, p)
    assert ours["macro_f1"] == pytest.approx(
        sk.f1_score(y, called, labels=present, average="macro"), abs=1e-9
    )
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y, called), abs=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ours["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, called), abs=1e-9)
    assert ours["log_loss"] == pytest.approx(sk.log_loss(y, p, labels=range(5)), abs=1e-9)
    assert ours["brier"] == pytest.approx(np.mean(np.sum((p - np.eye(5)[y]) ** 2, axis=1)), abs=1e-9)
    one_vs_rest = point.one_vs_rest_auc(y, p)
    expected = [sk.roc_auc_score(y == k, p[:, k]) for k in present]
    assert one_vs_rest[present] == pytest.approx(expected, abs=1e-9)
    assert math.isnan(one_vs_rest[3])
    assert ours["macro_auc"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert (point.confusion_matrix(y, called, 5) == sk.confusion_matrix(y, called, labels=range(5))).all()


def test_curves_agree_with_scikit_learn():
    y, p = binary_case(7, 1)
    fpr, tpr, thresholds = point.roc_curve(y, p)
    expected = sk.roc_curve(y, p, drop_intermediate=False)
    for ours, theirs in zip((fpr, tpr, thresholds), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)
    recall, precision, cuts = point.precision_recall_curve(y, p)
    their_precision, their_recall, their_cuts = sk.precision_recall_curve(y, p)
    assert cuts == pytest.approx(their_cuts[::-1])
    assert precision == pytest.approx(their_precision[:-1][::-1], abs=1e-12)
    assert recall == pytest.approx(their_recall[:-1][::-1], abs=1e-12)


def test_undefined_is_nan_and_never_zero():
    one_class = point.binary_metrics([1, 1], [0.2, 0.9], 0.5)
    assert one_class["npv"] == 0, "a positive was called negative: 0 of 1, which is defined"
    assert all(math.isnan(one_class[name]) for name in ("auc", "specificity", "balanced_accuracy", "mcc"))
    nothing_called = point.binary_metrics([0, 1], [0.1, 0.2], 0.5)
    assert math.isnan(nothing_called["ppv"]) and math.isnan(nothing_called["mcc"])
    assert nothing_called["sensitivity"] == 0 and nothing_called["f1"] == 0
    assert math.isnan(point.binary_metrics([0, 0], [0.1, 0.2], 0.5)["f1"])
    assert math.isnan(point.average_precision([0, 0], [0.1, 0.2]))
    empty = point.binary_metrics([], [], 0.5)
    assert all(math.isnan(value) for value in empty.values())


def test_the_threshold_itself_is_positive():
    assert point.binary_metrics([1, 0], [0.5, 0.4], 0.5)["sensitivity"] == 1


def test_certain_and_wrong_float32_probability_has_a_finite_loss():
    assert point.log_loss([1], np.array([0.0], np.float32)) == pytest.approx(
        -math.log(np.finfo(np.float32).eps)
    )


def test_macro_f1_leaves_absent_classes_out():
    # Class 2 has no patches but one prediction: it costs class 0 a hit and is not itself averaged.
    assert point.macro_f1(np.array([[1, 0, 1], [0, 2, 0], [0, 0, 0]])) == pytest.approx((2 / 3 + 1) / 2)


SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40)


@given(SCORED)
def test_auc_is_the_fraction_of_pairs_won(rows):
    y = np.array([row[0] for row in rows])
    s = np.array([row[1] for row in rows], float)
    pairs = [(a > b) + 0.5 * (a == b) for a in s[y] for b in s[~y]]
    auc = point.roc_auc(y, s)
    assert math.isnan(auc) if not pairs else auc == pytest.approx(np.mean(pairs))
    assert point.roc_auc(~y, -s) == pytest.approx(auc, nan_ok=True)


def test_per_group_metrics_equal_each_patient_alone():
    y, p = binary_case(3)
    groups = np.array([f"p{i}" for i in np.random.default_rng(0).integers(0, 12, y.size)])
    groups[0] = "px"
    names, table = per_group_metrics(y, p, groups, 0.55)
    assert list(names) == sorted(set(groups))
    for row, name in enumerate(names):
        alone = point.binary_metrics(y[groups == name], p[groups == name], 0.55)
        for metric in ("auc", *point.THRESHOLD_METRICS):
            assert table[metric][row] == pytest.approx(alone[metric], nan_ok=True)
    assert table["patches"].sum() == y.size and table["positives"].sum() == y.sum()
    assert math.isnan(table["auc"][list(names).index("px")])
    summary = point.summary_over_groups(table)
    assert summary["auc"]["groups"] == np.sum(~np.isnan(table["auc"])) < names.size
    assert summary["f1"]["median"] == pytest.approx(np.nanmedian(table["f1"]))
    with pytest.raises(ValueError, match="threshold"):
        per_group_metrics(y, p, groups)


def test_per_group_metrics_of_several_classes():
    y = np.array([0, 0, 1, 2])
    p = np.eye(3)[[0, 1, 1, 0]]
    names, table = per_group_metrics(y, p, ["b", "b", "a", "a"])
    assert list(names) == ["a", "b"]
    assert table["accuracy"] == pytest.approx([0.5, 0.5])
    assert table["macro_f1"] == pytest.approx([0.5, 2 / 3])


def test_summary_of_a_metric_that_no_patient_has():
    summary = point.summary_over_groups({"auc": [np.nan, np.nan]})
    assert summary["auc"]["groups"] == 0 and math.isnan(summary["auc"]["median"])


def test_recognition_rates_by_hand():
    # At 40x patient A has 3 of 4 images right, B 1 of 1, C 0 of 1; at 100x A has 1 of 1.
    labels = [1, 1, 1, 1, 0, 0, 1]
    predicted = [1, 1, 1, 0, 0, 1, 1]
    rates = recognition_rates(labels, predicted, ["A", "A", "A", "A", "B", "C", "A"], [40] * 6 + [100])
    assert list(rates) == ["40", "100", "all"]
    assert rates["40"].image == pytest.approx(4 / 6)
    assert rates["40"].patient == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert (rates["40"].images, rates["40"].patients) == (6, 3)
    assert rates["100"].patient == 1
    assert rates["all"].image == pytest.approx(5 / 7)
    assert rates["all"].patient == pytest.approx((4 / 5 + 1 + 0) / 3)
    assert rates["all"].patient_interval.reason == "too_few_groups" == rates["40"].image_interval.reason


def test_recognition_rates_have_intervals_over_patients():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), rng.integers(1, 20, 30))
    labels = np.repeat(rng.integers(0, 2, 30), np.bincount(groups))
    hit = rng.random(groups.size) < np.repeat(rng.beta(4, 1, 30), np.bincount(groups))
    predicted = np.where(hit, labels, 1 - labels)
    found = recognition_rates(labels, predicted, groups, np.full(groups.size, 40), BootstrapPlan(500))["all"]
    scores = [sk.accuracy_score(labels[groups == g], predicted[groups == g]) for g in range(30)]
    assert found.patient == pytest.approx(np.mean(scores)) and found.image == sk.accuracy_score(labels, predicted)
    interval = found.patient_interval
    assert interval.low < found.patient < interval.high
    # The mean of 30 independent scores: its standard error is known.
    assert interval.standard_error == pytest.approx(np.std(scores) / np.sqrt(30), rel=0.1)
    assert found.image_interval.low < found.image < found.image_interval.high
