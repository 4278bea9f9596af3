"""A sweep's page: best first, the choice explained, failures with their reasons, no script, nothing unescaped."""

from __future__ import annotations

import dataclasses
import re

from components.report import sweep_page
from components.report.page import CSP
from tests.support import sweep_help


def test_trials_stand_best_first_then_those_that_ended_early_then_what_failed() -> None:
    sweep, trials = sweep_help.sweep()
    lines = sweep_page.ordered(sweep, trials)
    done = [line for line in lines if line.value]
    assert [line.value["estimate"] for line in done] == sorted((line.value["estimate"] for line in done), reverse=True)
    assert [line.number for line in lines[len(done) :]] == [5, 7, 6, 8]
    assert sum(line.winner for line in lines) == sum(line.best for line in lines) == 1
    assert sweep.choice is not None and sweep.choice.winner != sweep.choice.best  # the rule had something to do
    assert lines[0].best and {line.number for line in lines if line.within} == set(sweep.choice.within)


def test_the_page_says_what_was_chosen_why_and_what_failed() -> None:
    sweep, trials = sweep_help.sweep()
    assert "Synthetic data" in sweep_page.render(sweep, trials, drawn=True)
    page = sweep_page.render(sweep, trials)
    assert "Synthetic data" not in page
    # A phone shows rows of runs as blocks that name a version; trials have other columns.
    assert '<table class="trials"' in page and '<table class="runs"' not in page
    assert sweep.choice is not None and str(sweep.choice.reason).partition(":")[0] in page
    assert "<script" not in page and CSP.split(";")[0] in page.replace("&#39;", "'")
    assert "loss became nan in epoch 1" in page and "clearly behind after 4 of 8 epochs" in page
    assert page.count('class="badge champion">chosen') == 1 and "not begun" in page
    assert "What mattered" in page and "phases.0.learning_rate: what its values gave" in page
    assert re.search(r"<th scope=\"row\">model</th>", page)  # what differs between the recipes
    assert "histoline train idc --preset winner.yaml" in page
    for link in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert link.startswith("#")


def test_a_sweep_without_a_finished_trial_has_a_page_too() -> None:
    sweep, _ = sweep_help.sweep()
    page = sweep_page.render(dataclasses.replace(sweep, choice=None, state="running"), {})
    assert "Nothing chosen yet" in page and "No trial was trained to its end." in page


def test_names_are_never_read_as_markup() -> None:
    page = sweep_page.render(*sweep_help.sweep("<img src=x onerror=alert(1)>"))
    assert "<img src=x" not in page and "&lt;img src=x" in page
