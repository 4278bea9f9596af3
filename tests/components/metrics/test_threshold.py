"""The operating point: the best of all cuts, and a sensitivity that holds with a margin for few patients."""

from __future__ import annotations

import numpy as np
import pytest

from components.errors import DataError, UsageError
from components.metrics import point
from components.metrics.bootstrap import BootstrapPlan, percentile_interval, plan_resamples
from components.metrics.threshold import choose_threshold, operating_point


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
    threshold = choose_threshold(y, p, criterion)
    assert quality(point.binary_metrics(y, p, threshold)) == pytest.approx(brute_force(y, p, quality))
    assert threshold == float(np.float32(threshold))
    shuffled = rng.permutation(300)
    assert choose_threshold(y[shuffled], p[shuffled], criterion) == threshold


def test_threshold_lies_half_way_and_ties_go_towards_one_half():
    assert choose_threshold([0, 0, 1, 1], [0.25, 0.5, 0.75, 1.0]) == 0.625
    # Cuts at 0.25 and 0.75 are equally good (one error each) and equally far from 0.5: the lower.
    assert choose_threshold([0, 1, 0, 1], [0.125, 0.375, 0.625, 0.875]) == 0.25
    assert choose_threshold([0, 1, 0, 1], [0.125, 0.375, 0.5, 0.75]) == 0.625


def test_threshold_between_neighbouring_float32():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    p = np.array([low, high], np.float32)
    threshold = np.float32(choose_threshold([0, 1], p))
    assert list(p >= threshold) == [False, True]


def test_sensitivity_of_one_keeps_every_positive():
    threshold = choose_threshold([1, 0, 1, 0], [0.25, 0.375, 0.75, 0.125], "sensitivity=1")
    assert threshold == 0.1875
    assert choose_threshold([1, 0], [0.125, 0.5], "sensitivity = 0.9") == 0.0


@pytest.mark.parametrize(
    "text", ["", "accuracy", "sensitivity=0", "sensitivity=1.5", "sensitivity", "sensitivity=.9.5"]
)
def test_unknown_criterion_is_told(text):
    with pytest.raises(UsageError, match="criterion"):
        choose_threshold([0, 1], [0.1, 0.9], text)


@pytest.mark.parametrize(
    ("y", "p"), [([1, 1], [0.2, 0.3]), ([0, 0], [0.2, 0.3]), ([0, 1], [0.2, np.nan]), ([], [])]
)
def test_threshold_needs_both_classes(y, p):
    with pytest.raises(DataError, match="eval"):
        choose_threshold(y, p)


def test_a_target_is_reached_at_no_cost_where_a_lower_cut_is_as_specific():
    # Apart: any cut up to 0.6 calls no negative, so none of the positives is given away.
    y, p = [0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.6, 0.7, 0.8, 0.9]
    assert choose_threshold(y, p, "sensitivity=0.5") == pytest.approx(0.4)


def patients(seed, groups=20, patches=25):
    """Patches of patients, some of whom score low throughout."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), patches)
    y = rng.integers(0, 2, group.size)
    score = 1.5 * y + rng.normal(size=groups)[group] * 0.8 + rng.normal(size=group.size)
    return y, (1 / (1 + np.exp(-score))).astype(np.float32), np.array([f"p{i}" for i in group])


def lower_limit(y, p, group, cut):
    """Lower limit of the sensitivity over the patients with positives."""
    of = group[y == 1]
    resamples = plan_resamples(np.zeros(of.size), of, 1, BootstrapPlan())
    names = np.unique(of)
    hits = np.array([(p[y == 1][of == name] >= np.float32(cut)).sum() for name in names])
    values = resamples.weights @ hits / (resamples.weights @ np.array([(of == name).sum() for name in names]))
    return percentile_interval(float(hits.sum() / of.size), values, resamples).low


def test_a_sensitivity_is_met_by_its_lower_limit_over_patients():
    y, p, group = patients(0)
    naive = choose_threshold(y, p, "sensitivity=0.9")
    chosen = operating_point(y, p, group, "sensitivity=0.9")
    assert lower_limit(y, p, group, naive) < 0.9  # what was done before: no margin
    assert chosen.met and chosen.threshold < naive and chosen.sensitivity["groups"] == 20
    low = lower_limit(y, p, group, chosen.threshold)
    assert 0.9 <= low == pytest.approx(chosen.sensitivity["low"]) and f"{low:.3f}" in chosen.note
    # It is the highest: at the next cut that is more specific, the limit is missed.
    above = min(cut for cut in p[y == 0] if cut >= np.float32(chosen.threshold))
    assert lower_limit(y, p, group, np.nextafter(above, np.float32(1))) < 0.9
    assert operating_point(y, p, group, "f1").threshold == choose_threshold(y, p, "f1")


def test_the_margin_holds_on_new_patients_where_the_naive_cut_does_not():
    held = {"naive": 0, "margin": 0}
    for seed in range(30):
        y, p, group = patients(seed)
        far_y, far_p, _ = patients(1000 + seed, groups=400, patches=5)
        cuts = {
            "naive": choose_threshold(y, p, "sensitivity=0.9"),
            "margin": operating_point(y, p, group, "sensitivity=0.9", plan=BootstrapPlan(400)).threshold,
        }
        for name, cut in cuts.items():
            held[name] += (far_p[far_y == 1] >= np.float32(cut)).mean() >= 0.9
    assert held["naive"] <= 20 < 25 <= held["margin"]


@pytest.mark.parametrize(("groups", "why"), [(4, "no lower limit"), (6, "no cut that misses")])
def test_too_few_patients_give_the_most_sensitive_cut_and_say_so(groups, why):
    y, p, group = patients(3, groups, 8)
    chosen = operating_point(y, p, group, "sensitivity=0.99", unit="slide")
    assert not chosen.met and why in chosen.note and f"{groups} slides" in chosen.note
    assert chosen.sensitivity["low"] is None and chosen.sensitivity["estimate"] == 1.0
    assert p[(y == 0) & (p < p[y == 1].min())].max() < np.float32(chosen.threshold) < p[y == 1].min()
