"""A sweep's page: its trials with intervals, how far apart they really are, which was chosen and why."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from components.datasets import manifest as manifests
from components.errors import HistolineError
from components.report import figures, parallel_coordinates, sweep_figures
from components.report.lineage import flatten
from components.report.measures import TITLES
from components.report.page import FILE, environment, verdict
from components.storage.base import Storage
from components.sweeps import record as records
from components.sweeps import stopping
from components.sweeps.sweep_types import SweepRecord, Trial, TrialRecord
from components.training import run_record
from components.training.run_types import RunRecord

MORE = ("f1", "balanced_accuracy", "accuracy", "log_loss")
"""Figures beside the primary one, those that the trials have."""

CURVES = 8
"""Trials whose learning curves are drawn, the best ones."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A trial on the page.

    Attributes:
        number: Of the trial.
        recipe: It starts from.
        values: What was drawn, as text.
        trial: trial.json; None where it has not begun.
        value: Primary metric: estimate and limits; empty where it was not trained to its end.
        difference: That minus the best trial's, an interval; empty likewise.
        within: Within one standard error of the best.
        winner: It was chosen.
        best: It has the best estimate.
        outcome: What became of it, in words.
        why: Why it failed or was ended early.
    """

    number: int
    recipe: str
    values: str
    trial: TrialRecord | None
    value: Mapping[str, Any]
    difference: Mapping[str, Any]
    within: bool
    winner: bool
    best: bool
    outcome: str
    why: str


def write(storage: Storage, folder: str) -> str:
    """Makes a sweep's page and gives its path; the caller holds the sweep's lock.

    Args:
        storage: The workspace.
        folder: Of the sweep.
    """
    sweep = records.read(storage, folder)
    run, link = _run(storage, sweep)
    drawn = _is_drawn(storage, sweep.dataset_dir)
    page = render(sweep, records.read_trials(storage, folder, sweep), run, link, drawn)
    path = f"{folder}/{records.PAGE}"
    storage.write_atomic(path, page.encode("utf-8", "replace"), tmp_dir=f"{folder}/.tmp")
    return path


def _is_drawn(storage: Storage, dataset_dir: str) -> bool:
    """Whether a program drew the images; no where the data set is gone."""
    try:
        return manifests.load(storage, dataset_dir).drawn
    except HistolineError:
        return False


def _run(storage: Storage, sweep: SweepRecord) -> tuple[RunRecord | None, str]:
    """The winner's run, where there is one, and the link to its page."""
    folder = run_record.run_dir(sweep.dataset, sweep.task, sweep.run_id)
    if not run_record.exists(storage, folder):
        return None, ""
    run = run_record.read(storage, folder)
    same = run.paths.get("same_as")  # it was trained and judged before
    place = same or folder
    link = f"../../../../{place}/{FILE}" if storage.exists(f"{place}/{FILE}") else ""
    return run, link


def render(
    sweep: SweepRecord, trials: Mapping[int, TrialRecord], run: RunRecord | None = None, link: str = "",
    drawn: bool = False,
) -> str:  # fmt: skip
    """The page, self-contained and without scripts.

    Args:
        sweep: sweep.json.
        trials: trial.json by number.
        run: run.json of the winner's run.
        link: To that run's page, relative to this one; empty where there is none.
        drawn: Whether a program drew the images.
    """
    lines = ordered(sweep, trials)
    done = [line for line in lines if line.value]
    text = environment().get_template("sweep.html").render(
        sweep=sweep,
        drawn=drawn,
        metric=TITLES[sweep.metric],
        unit=sweep.group_unit,
        lines=lines,
        done=done,
        cut=sum(stopping.was_cut(trial) for trial in trials.values()) if sweep.search.minutes else 0,
        others=[line for line in lines if not line.value],
        more=[name for name in MORE if any(name in line.trial.figures for line in done if line.trial)],
        differs=_differs(sweep, done),
        plots=_plots(sweep, lines, done),
        seconds=sum(trial.seconds for trial in trials.values()),
        run=run,
        verdict=verdict(run) if run else "",
        link=link,
    )  # fmt: skip
    return str(text)


def ordered(sweep: SweepRecord, trials: Mapping[int, TrialRecord]) -> list[Line]:
    """All trials: trained to their end, best first; then those that ended early, best first; then what failed."""
    lines = [_line(sweep, trial, trials.get(trial.number)) for trial in sweep.trials]
    place = {"done": 0, "stopped": 1, "running": 2, "failed": 3}

    def key(line: Line) -> tuple[int, bool, float, int]:
        state = place[line.trial.state] if line.trial else 4
        score = (line.trial.score if line.trial else None) or 0.0
        return state, not line.best, -score, line.number

    return sorted(lines, key=key)


def _line(sweep: SweepRecord, trial: Trial, found: TrialRecord | None) -> Line:
    choice = sweep.choice
    why = "" if found is None else found.error.message if found.error else found.reason
    return Line(
        number=trial.number,
        recipe=trial.title,
        values=", ".join(f"{name} {_shown(value)}" for name, value in trial.values.items()),
        trial=found,
        value=found.figures.get(sweep.metric, {}) if found is not None and found.state == "done" else {},
        difference=choice.differences.get(str(trial.number), {}) if choice else {},
        within=choice is not None and trial.number in choice.within,
        winner=choice is not None and trial.number == choice.winner,
        best=choice is not None and trial.number == choice.best,
        outcome=stopping.outcome(found),
        why=why,
    )


