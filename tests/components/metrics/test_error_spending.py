"""Error spent over looks: the first keeps its level, all together stay within twice its error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from components.metrics.error_spending import LAST, confidence_at, limits_at
from components.metrics.intervals import Interval, chance_of_passing, critical_value


def test_the_first_look_keeps_its_error_and_all_later_ones_share_as_much():
    errors = [1 - confidence_at(look) for look in range(1, LAST + 1)]
    assert errors[:4] == pytest.approx([0.05, 0.025, 0.05 / 6, 0.05 / 12])
    assert 0.05 < sum(errors) < 0.1 and sum(errors[1:]) == pytest.approx(0.05 * (1 - 1 / LAST))
    assert confidence_at(LAST + 90) == confidence_at(LAST), "so that a large gain is found at any look"
    assert confidence_at(0) == 0.95 and confidence_at(2, 0.9) == pytest.approx(0.95)


def test_limits_at_another_confidence():
    interval = Interval(0.02, -0.01, 0.04, 0.012, groups=30)
    assert limits_at(interval, 0.95, 0.95) == (-0.01, 0.04)
    low, high = limits_at(interval, 0.95, confidence_at(10))
    ratio = stats.t.ppf(1 - 0.025 / 90, 29) / stats.t.ppf(0.975, 29)
    assert (low, high) == pytest.approx((0.02 - 0.03 * ratio, 0.02 + 0.02 * ratio), abs=1e-9)
    assert limits_at(Interval(0.9, 0.2, 0.99, 0.1, groups=6), 0.95, 0.9999) == (-1.0, 1.0)
    assert limits_at(Interval(0.5, reason="too_few_groups"), 0.95, 0.99) == (None, None)


def test_the_chance_of_passing():
    half = critical_value(0.95, 30) * 0.01
    assert chance_of_passing(0.01, 30, half, 0.95) == pytest.approx(0.5)
    assert chance_of_passing(0.01, 30, 0.0, 0.95) < 0.025
    assert [chance_of_passing(0.0, 30, gain, 0.95) for gain in (-0.1, 0.0, 0.1)] == [0, 0, 1]


def test_luck_among_twenty_models_of_one_quality_rarely_promotes():
    # Differences of 20 equal models to one champion on the same 30 patients; patients' means are what is resampled.
    rng = np.random.default_rng(0)
    promoted, promoted_at_95 = 0, 0
    for _ in range(300):
        own = rng.normal(size=(20, 30))
        error = own.std(axis=1, ddof=1) / 30**0.5
        c = np.array([critical_value(confidence_at(look), 30) for look in range(1, 21)])
        promoted += bool((own.mean(axis=1) > c * error).any())
        promoted_at_95 += bool((own.mean(axis=1) > critical_value(0.95, 30) * error).any())
    assert promoted / 300 < 0.08 and promoted_at_95 / 300 > 0.25
