"""Parallel axes: where a trial stands on each, and what is drawn of whom."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from components.report import parallel_coordinates as parallel
from components.report import svg, sweep_page
from components.sweeps.sweep_types import Field
from tests.support import sweep_help


def test_places_on_axes() -> None:
    named = parallel.names("recipe", ["b", "a", "b"], ["a", "b", "never_drawn_but_searched_x"])
    assert named.places == (0.5, 1.0, 0.5) and named.ticks[2] == (0.0, "never_drawn_but_s…")
    assert parallel.names("recipe", ["a", "a"]).places == (0.5, 0.5)
    figures = parallel.numbers("weights", [1e3, None, 1e5, 1e4], log=True)
    assert figures.places == pytest.approx((0.0, None, 1.0, 0.5), nan_ok=True)
    assert [label for _, label in figures.ticks] == ["1 k", "10 k", "100 k"]
    assert parallel.numbers("AUC", [0.9, 0.9]).places == (0.5, 0.5)
    field = Field("augmentation", "choice", choices=('"none"', '"standard"'))
    assert parallel.searched(field, ['"standard"']).places == (0.0,)
    assert parallel.searched(Field("seed", "int", low=1, high=9), ["1", "9", "3"]).places == (0.0, 1.0, 0.25)


def test_every_trial_with_a_figure_is_a_line_and_the_chosen_one_stands_out() -> None:
    sweep, trials = sweep_help.sweep()
    drawn = svg.standalone(sweep_page._plots(sweep, sweep_page.ordered(sweep, trials), [])["wide"][0][0])
    ElementTree.fromstring(drawn)
    for said in ("recipe", "phases.0.learning_rate", "augmentation", "weights", "AUC", "0 best", "1 chosen"):
        assert f">{said}</text>" in drawn
    assert drawn.count("stroke-dasharray: 3.6,2.4") == 1  # trial 5 ended early; 6 failed, 7 runs, 8 has not begun
    thick = [part for part in drawn.split("<path") if "stroke-width: 2.8" in part]
    assert sum("var(--c2)" in part for part in thick) == 1 and len(thick) == 2
    # A list of recipes has no fields: size and time tell the families apart.
    listed = dataclasses.replace(sweep, search=dataclasses.replace(sweep.search, oracle="list", fields=()))
    page = sweep_page.render(listed, trials)
    assert "Each trial as a line over recipe, weights, minutes and AUC" in page
    assert "Each trial as a line" not in sweep_page.render(sweep, {0: trials[0]})
