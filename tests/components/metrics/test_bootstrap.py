"""Bootstrap over groups: the weighted metrics, the draws, the intervals, their coverage."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from components.metrics import bootstrap, intervals, point, resampled
from components.metrics.bootstrap import BootstrapPlan
from components.metrics.per_group import group_index

FEW = BootstrapPlan(resamples=300)


def clustered(seed: int, groups: int = 30, patches: int = 20, effect: float = 1.0):
    """Patches whose scores share a patient effect, with patients of differing prevalence."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), patches)
    y = (rng.random(group.size) < rng.beta(2, 2, groups)[group]).astype(int)
    score = rng.normal(size=groups)[group] * 0.7 + y * effect + rng.normal(size=group.size)
    return y, score, group


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 4), st.integers(0, 3)),
        min_size=1,
        max_size=40,
    ),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
)
def test_weights_are_repetitions(rows, draws):
    """A weighted metric is the point metric of the data in which each group's patches are repeated."""
    y = np.array([row[0] for row in rows], int)
    p = np.array([row[1] for row in rows]) / 6
    group = np.array([row[2] for row in rows])
    repeated = np.repeat(np.arange(y.size), np.array(draws)[group])
    weights = np.array([draws, [1] * 5], np.uint16)
    ours = resampled.weighted_binary(y, p, group, 5, 0.5)(weights)
    for row, take in ((0, repeated), (1, np.arange(y.size))):
        expected = point.binary_metrics(y[take], p[take], 0.5)
        assert {name: values[row] for name, values in ours.items()} == pytest.approx(expected, nan_ok=True)
    labels = np.array([row[3] for row in rows])
    several = np.random.default_rng(0).dirichlet(np.ones(4), y.size)
    ours = resampled.weighted_multiclass(labels, several, group, 5)(weights)
    expected = point.multiclass_metrics(labels[repeated], several[repeated])
    for name, values in ours.items():
        assert values[0] == pytest.approx(expected[name], nan_ok=True)
    assert resampled.weighted_primary(labels, several, group, 5)(weights) == pytest.approx(
        ours["macro_f1"], nan_ok=True
    )


def test_blocks_do_not_show(monkeypatch):
    y, score, group = clustered(1)
    resamples = bootstrap.plan_resamples(y, group, 2, FEW)
    whole = resampled.weighted_auc(y, score, resamples.index)(resamples.weights)
    monkeypatch.setattr(resampled, "BLOCK_CELLS", 1)
    assert (resampled.weighted_auc(y, score, resamples.index)(resamples.weights) == whole).all()


def test_draws_are_of_whole_groups_seeded_and_in_blocks():
    draw = bootstrap.draw_groups(np.random.Generator(np.random.PCG64(1)), 500, 40)
    again = bootstrap.draw_groups(np.random.Generator(np.random.PCG64(1)), 500, 40)
    assert (draw == again).all() and (draw.sum(axis=1) == 40).all()
    # Each count is binomial(40, 1/40): mean 1, variance 39/40.
    assert draw.var() == pytest.approx(39 / 40, rel=0.05)
    assert np.abs(draw.mean(axis=0) - 1).max() < 0.25


