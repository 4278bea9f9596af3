"""`histoline report`: makes a run's page, or those of all runs, and the index of the workspace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from components.errors import HistolineError, UsageError
from pipelines import console
from pipelines.options import json_option, open_workspace, workspace_option

if TYPE_CHECKING:
    from components.storage.base import Storage


@click.command("report")
@click.argument("run_id", required=False, default="", metavar="[RUN_ID]")
@click.option("--all", "every", is_flag=True, help="Make the pages of all runs anew.")
@workspace_option()
@json_option
def command(run_id: str, every: bool, workspace: str, as_json: bool) -> None:
    """Make the report of a run, or of --all runs, and runs/index.html.

    Works for every run, also one that failed, was refused or found nothing new; it needs run.json only, and shows as
    much as is still there.
    """
    from components.report import index, page
    from components.training import run_record

    if bool(run_id) == every:
        raise UsageError("Give either a run id or --all.", "For example: histoline report RUN_ID.")
    storage = open_workspace(workspace)
    if every:
        folders = list(_runs(storage))
    else:
        folder = run_record.find_run(storage, run_id)
        if folder is None:
            raise UsageError(f"There is no run {run_id!r} in {workspace}.", "Give the run id that train printed.")
        folders = [folder]
    made, errors = [], []
    for folder in folders:
        try:
            with run_record.lock(storage, folder, "histoline report"):
                made.append(storage.uri(page.write(storage, folder)))
        except HistolineError as error:  # a damaged or busy run must not keep the others from their pages
            errors.append(error)
    document = {"reports": made, "index": storage.uri(index.write(storage))}
    if errors:
        raise errors[0]

    def show() -> None:
        for path in [*made, document["index"]]:
            click.echo(path)

    console.emit(document, as_json, show)


def _runs(storage: Storage) -> Iterator[str]:
    """Folders of all runs, data set by data set."""
    from components.training import run_record

    for dataset in storage.list_dirs("runs"):
        for task in storage.list_dirs(f"runs/{dataset}"):
            for run_id in storage.list_dirs(f"runs/{dataset}/{task}"):
                folder = f"runs/{dataset}/{task}/{run_id}"
                if storage.exists(f"{folder}/{run_record.NAME}"):
                    yield folder


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.report")))