def _shown(value: Any) -> str:
    """A value as people write it: of YAML's own text, without its quotes."""
    try:
        read = json.loads(str(value))
    except ValueError:
        return str(value)
    if isinstance(read, float):
        return f"{read:.3g}"
    return ", ".join(map(str, read)) if isinstance(read, list) else str(read)


def _differs(sweep: SweepRecord, done: list[Line]) -> dict[str, list[str]]:
    """Field of the recipe to its value in each finished trial, only those that are not the same in all."""
    recipes = [dict(flatten(sweep.trials[line.number].config)) for line in done]
    fields = sorted({field for recipe in recipes for field in recipe} - {"title"})
    found = {field: [recipe.get(field, "") for recipe in recipes] for field in fields}
    return {field: values for field, values in found.items() if len(set(values)) > 1}


def _parallel(sweep: SweepRecord, lines: list[Line]) -> Markup | None:
    """Trials across parallel axes; None where there are not two of them that differ in anything."""
    shown = [
        (line, sweep.trials[line.number], line.trial) for line in lines
        if line.trial and line.trial.score is not None and line.trial.state in ("done", "stopped")
    ]  # fmt: skip
    if len(shown) < 2:
        return None
    axes = []
    if len({line.recipe for line, _, _ in shown}) > 1:
        axes.append(parallel_coordinates.names("recipe", [line.recipe for line, _, _ in shown]))
    for field in sweep.search.fields:
        axes.append(parallel_coordinates.searched(field, [str(trial.values[field.name]) for _, trial, _ in shown]))
    for title in ("parameters", "pixels"):
        values = [getattr(found, title) for _, _, found in shown]
        if len({value for value in values if value is not None}) > 1:
            axes.append(parallel_coordinates.numbers({"parameters": "weights"}.get(title, title), values, log=True))
    if not axes:
        return None
    axes.append(parallel_coordinates.numbers("minutes", [found.seconds / 60 for _, _, found in shown]))
    axes.append(parallel_coordinates.numbers(TITLES[sweep.metric], [found.score for _, _, found in shown]))
    rows = [
        parallel_coordinates.Row(line.number, line.recipe, bool(line.value), line.winner, line.best)
        for line, _, _ in shown
    ]
    return parallel_coordinates.draw("parallel", axes, rows, TITLES[sweep.metric])


def _plots(sweep: SweepRecord, lines: list[Line], done: list[Line]) -> dict[str, list[tuple[Markup, str]]]:
    metric = TITLES[sweep.metric]
    wide: list[tuple[Markup, str]] = []
    small: list[tuple[Markup, str]] = []
    if len(done) > 1:
        rows = [
            {"label": f"{line.number}  {line.recipe}", "estimate": line.value["estimate"],
             "low": line.value.get("low"), "high": line.value.get("high"), "winner": line.winner}
            for line in done
        ]  # fmt: skip
        wide.append((
            sweep_figures.intervals("trials", rows, metric, sweep.group_unit),
            f"{metric} on {sweep.where}, with 95 % intervals by {sweep.group_unit}; diamond: chosen; dotted: the best."
            " These"
            " intervals overlap far more than the trials differ: what they share is in each. The differences in the"
            " table are paired.",
        ))  # fmt: skip
        sizes = [
            {"number": line.number, "estimate": line.value["estimate"], "parameters": line.trial.parameters,
             "winner": line.winner}
            for line in done if line.trial and line.trial.parameters
        ]  # fmt: skip
        if len({row["parameters"] for row in sizes}) > 1:
            small.append((sweep_figures.cost("cost", sizes, metric), f"{metric} against size; numbers are trials"))
    histories = [
        (f"{line.number} {line.recipe}", {f"val_{sweep.metric}": line.trial.curve})
        for line in [*done, *(line for line in lines if not line.value)][:CURVES]
        if line.trial and line.trial.curve
    ]
    if histories:
        curves = figures.overlaid("curves", histories, f"val_{sweep.metric}")
        small.append((curves, f"{metric} on eval after each epoch{', mean of the folds' if sweep.folds else ''}"))
    scored = [
        {"values": sweep.trials[line.number].values, "score": line.trial.score, "done": bool(line.value),
         "winner": line.winner}
        for line in lines if line.trial and line.trial.score is not None and line.trial.state != "failed"
    ]  # fmt: skip
    lines_of = _parallel(sweep, lines)
    if lines_of is not None:
        wide.append((
            lines_of,
            f"Every trial as a line, from what it was made of to its {metric}: thick are the best and the chosen one"
            " (diamonds), dashed and hollow those that ended early, with the best figure that they had by then.",
        ))  # fmt: skip
    slices = [
        (sweep_figures.slices(f"slice-{i}", field, scored, metric), f"{field.name}: what its values gave")
        for i, field in enumerate(sweep.search.fields)
        if len(scored) > 1
    ]
    return {"wide": wide, "small": small, "slices": slices}
