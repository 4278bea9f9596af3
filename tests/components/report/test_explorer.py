"""The threshold explorer: a panel and a mark for each step, chosen without a script."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

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


def test_out_of_fold_the_stored_step_is_each_models_own_threshold(poor: Evidence) -> None:
    assert poor.test is not None and poor.threshold is not None
    own = np.where(np.arange(len(poor.test)) % 2, 0.1, 0.9).astype(np.float32)

    class Folded(Evidence):
        cuts = own  # type: ignore[assignment]  # a property there, which only runs by folds fill

    folded = Folded(**{field.name: getattr(poor, field.name) for field in dataclasses.fields(poor)})
    made = explorer(folded, bootstrap_plan(poor))
    assert made is not None and made.by_fold
    stored = made.steps[made.start]
    assert stored.threshold == poor.threshold and stored.called == int((poor.test.probability >= own).sum())
    plain = explorer(poor, bootstrap_plan(poor))
    assert plain is not None and not plain.by_fold
    told = [[(s.threshold, s.called, s.missed) for s in one.steps if not s.stored] for one in (made, plain)]
    assert told[0] == told[1]


def test_several_classes_have_no_threshold(types: Evidence) -> None:
    assert explorer(types, BootstrapPlan()) is None