def test_same_seed_same_interval_other_seed_another():
    y, score, group = clustered(2)
    first, again, other = (
        bootstrap.split_intervals(y, score, group, 0.5, BootstrapPlan(resamples=200, seed=seed))[0]["auc"]
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_estimates_are_the_point_metrics_and_lie_inside():
    y, score, group = clustered(3)
    p = 1 / (1 + np.exp(-score))
    names = np.array([f"patient {g}" for g in group])
    found, resamples = bootstrap.split_intervals(y, p, names, 0.6, FEW)
    estimate = point.binary_metrics(y, p, 0.6)
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(estimate)
    for interval in found.values():
        assert interval.low < interval.estimate < interval.high
        assert interval.standard_error > 0 and interval.groups == 30 and not interval.reason
    assert resamples.warnings == () and resamples.redrawn == 0
    with pytest.raises(ValueError, match="threshold"):
        bootstrap.split_intervals(y, p, names, None, FEW)


def test_resamples_that_lack_a_class_are_redrawn_and_counted():
    group = np.arange(100)
    y = (group < 5).astype(int)
    resamples = bootstrap.plan_resamples(y, group, 2, BootstrapPlan())
    assert (resamples.weights[:, :5].sum(axis=1) > 0).all()
    assert len(resamples.weights) == 2000
    # A resample misses five of a hundred groups with probability 0.95 ** 100 = 0.6 %.
    assert 2 <= resamples.redrawn <= 30


def test_a_class_that_is_hardly_ever_drawn_ends_the_redraws():
    group = np.arange(9)
    resamples = bootstrap.plan_resamples(group, group, 9, BootstrapPlan(resamples=50, min_groups_per_class=1))
    assert resamples.reason == "class_rarely_drawn" and resamples.redrawn > 0 and len(resamples.weights) == 0


@pytest.mark.parametrize("positives", [0, 4])
def test_fewer_than_five_groups_in_a_class_give_no_interval(positives):
    group = np.repeat(np.arange(30), 3)
    y = (group < positives).astype(int)
    found, resamples = bootstrap.split_intervals(y, np.linspace(0, 1, 90), group, 0.5, FEW)
    assert resamples.reason == "too_few_groups"
    assert all(i.low is None and i.high is None and i.reason == "too_few_groups" for i in found.values())
    accuracy = point.binary_metrics(y, np.linspace(0, 1, 90), 0.5)["accuracy"]
    assert found["accuracy"].estimate == pytest.approx(accuracy)
    five = bootstrap.plan_resamples((group < 5).astype(int), group, 2, FEW)
    assert not five.reason


@pytest.mark.parametrize(("groups", "warned"), [(19, True), (20, False)])
def test_fewer_than_twenty_groups_warn(groups, warned):
    y, score, group = clustered(4, groups=groups)
    resamples = bootstrap.plan_resamples(y, group, 2, FEW)
    assert bool(resamples.warnings) is warned and not resamples.reason
    if warned:
        assert "19 groups" in resamples.warnings[0]


def subtype(groups: int):
    group = np.repeat(np.arange(groups), 4)
    y = group % 4
    p = np.random.default_rng(0).dirichlet(np.ones(4), y.size)
    p[np.arange(y.size), y] += 0.5
    return y, p / p.sum(axis=1, keepdims=True), group


def test_pooling_is_weak_evidence_and_needs_ten_groups():
    y, p, group = subtype(10)  # two or three groups a class
    pooled = BootstrapPlan(resamples=300, pool=True)
    found, resamples = bootstrap.split_intervals(y, p, group, None, pooled)
    assert resamples.weak and found["macro_f1"].weak
    assert found["macro_f1"].low < found["macro_f1"].high
    _, refused = bootstrap.split_intervals(y, p, group, None, FEW)
    assert refused.reason == "too_few_groups"
    nine, _ = bootstrap.split_intervals(*subtype(9), None, pooled)
    assert nine["macro_f1"].reason == "too_few_groups" and nine["macro_f1"].low is None
    _, enough = bootstrap.split_intervals(*subtype(20), None, pooled)
    assert not enough.weak, "with five groups a class nothing is pooled"


def test_pooled_resamples_average_over_the_classes_they_hold():
    y, _, group = subtype(10)
    perfect = np.eye(4)[y]
    found, _ = bootstrap.split_intervals(y, perfect, group, None, BootstrapPlan(resamples=300, pool=True))
    assert (found["macro_f1"].low, found["macro_f1"].high) == (1.0, 1.0)


def test_a_figure_that_does_not_exist_has_no_interval():
    y, _, group = clustered(5)
    found, _ = bootstrap.split_intervals(y, np.full(y.size, 0.3), group, 0.5, FEW)
    assert math.isnan(found["ppv"].estimate)
    assert found["ppv"].reason == "undefined" and found["ppv"].low is None
    assert found["ppv"].undefined == 300
    # One patient holds the only positive call: resamples without that patient, a third, have no PPV.
    p = np.full(y.size, 0.3)
    p[0] = 0.9
    some = bootstrap.split_intervals(y, p, group, 0.5, FEW)[0]["ppv"]
    assert some.reason == "undefined" and 60 < some.undefined < 160 and not math.isnan(some.estimate)


def test_paired_differences_use_the_same_resamples():
    y, score, group = clustered(6)
    same = bootstrap.paired_difference(y, score, score * 2 + 1, group, FEW)
    assert (same.difference.estimate, same.difference.low, same.difference.high) == (0, 0, 0)
    noisy = score + np.random.default_rng(0).normal(size=score.size) * 0.3
    pair = bootstrap.paired_difference(y, score, noisy, group, FEW)
    assert pair.difference.estimate == pytest.approx(pair.first.estimate - pair.second.estimate)
    unpaired = math.hypot(pair.first.standard_error, pair.second.standard_error)
    assert pair.difference.standard_error < unpaired / 2
    mirrored = bootstrap.paired_difference(y, noisy, score, group, FEW)
    assert mirrored.difference.low == pytest.approx(-pair.difference.high)


def test_paired_difference_of_no_patches_and_of_different_shapes():
    nothing = bootstrap.paired_difference([], [], [], [], FEW)
    assert nothing.difference.reason == "too_few_groups" and math.isnan(nothing.difference.estimate)
    with pytest.raises(ValueError, match="shapes"):
        bootstrap.paired_difference([0, 1], [0.1, 0.2], np.eye(2), ["a", "b"], FEW)


@pytest.mark.parametrize("groups", [5, 10, 30, 300])
def test_tails_are_read_further_out_with_few_groups(groups):
    quantile = scipy.stats.t.ppf(0.975, groups - 1) * math.sqrt(groups / (groups - 1))
    tail = intervals.expanded_tail(0.95, groups)
    assert tail == pytest.approx(scipy.stats.norm.cdf(-quantile), rel=1e-9) and tail < 0.025


@pytest.mark.parametrize(
    "confidence, groups, quantile",
    [
        # Closed forms of Student's quantile for 1, 2 and 4 degrees of freedom, then the printed tables.
        (0.95, 2, math.tan(math.pi * 0.475)),
        (0.95, 3, 0.95 * math.sqrt(2 / (1 - 0.95**2))),
        (0.90, 5, 2.131846786326649),
        (0.95, 5, 2.776445105197793),
        (0.95, 11, 2.228138851986273),
        (0.99, 31, 2.749995653567230),
        (0.95, 61, 2.000297821058262),
        (0.95, 121, 1.979930405052777),
    ],
)
def test_tails_follow_the_tables_of_student(confidence, groups, quantile):
    expected = NormalDist().cdf(-math.sqrt(groups / (groups - 1)) * quantile)
    assert intervals.expanded_tail(confidence, groups) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("groups", [5, 10, 20, 30, 60, 280])
def test_tails_differ_from_the_series_of_abramowitz_and_stegun_by_its_error_alone(groups):
    """26.7.5, three terms: what gave the limits before scipy did."""
    z, free = NormalDist().inv_cdf(0.975), groups - 1
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    term = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * free**4)
    old, new = (NormalDist().cdf(-math.sqrt(groups / free) * quantile) for quantile in (t, t + term))
    assert intervals.expanded_tail(0.95, groups) == pytest.approx(new, abs=abs(new - old) / 2 + 1e-9)


