"""The threshold explorer: a panel and a mark for each step, chosen without a script."""

from __future__ import annotations

import re

from components.metrics.bootstrap import BootstrapPlan
from components.report.evidence import Evidence
from components.report.explorer import explorer
from components.report.measures import bootstrap_plan


def test_each_step_has_a_button_a_panel_a_mark_and_a_rule(poor: Evidence, poor_page: str) -> None:
    made = explorer(poor, bootstrap_plan(poor))
    assert made is not None and made.steps[made.start].threshold == poor.threshold
    numbers = [str(i) for i in range(len(made.steps))]
    assert re.findall(r'<input type="radio" name="step" id="step-(\d+)"', poor_page) == numbers
    assert re.findall(r'<div class="step step-(\d+)"', poor_page) == numbers
    assert re.findall(r'<g id="thresholds-at(\d+)"', poor_page) == numbers
    assert re.findall(r"#explorer:has\(#step-(\d+):checked\) \.step-\1 ", poor_page) == numbers
    assert re.findall(r'id="step-(\d+)" checked', poor_page) == [str(made.start)]


def test_the_stored_step_says_what_the_headline_says(poor: Evidence) -> None:
    made = explorer(poor, bootstrap_plan(poor))
    assert made is not None
    for name, interval in made.steps[made.start].figures.items():
        told = poor.record.figures()[name]
        assert (interval.estimate, interval.low, interval.high) == (told["estimate"], told["low"], told["high"])


def test_several_classes_have_no_threshold(types: Evidence) -> None:
    assert explorer(types, BootstrapPlan()) is None
