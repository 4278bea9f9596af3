"""`histoline runs`: lists runs, shows one, puts several side by side, and sends them to MLflow."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.core.text import number, spaced
from components.errors import UsageError
from pipelines import console
from pipelines.mlflow_export import mlflow_option
from pipelines.options import json_option, only_task_option, open_workspace, workspace_option

if TYPE_CHECKING:
    from components.report.run_comparison import Comparison


@click.group("runs")
def command() -> None:
    """List and show runs, put several side by side, or send them to MLflow."""


@command.command("list")
@click.argument("dataset", required=False, default="")
@only_task_option
@click.option("--outcome", default="", help="Only these: promoted, refused, unchanged, failed, running, evaluated.")
@workspace_option()
@json_option
def list_(dataset: str, task: str, outcome: str, workspace: str, as_json: bool) -> None:
    """List runs, the newest of each data set and task first."""
    from components.report import index

    outcomes = ("promoted", "refused", "unchanged", "failed", "running", "evaluated")
    if outcome and outcome not in outcomes:
        raise UsageError(f"--outcome {outcome!r} is none.", f"Give one of {', '.join(outcomes)}.")
    families, broken = index.families(open_workspace(workspace))
    lines = [
        line
        for family in families
        for line in family.lines
        if (dataset in ("", line.dataset)) and (task in ("", line.task)) and (outcome in ("", line.verdict))
    ]
    for folder in broken:
        console.log(f"{folder}: its run.json is damaged.", "warning")

    def show() -> None:
        if not lines:
            console.say(f"No such run in {workspace}: histoline train makes one.")
            return
        cells = [
            (line.run_id, line.dataset, line.task, line.created[:16].replace("T", " "), line.model,
             line.verdict + (", champion" if line.champion else ""),
             "" if line.estimate is None else f"{line.metric} {interval(dataclasses.asdict(line))}",
             "" if line.version is None else line.version)
            for line in lines
        ]  # fmt: skip
        columns = ("run", "dataset", "task", "begun (UTC)", "model", "outcome", "test, 95 % interval", "version")
        console.table(f"Runs in {workspace}", columns, cells, right=(7,))

    console.emit([dataclasses.asdict(line) for line in lines], as_json, show)


@command.command("show")
@click.argument("run_id")
@workspace_option()
@json_option
def show_(run_id: str, workspace: str, as_json: bool) -> None:
    """Show one run: outcome and reason, figures, recipe, places; --json gives run.json."""
    from components.report.lineage import flatten
    from components.report.measures import TITLES
    from components.report.page import reason, verdict
    from components.training import run_record

    storage = open_workspace(workspace)
    folder = run_record.find_run(storage, run_id)
    if folder is None:
        raise UsageError(f"There is no run {run_id!r} in {workspace}.", "List them: histoline runs list.")
    record = run_record.read(storage, folder)

    def show() -> None:
        click.echo(f"{record.dataset} {record.task} {record.run_id}: {verdict(record)}")
        click.echo(reason(record))
        test = record.metrics.get("test")
        if test:
            rows = [(TITLES[name], interval(record.figures()[name])) for name in TITLES if name in record.figures()]
            title = f"Test split: {test['patches']:,} patches of {test['groups']} {record.group_unit}s"
            console.table(f"\n{title}", ("metric", "95 % interval"), rows)
        console.table("\nRecipe", ("field", "value"), list(flatten(record.config)))
        click.echo(f"\nrun:      {storage.uri(folder)}\ndata set: {storage.uri(record.dataset_dir)}")
        if record.report:
            click.echo(f"report:   {storage.uri(record.report)}")

    console.emit(record.to_document(), as_json, show)


@command.command("compare")
@click.argument("run_ids", nargs=-1, metavar="RUN_ID RUN_ID [RUN_ID ...]")
@click.option("--page", default="", metavar="FILE", help="Write the comparison as an HTML page too.")
@workspace_option()
@json_option
def compare(run_ids: tuple[str, ...], page: str, workspace: str, as_json: bool) -> None:
    """Compare runs with the first one, paired by patient on the test patches that all may be judged on."""
    from components.report import run_comparison

    found = run_comparison.compare(run_comparison.read(open_workspace(workspace), run_ids))
    document = found.to_document()
    if page:
        file = Path(page)
        if not file.parent.is_dir():
            raise UsageError(f"--page {page}: there is no folder {file.parent}.", "Make it first.")
        file.write_text(run_comparison.render(found), encoding="utf-8", errors="replace")
        document["page"] = str(file)

    def show() -> None:
        _show(found)
        if page:
            click.echo(f"\n{page}")

    console.emit(document, as_json, show)


@command.command("export")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID [RUN_ID ...]")
@mlflow_option
@workspace_option()
@json_option
def export(run_ids: tuple[str, ...], mlflow: str, workspace: str, as_json: bool) -> None:
    """Send runs to MLflow: recipe, curves, figures with intervals, digests, and the report.

    A run that is there as it stands is not sent again; one that has changed replaces what was sent before.
    """
    from components.training import run_record
    from pipelines import mlflow_export

    if not mlflow:
        raise UsageError("Where to?", "Give --mlflow http://HOST:5000, or HISTOLINE_MLFLOW.")
    storage = open_workspace(workspace)
    folders = {run_id: run_record.find_run(storage, run_id) for run_id in run_ids}
    for run_id, folder in folders.items():
        if folder is None:
            raise UsageError(f"There is no run {run_id!r} in {workspace}.", "List them: histoline runs list.")
    sent = [mlflow_export.export(storage, folder, mlflow) for folder in folders.values() if folder]

    def show() -> None:
        for done in sent:
            click.echo(mlflow_export.said(done))

    console.emit(sent, as_json, show)


def _show(found: Comparison) -> None:
    from components.report.measures import TITLES
    from components.report.run_comparison import verdict_of

    names = [member.record.run_id for member in found.members]
    figures = [
        (TITLES[name], *(interval(value) if value else "–" for value in values))
        for name, values in found.metrics.items()
    ]
    console.table("Each on its own test split, 95 % intervals", ("metric", *names), figures)
    unit = found.members[0].record.group_unit
    rows = []
    for item in found.differences:
        if item.result is None:
            rows.append((item.run_id, "–", "no test patch that both may be judged on", item.groups, item.left_out))
            continue
        difference = dataclasses.asdict(item.result.difference)
        rows.append(
            (item.run_id, interval(difference, sign=True), verdict_of(item.result.difference), item.groups,
             item.left_out)
        )  # fmt: skip
    columns = ("run", f"{TITLES[found.metric]}, difference", "that is", f"{unit}s", "left out, trained on")
    console.table(f"\nAgainst {names[0]}, on the same {unit}s", columns, rows, right=(3, 4))
    cut = [item for item in found.differences if item.at_threshold]
    if cut:
        table = [
            (item.run_id, *(interval(dataclasses.asdict(value), sign=True) for value in item.at_threshold.values()))
            for item in cut
        ]
        titles = (TITLES[name] for name in cut[0].at_threshold)
        console.table("\nThe same at each run's own threshold", ("run", *titles), table)
    recipe = [(field, *(value or "–" for value in values)) for field, values in found.recipe.items()]
    if recipe:
        console.table("\nWhat differs between the recipes", ("field", *names), recipe)
    else:
        click.echo("\nThe recipes are the same.")
    for note in found.notes:
        click.echo(note)


def interval(value: Mapping[str, Any], *, sign: bool = False) -> str:
    """An estimate with its limits, as a terminal shows it; without them, why there are none.

    Args:
        value: `estimate`, `low`, `high` and perhaps `reason`.
        sign: Whether positive figures carry a plus.
    """
    estimate = number(value["estimate"], sign=sign)
    if value.get("low") is None:
        reason = spaced(value.get("reason") or "")
        return f"{estimate} ({reason})" if reason else estimate
    low, high = (number(value[end], sign=sign) for end in ("low", "high"))
    return f"{estimate} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.runs")))