def test_smallest_detectable_difference():
    assert intervals.smallest_detectable_difference(0.01, 10**9) == pytest.approx(0.0280159, abs=1e-6)
    assert intervals.smallest_detectable_difference(0.01, 10**9, power=0.9) == pytest.approx(
        (1.959964 + 1.281552) / 100
    )
    assert intervals.smallest_detectable_difference(0.01, 30) == pytest.approx(
        (2.04523 * math.sqrt(30 / 29) + 0.841621) / 100, abs=1e-6
    )
    assert intervals.unpaired_standard_error(0.01) == pytest.approx(0.0141421, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"confidence": 1.0}, {"min_groups_per_class": 0}])
def test_a_plan_that_makes_no_sense_is_an_error(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        BootstrapPlan(**wrong)


def test_coverage_with_thirty_patients_where_patches_as_units_fail():
    """Simulated AUC: intervals over patients hold the truth in at least 90 %, over patches in far fewer."""
    # Positives and negatives of the population are normal with one variance, 1 + 0.7 ** 2 each.
    truth = NormalDist().cdf(1 / math.sqrt(2 * (1 + 0.7**2)))
    hits = {"patients": 0, "patches": 0}
    rounds = 200
    for seed in range(rounds):
        y, score, group = clustered(1000 + seed)
        for unit, ids in (("patients", group), ("patches", np.arange(y.size))):
            resamples = bootstrap.plan_resamples(y, ids, 2, BootstrapPlan(resamples=200, seed=seed))
            values = resampled.weighted_auc(y, score, group_index(ids)[1])(resamples.weights)
            interval = bootstrap.percentile_interval(point.roc_auc(y, score), values, resamples)
            hits[unit] += interval.low <= truth <= interval.high
    assert hits["patients"] / rounds >= 0.90
    assert hits["patches"] / rounds < 0.80
