"""`histoline evaluate`: a promoted or any exported model on another labelled data set, without training."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from components.core.text import number
from components.errors import UsageError
from pipelines import console
from pipelines.options import json_option, name_and_flags, parts_option, workspace_option

if TYPE_CHECKING:
    from components.storage.base import Storage


@click.command("evaluate", context_settings={"ignore_unknown_options": True})
@click.argument("rest", metavar="[VERSION] [BEAM FLAGS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--data", required=True, help="Labelled data set: its folder in the workspace, or PLAN_ID.")
@click.option("--model", default="", help="Folder of an exported model, instead of VERSION (or RUN_ID).")
@workspace_option("Holds data and runs.")
@click.option("--run-id", default="", help="Name of the run that holds the result; made of time and model by default.")
@parts_option
@json_option
def command(rest: tuple[str, ...], workers: int, as_json: bool, **given: Any) -> None:
    """Metrics, intervals, slices and a report of VERSION on a data set that it was not trained on.

    Groups that the model was trained on are left out. Nothing is promoted: the decision stays empty.
    """
    from pipelines.beam.flags import check_own_typos, runner_args
    from pipelines.predict import parallel_parts

    version, extra = name_and_flags(rest)
    check_own_typos(extra, command)
    document = run(version, given, parallel_parts(workers), runner_args(extra))
    console.emit(document, as_json, lambda: show(document))


def run(version: str, given: dict[str, Any], parallel: int, beam_args: list[str]) -> dict[str, Any]:
    """Runs one evaluation.

    Args:
        version: VERSION or RUN_ID, empty where --model is given.
        given: The options.
        parallel: Parts that one worker has under way.
        beam_args: Flags for Beam, with a runner among them.

    Returns:
        What `pipelines.stages.result` gives, and what was left out.

    Raises:
        UsageError, DataError, TemporaryError: See `components.errors`.
    """
    if bool(version) == bool(given["model"]):
        raise UsageError(
            "Name a VERSION (or RUN_ID), or a model's folder with --model: one of the two.",
            "See histoline models list.",
        )
    from components.prediction import external_evaluation as external
    from components.promotion import find_model
    from components.storage.open import open_storage
    from components.training import run_inputs, run_record
    from pipelines import stages
    from pipelines.predict import beam_work

    storage = open_storage(given["workspace"])
    found = find_model.model_folder(given["model"]) if given["model"] else None
    model = found or find_model.named_model(storage, version)
    dataset, task = model.facts["dataset"], model.facts["task"]
    dataset_dir, manifest = run_inputs.find_dataset(storage, dataset, task, given["data"])
    job = external.prepare(storage, model, dataset_dir, manifest)
    folder = run_record.run_dir(dataset, task, given["run_id"] or external.new_run_id(model.version))
    work = beam_work(parallel, beam_args, job.plan.planned)
    with run_record.lock(storage, folder, f"histoline evaluate {model.version}"):
        external.begin(storage, folder, job)
        with run_record.stage(storage, folder, "evaluate"):
            external.evaluate(storage, folder, job, work)
        with run_record.stage(storage, folder, "report"):
            make_report(storage, folder)
    record = run_record.read(storage, folder)
    document = stages.result(storage, record)
    return {**document, "run_dir": storage.uri(folder), "evaluation": record.options["evaluation"]}


def make_report(storage: Storage, folder: str) -> None:
    """Writes the run's report, and the index of all runs.

    Args:
        storage: The workspace.
        folder: Of the run.
    """
    from components.report import index, page

    page.write(storage, folder)
    index.write(storage, f"run {folder.rsplit('/', 1)[1]}")


def show(document: dict[str, Any]) -> None:
    """Prints the result for people."""
    click.echo(document["reason"])
    figures = ", ".join(f"{k} {number(v)}" for k, v in document["metrics"].items() if v is not None)
    click.echo(f"Unseen data: {figures}")
    click.echo(f"Run:         {document['run_dir']}")
    if document["report"]:
        click.echo(f"Report:      {document['report']}")


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.evaluate")))
