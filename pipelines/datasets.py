"""Lists, shows, prunes and forgets committed data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from components.errors import UsageError
from pipelines import console
from pipelines.named_dataset import dataset_argument, open_dataset
from pipelines.options import json_option, only_task_option, open_workspace, workspace_option, yes_option


@click.group("datasets")
def command() -> None:
    """List, show, prune or forget committed data sets."""


@command.command("list")
@workspace_option()
@json_option
def list_(workspace: str, as_json: bool) -> None:
    """List the data sets of a workspace, the newest of each task first."""
    from components.datasets.retention import list_datasets

    infos = list_datasets(open_workspace(workspace))
    rows: list[dict[str, Any]] = []
    for i in infos:
        manifest = i.manifest
        groups = sum(facts.groups for facts in manifest.splits.values()) if manifest else 0
        rows.append(
            {
                "dataset": i.dataset,
                "task": i.task,
                "plan_id": i.plan_id,
                "state": i.state,
                "created": manifest.created if manifest else "",
                "patches": manifest.written if manifest else 0,
                "groups": groups,
                "group_unit": manifest.group_unit if manifest else "",
                "bytes": i.bytes,
                "flags": list(manifest.flags) if manifest else [],
                "path": i.path,
                "problem": i.problem,
            }
        )

    def show() -> None:
        if not rows:
            console.say(f"No data sets in {workspace}: run histoline ingest first.")
            return
        columns = ("dataset", "task", "plan_id", "state", "created", "patches", "groups", "MB", "flags")
        cells = [
            (
                *(r[c] for c in columns[:5]),
                f"{r['patches']:,}",
                f"{r['groups']} {r['group_unit']}s",
                f"{r['bytes'] / 1e6:,.1f}",
                " ".join(r["flags"]),
            )
            for r in rows
        ]
        console.table(f"Data sets in {workspace}", columns, cells, right=(5, 6, 7))

    console.emit(rows, as_json, show)


@command.command("show")
@dataset_argument
@click.option("--plan", default="", help="PLAN_ID of a NAME, instead of its latest.")
@json_option
def show_(dataset: str, task: str, plan: str, workspace: str, as_json: bool) -> None:
    """Show one data set: counts, rejects, policies, warnings."""
    from components.datasets.latest_pointer import read_latest
    from pipelines import ingest_summary
    from pipelines.ingest_job import Outcome

    storage, path, manifest = open_dataset(plan or dataset, workspace, task)
    if plan and (manifest.dataset, manifest.task) != (dataset, task):
        raise UsageError(
            f"{plan} is a data set of {manifest.dataset} {manifest.task}, not of {dataset} {task}.",
            "Leave out the name.",
        )
    home, _, plan_id = path.rpartition("/")
    latest = read_latest(storage, home) if home else None
    is_latest = latest is not None and plan_id == latest.plan_id
    outcome = Outcome("committed", storage.uri(path), manifest, is_latest, "", {})

    values = manifest.to_document()

    def show() -> None:
        ingest_summary.show(outcome)
        for name in ("created", "content_digest", "input", "image_format", "stored_size"):
            click.echo(f"{name}: {values[name]}")

    console.emit(values, as_json, show)


@command.command("prune")
@click.argument("dataset", required=False, default="")
@only_task_option
@click.option(
    "--keep", default=1, show_default=True, help="Committed data sets to keep of each task, the latest included."
)
@workspace_option()
@yes_option
@json_option
def prune(dataset: str, task: str, keep: int, workspace: str, yes: bool, as_json: bool) -> None:
    """Delete old and unfinished data sets; never the latest, nor one that a run or a champion was made on.

    `histoline prune` deletes runs that are no longer wanted first, and what else has become old.
    """
    from components.datasets import retention
    from components.pruning.removal import needed_now
    from components.pruning.rules import Rules

    if keep < 1:
        raise UsageError(f"--keep {keep} would delete the latest data set.", "Keep at least 1.")
    if task and not dataset:
        raise UsageError("--task needs a data set.", "For example: histoline datasets prune idc --task binary.")
    storage = open_workspace(workspace)
    gone = retention.prune(
        storage, dataset, task, keep, dry_run=not yes, needed=lambda: needed_now(storage, Rules(), dataset, task)
    )
    document = {"deleted" if yes else "would_delete": [i.path for i in gone], "bytes": sum(i.bytes for i in gone)}

    def show() -> None:
        for info in gone:
            click.echo(f"{'deleted' if yes else 'would delete'} {info.path} ({info.state}, {info.bytes / 1e6:,.1f} MB)")
        if not gone:
            click.echo("Nothing to prune.")
        elif not yes:
            click.echo("Nothing was deleted: add --yes.")

    console.emit(document, as_json, show)


@command.command("forget")
@click.option("--groups", "groups_file", required=True, help="File with one patient or slide a line.")
@click.option("--pseudonymise", default="", help="Key file, to find them in pseudonymised data sets too.")
@workspace_option()
@yes_option
@json_option
def forget(groups_file: str, pseudonymise: str, workspace: str, yes: bool, as_json: bool) -> None:
    """Purge every data set that holds these groups (withdrawn consent) and name what was trained on them."""
    from components.adapters.group_files import read_group_list
    from components.datasets import forgetting
    from components.ingest.pseudonyms import Pseudonymiser

    storage = open_workspace(workspace)
    groups = read_group_list(Path(groups_file))
    key = Pseudonymiser.from_file(Path(pseudonymise)) if pseudonymise else None
    tokens = frozenset(key.token("group_id", group) for group in groups) if key else frozenset()
    found = forgetting.forget(storage, groups | tokens, key.fingerprint if key else "", dry_run=not yes)
    document = {
        "groups": len(groups),
        "purged" if yes else "would_purge": found.held,
        "trained_on_them": found.trained_on,
        "not_searched": found.not_searched,
    }

    def show() -> None:
        for path, names in sorted(found.held.items()):
            some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            click.echo(f"{'purged' if yes else 'would purge'} {path}: holds {some}")
        for name in found.trained_on:
            click.echo(f"trained or evaluated on them: {name}")
        for path in found.not_searched:
            click.echo(f"not searched, pseudonymised with another key: {path} (give --pseudonymise KEYFILE)")
        if not found.held:
            click.echo("No committed data set holds them.")
        elif yes:
            click.echo(
                "Their ledgers stay, with these groups as tombstones: ingest again to commit a data set without them."
            )
        else:
            click.echo("Nothing was purged: add --yes.")

    console.emit(document, as_json, show)


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.datasets")))
