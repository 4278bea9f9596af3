"""All stages of a run in one process, as `train` and `ensemble` have them, and how the end is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from components.core.text import number
from components.errors import HistolineError
from pipelines import console
from pipelines.options import metadata_server

if TYPE_CHECKING:
    from components.storage.base import Storage
    from components.training.run_inputs import Inputs
    from pipelines.tfx.metadata_store import Server


def carry_out(storage: Storage, folder: str, inputs: Inputs, metadata: str, force: bool, as_json: bool) -> None:
    """Runs all stages of a run under its lock, and says how it ended.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
        inputs: What it starts from.
        metadata: Of --metadata.
        force: Run even if a finished run had the same inputs.
        as_json: Whether the end is said as JSON.
    """
    from components.training import run_record
    from pipelines import stages

    server = metadata_server(metadata)
    work_through(storage, folder, inputs, server, f"histoline train {inputs.dataset} {inputs.task}", force)
    document = stages.result(storage, run_record.read(storage, folder))
    console.emit(document, as_json, lambda: show(document, storage.uri(folder)))


def work_through(
    storage: Storage, folder: str, inputs: Inputs, server: Server | None, owner: str, force: bool = False
) -> None:
    """Runs all stages of a run under its lock, shown on a terminal while they work.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
        inputs: What it starts from.
        server: ML Metadata, where it is shared.
        owner: Who holds the lock, for whoever waits for it.
        force: Run even if a finished run had the same inputs.
    """
    from components.training import run_record
    from components.training.run_types import STAGES
    from pipelines import stages
    from pipelines.live_run import followed

    with run_record.lock(storage, folder, owner) as held, followed(storage, folder, inputs.config) as (log, told):
        run = stages.Run(storage, folder, log, server, held.check, told)
        with result_left_behind(storage, folder):
            run.validate(inputs, force)
            for stage in STAGES[1:]:
                if not stages.is_over(run.record):
                    run.stage(stage)


@contextlib.contextmanager
def result_left_behind(storage: Storage, folder: str) -> Iterator[None]:
    """Leaves HISTOLINE_RESULT_JSON at the end of the block, whether it ended well or not.

    Args:
        storage: The workspace.
        folder: Of the run.
    """
    from components.training import run_record
    from pipelines import stages

    try:
        yield
    finally:
        with contextlib.suppress(HistolineError):
            console.leave_result(stages.result(storage, run_record.read(storage, folder)))


def show(document: dict[str, Any], folder: str) -> None:
    """Prints a run's end for people."""
    figures = ", ".join(f"{k} {number(v)}" for k, v in document["metrics"].items() if v is not None)
    click.echo(document["reason"] or document["state"])
    if figures:
        click.echo(f"{'Out of fold:' if document.get('folds') else 'Test split: '} {figures}")
    if document["power"]:
        click.echo(f"Power:       {document['power']}")
    click.echo(f"Run:         {folder}")
    if document["decision"] == "promoted" and document["version"]:
        click.echo(f"Version:     {document['version']}")
