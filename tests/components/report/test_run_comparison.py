"""Runs side by side: the difference is the gate's, on patches that both may be judged on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.errors import DataError, UsageError
from components.metrics.bootstrap import BootstrapPlan, paired_difference
from components.metrics.intervals import Interval
from components.metrics.point import binary_metrics, roc_auc
from components.report import run_comparison
from components.report.page import CSP
from components.report.run_comparison import Member
from tests.support.report_help import Studio


@pytest.fixture(scope="module")
def members(binary: Studio) -> tuple[Member, ...]:
    return run_comparison.read(binary.storage, ["good", "poor"])


def test_the_difference_is_that_of_the_paired_bootstrap(members: tuple[Member, ...]) -> None:
    found = run_comparison.compare(members)
    (difference,) = found.differences
    good, poor = (member.test for member in members)
    assert good is not None and poor is not None and difference.result is not None
    expected = paired_difference(
        good.labels, poor.probability, good.probability, good.groups, BootstrapPlan()
    ).difference
    assert difference.result.difference == expected
    assert difference.patches == len(good) and difference.left_out == 0
    assert run_comparison.verdict_of(difference.result.difference) == "worse"
    turned = run_comparison.compare(members[::-1]).differences[0].result
    assert turned is not None and run_comparison.verdict_of(turned.difference) == "better"
    assert found.metrics["auc"][0]["estimate"] == pytest.approx(difference.result.second.estimate)
    assert found.recipe == {} and found.notes == ()


def test_differences_at_each_runs_own_threshold(members: tuple[Member, ...]) -> None:
    first, second = members
    cut = dataclasses.replace(second, record=dataclasses.replace(second.record, threshold=0.7))
    (difference,) = run_comparison.compare((first, cut)).differences
    good, poor = first.test, second.test
    assert good is not None and poor is not None and first.record.threshold == 0.4
    ours = binary_metrics(poor.labels, poor.probability, 0.7)
    theirs = binary_metrics(good.labels, good.probability, 0.4)
    assert set(difference.at_threshold) == set(run_comparison.AT_THRESHOLD)
    for name, found in difference.at_threshold.items():
        assert found.estimate == pytest.approx(ours[name] - theirs[name]), name
        assert found.low is not None and found.high is not None and found.low <= found.estimate <= found.high
    uncut = dataclasses.replace(second, record=dataclasses.replace(second.record, threshold=None))
    assert run_comparison.compare((first, uncut)).differences[0].at_threshold == {}


def test_roc_curves_are_laid_over_one_another(members: tuple[Member, ...]) -> None:
    first, second = members
    page = run_comparison.render(run_comparison.compare(members))
    assert second.test is not None
    auc = roc_auc(second.test.labels, second.test.probability)
    assert 'id="roc-' in page and f"poor, {auc:.3f}" in page and "own threshold" in page
    unscored = dataclasses.replace(second, test=None)
    assert 'id="roc-' not in run_comparison.render(run_comparison.compare((first, unscored)))


def test_groups_that_either_was_trained_on_are_left_out(members: tuple[Member, ...]) -> None:
    first, second = members
    assert second.test is not None and second.trained_on is not None
    seen = str(second.test.groups[0])
    for pair in (
        (dataclasses.replace(first, trained_on=first.trained_on | {seen}), second),
        (first, dataclasses.replace(second, trained_on=second.trained_on | {seen})),
    ):
        (difference,) = run_comparison.compare(pair).differences
        assert difference.left_out == 1
        assert difference.patches == int((second.test.groups != seen).sum())


def test_only_common_patches_count_and_order_does_not(members: tuple[Member, ...]) -> None:
    first, second = members
    test = second.test
    assert test is not None
    order = np.random.default_rng(0).permutation(len(test))[: len(test) - 7]
    columns = {name: getattr(test, name)[order] for name in ("patch_id", "groups", "slides", "labels", "probability")}
    part = dataclasses.replace(second, test=dataclasses.replace(test, **columns))
    (difference,) = run_comparison.compare((first, part)).differences
    assert difference.patches == len(test) - 7 and difference.result is not None
    kept = np.sort(order)
    expected = paired_difference(
        test.labels[kept], test.probability[kept], first.test.probability[kept], test.groups[kept], BootstrapPlan()
    )  # fmt: skip
    assert difference.result.difference.estimate == pytest.approx(expected.difference.estimate)

    elsewhere = dataclasses.replace(test, patch_id=np.char.add("x", test.patch_id.astype(str)))
    nothing = dataclasses.replace(second, test=elsewhere)
    assert run_comparison.compare((first, nothing)).differences[0].result is None
    wrong = dataclasses.replace(second, test=dataclasses.replace(test, labels=1 - test.labels))
    with pytest.raises(DataError, match="different labels"):
        run_comparison.compare((first, wrong))


def test_what_is_missing_is_said(members: tuple[Member, ...]) -> None:
    first, second = members
    unscored = dataclasses.replace(second, test=None)
    pruned = dataclasses.replace(second, trained_on=None)
    assert "no predictions" in run_comparison.compare((first, unscored)).notes[0]
    assert "no longer there" in run_comparison.compare((first, pruned)).notes[0]
    none = Interval(0.1, reason="too_few_groups")
    assert run_comparison.verdict_of(none) == "no interval: too few groups"
    assert run_comparison.verdict_of(Interval(0.1, low=-0.1, high=0.2)) == "not told apart"


def test_recipes_show_what_differs_and_names_are_escaped(members: tuple[Member, ...]) -> None:
    first, second = members
    config = {**second.record.config, "seed": 7, "title": "<b>other</b>"}
    other = dataclasses.replace(second, record=dataclasses.replace(second.record, config=config))
    found = run_comparison.compare((first, other))
    assert found.recipe["seed"] == ("", "7") and set(found.recipe) == {"seed", "title"}
    page = run_comparison.render(found)
    assert "<b>" not in page and "<svg" in page and CSP.replace("'", "&#39;") in page and "<script" not in page


def test_runs_that_do_not_compare(binary: Studio) -> None:
    for names in (["good"], ["good", "good"], []):
        with pytest.raises(UsageError, match="two different runs"):
            run_comparison.read(binary.storage, names)
    with pytest.raises(UsageError, match="no run 'nobody'"):
        run_comparison.read(binary.storage, ["good", "nobody"])
