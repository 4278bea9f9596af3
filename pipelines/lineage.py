"""`histoline lineage`: what ML Metadata knows of a run, from its raw folder to the pushed version."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from components.errors import UsageError
from pipelines import console
from pipelines.options import json_option, metadata_option, metadata_server, open_workspace, workspace_option

if TYPE_CHECKING:
    from components.report.tfx_document import Artifact, Execution
    from components.storage.base import Storage
    from components.sweeps.sweep_types import SweepRecord
    from components.training.run_types import RunRecord
    from pipelines.tfx.metadata_store import Server


@click.command("lineage")
@click.argument("run_id", metavar="RUN_ID")
@workspace_option()
@metadata_option
@json_option
def command(run_id: str, workspace: str, metadata: str, as_json: bool) -> None:
    """Show executions and artifacts of a run or a sweep, their types, states and places.

    Where the workspace has lost its ML Metadata, what the run itself kept of it is shown.
    """
    from components.core import json_documents
    from components.sweeps import record as sweeps
    from components.training import run_record

    server = metadata_server(metadata)
    storage = open_workspace(workspace)
    folder = run_record.find_run(storage, run_id)
    record: RunRecord | SweepRecord
    if folder is None:
        sweep = sweeps.find_sweep(storage, run_id)
        if sweep is None:
            raise UsageError(
                f"There is no run or sweep {run_id!r} in {workspace}.", "Give the id that train or sweep printed."
            )
        record = sweeps.read(storage, sweep)
        place, executions, artifacts = _of_sweep(storage, record, server)
    else:
        record = run_record.read(storage, folder)
        place, executions, artifacts = _read(storage, folder, record, server)
    if not executions:
        raise UsageError(
            f"ML Metadata in {place} knows no execution of run {run_id!r}: nothing of it has run, or it was begun"
            " elsewhere.",
            "See run.json in its folder for how far it came.",
        )
    document = {
        "run_id": run_id, "dataset": record.dataset, "task": record.task, "store": place,
        "executions": json_documents.plain(executions), "artifacts": json_documents.plain(artifacts),
    }  # fmt: skip
    console.emit(document, as_json, lambda: show(run_id, place, executions, artifacts))


def _read(
    storage: Storage, folder: str, record: RunRecord, server: Server | None
) -> tuple[str, tuple[Execution, ...], tuple[Artifact, ...]]:
    from components.report import tfx_document
    from pipelines.tfx import lineage, metadata_store
    from pipelines.tfx.stage_nodes import check_store

    check_store(record, server)
    work = open_workspace(str(storage.work_folder()))  # where TFX kept its files; in a local workspace, that itself
    store: metadata_store.Store
    if server is not None:
        store = server
    else:
        kept = tfx_document.read(storage, folder)
        file = metadata_store.workspace_file(work, record.dataset, record.task)
        if not file.is_file():
            if kept is None:
                raise UsageError(
                    f"{file} is not there, and run {record.run_id!r} kept nothing of it.",
                    "Give the workspace that the run was trained in.",
                )
            return f"{storage.uri(folder)}/{tfx_document.NAME}", kept.executions, kept.artifacts
        store = metadata_store.SqliteFile(file)
    name = metadata_store.pipeline_name(work, record.dataset, record.task, server)
    with metadata_store.troubles(store):
        return store.place, *lineage.read(metadata_store.open_store(store), name, record.run_id)


def _of_sweep(
    storage: Storage, sweep: SweepRecord, server: Server | None
) -> tuple[str, tuple[Execution, ...], tuple[Artifact, ...]]:
    from pipelines.sweep_end import check_store
    from pipelines.tfx import lineage, metadata_store

    check_store(sweep, server)
    work = open_workspace(str(storage.work_folder()))
    store: metadata_store.Store
    store = server or metadata_store.SqliteFile(metadata_store.workspace_file(work, sweep.dataset, sweep.task))
    if isinstance(store, metadata_store.SqliteFile) and not store.file.is_file():
        raise UsageError(f"{store.file} is not there.", "Give the workspace that the sweep was chosen in.")
    name = metadata_store.pipeline_name(work, sweep.dataset, sweep.task, server)
    with metadata_store.troubles(store):
        return store.place, *lineage.read(metadata_store.open_store(store), name, sweep.sweep_id)


def show(run_id: str, place: str, executions: Any, artifacts: Any) -> None:
    """Prints a tree: each execution with what it made, and the numbers of what it read.

    Args:
        run_id: RUN_ID.
        place: Of the store.
        executions: `components.report.tfx_document.Execution`s, oldest first.
        artifacts: Likewise `Artifact`s.
    """
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    known = {artifact.id: artifact for artifact in artifacts}
    tree = Tree(Text(f"{run_id}  ({place})"))
    for execution in executions:
        read = ", ".join(f"#{number}" for number in execution.inputs)
        line = Text(execution.node, style="bold")
        line.append(f"  {execution.state}  {execution.started}" + (f"  reads {read}" if read else ""), style="dim")
        branch = tree.add(line)
        for number in execution.outputs:
            artifact = known[number]
            properties = ", ".join(f"{name} {value}" for name, value in artifact.properties.items())
            leaf = Text(f"#{number} {artifact.type}  {artifact.state}  {artifact.place}")
            leaf.append(f"  {properties}" if properties else "", style="dim")
            branch.add(leaf)
    width = None if sys.stdout.isatty() else 10_000
    Console(highlight=False, width=width, soft_wrap=True).print(tree)


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.lineage")))
