"""Lists and shows promoted models; promotes by hand and rolls back, with a reason that is kept."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from components.errors import DataError, UsageError
from pipelines import console
from pipelines.options import json_option, only_task_option, open_workspace, task_option, workspace_option

if TYPE_CHECKING:
    from components.promotion.champion import Champion, Promotion
    from components.storage.base import Storage

reason_option = click.option("--reason", required=True, help="Why; kept in champion.json and in the model card.")
who_option = click.option("--who", default="", help="Who decides; the user by default.")


@click.group("models")
def command() -> None:
    """List, show and verify promoted models, promote one by hand, or roll back."""


def _tasks(storage: Storage, dataset: str, task: str) -> list[tuple[str, str]]:
    """(data set, task) pairs that have a model folder."""
    return [
        (name, each)
        for name in ([dataset] if dataset else storage.list_dirs("models"))
        for each in ([task] if task else storage.list_dirs(f"models/{name}"))
    ]


@command.command("verify")
@click.argument("dataset", required=False, default="")
@only_task_option
@workspace_option()
@json_option
def verify(dataset: str, task: str, workspace: str, as_json: bool) -> None:
    """Check every byte of every version against the digests of its push; exit 65 where one has changed."""
    from components.promotion import champion as c
    from components.promotion import version_digests

    storage = open_workspace(workspace)
    rows: list[dict[str, Any]] = []
    for name, each in _tasks(storage, dataset, task):
        home = c.home(name, each)
        c.read(storage, home)  # champion.json vouches for itself
        for version in c.versions(storage, home):
            if storage.exists(f"{home}/{version}/{c.LIVE}"):
                folder = storage.local_tree(f"{home}/{version}")
                found = {"vouched": version_digests.is_vouched(folder), "findings": version_digests.findings(folder)}
                rows.append({"path": storage.uri(f"{home}/{version}"), **found})

    def show() -> None:
        for row in rows:
            said = ", ".join(row["findings"]) or ("ok" if row["vouched"] else "published without digests: not checked")
            click.echo(f"{row['path']}: {said}")
        if not rows:
            click.echo(f"There are no versions in {workspace}.")

    console.emit(rows, as_json, show)
    wrong = [row["path"] for row in rows if row["findings"]]
    if wrong:
        raise DataError(f"{len(wrong)} of {len(rows)} versions are not what was published: {', '.join(wrong)}.", "")


def _row(storage: Storage, champion: Champion, entry: Promotion, home: str) -> dict[str, Any]:
    from components.promotion.champion import LIVE

    best = champion.best_ever
    return {
        **dataclasses.asdict(entry),
        "champion": entry == champion.current,
        "best_ever": entry == best,
        "kept": storage.exists(f"{home}/{entry.version}/{LIVE}"),
        "path": storage.uri(f"{home}/{entry.version}"),
    }


@command.command("list")
@click.argument("dataset", required=False, default="")
@only_task_option
@workspace_option()
@json_option
def list_(dataset: str, task: str, workspace: str, as_json: bool) -> None:
    """List promoted versions, the newest of each task first."""
    from components.promotion import champion as c

    storage = open_workspace(workspace)
    rows = []
    for name, each in _tasks(storage, dataset, task):
        home = c.home(name, each)
        champion = c.load(storage, home)
        if champion is None:
            continue
        for entry in reversed(champion.history):
            rows.append({"dataset": name, "task": each, **_row(storage, champion, entry, home)})

    def show() -> None:
        if not rows:
            console.say(f"No model was promoted in {workspace} yet: run histoline train first.")
            return
        columns = ("dataset", "task", "version", "", "run", "by", "when", "metric", "why")
        ends = ("promoted_by", "when")
        cells = [
            (r["dataset"], r["task"], r["version"], _marks(r), r["run_id"], *(r[e] for e in ends), _metric(r), _why(r))
            for r in rows
        ]
        console.table(f"Models in {workspace}", columns, cells, right=(2,))

    console.emit(rows, as_json, show)


def _marks(row: dict[str, Any]) -> str:
    marks = [
        "champion" if row["champion"] else "",
        "patients not proved disjoint" if row["unproven"] else "",
        "synthetic data" if row["drawn"] else "",
        "best ever" if row["best_ever"] else "",
        f"again {row['from_version']}" if row["from_version"] is not None else "",
        "" if row["kept"] else "pruned",
    ]
    return ", ".join(filter(None, marks))


def _why(row: dict[str, Any]) -> str:
    accepted = row["unproven"] if row["unproven"] != row["why"] else ""
    return f"{row['why']} (accepted although not proved, because: {accepted})" if accepted else str(row["why"])


def _metric(row: dict[str, Any]) -> str:
    value = row["metrics"].get(row["metric"])
    return f"{row['metric']} {'unknown' if value is None else format(value, '.3f')}"


@command.command("show")
@click.argument("dataset")
@task_option(None)
@click.option("--version", type=int, default=None, help="Version; the champion by default.")
@workspace_option()
@json_option
def show_(dataset: str, task: str, version: int | None, workspace: str, as_json: bool) -> None:
    """Show one version: where it comes from, who promoted it and why, its model card."""
    from components.promotion import champion as c
    from components.promotion.model_card import FILE

    storage = open_workspace(workspace)
    home = c.home(dataset, task)
    champion = c.load(storage, home)
    if champion is None:
        raise UsageError(f"No model of {dataset} {task} was promoted in {workspace}.", "Run histoline train first.")
    entry = champion.current if version is None else champion.find(version)
    if entry is None:
        known = ", ".join(str(promotion.version) for promotion in champion.history)
        raise UsageError(f"Version {version} of {dataset} {task} was never promoted.", f"Promoted were {known}.")
    row = {"dataset": dataset, "task": task, **_row(storage, champion, entry, home)}
    card = f"{home}/{entry.version}/{FILE}"
    row["card"] = storage.read_bytes(card).decode() if storage.exists(card) else ""

    def show() -> None:
        for name, value in row.items():
            if name not in ("card", "metrics"):
                click.echo(f"{name}: {value}")
        for name, value in row["metrics"].items():
            click.echo(f"{name}: {'unknown' if value is None else format(value, '.4f')}")
        if entry.caveat:
            click.echo(f"WARNING: {entry.caveat}")
        click.echo(f"\n{row['card']}")

    console.emit(row, as_json, show)


@command.command("promote")
@click.argument("run_id")
@click.option("--reason", default="", help="Why; kept in champion.json and in the model card.")
@click.option(
    "--accept-unproven",
    default="",
    metavar="REASON",
    help="Promote although the splits are not proved to be disjoint by patient (never where they are leaky); the reason"
    " is repeated by everything made from the model.",
)
@who_option
@workspace_option()
@json_option
def promote(run_id: str, reason: str, accept_unproven: str, who: str, workspace: str, as_json: bool) -> None:
    """Promote the model of a run by hand, also one that the gate refused."""
    from components.promotion import publish
    from components.report import index, page
    from components.training import run_record

    storage = open_workspace(workspace)
    folder = run_record.find_run(storage, run_id)
    if folder is None:
        raise UsageError(f"There is no run {run_id!r} in {workspace}.", "Give the run id that train printed.")
    with run_record.lock(storage, folder, "histoline models promote"):
        made = publish.promote(storage, folder, reason=reason, accept_unproven=accept_unproven, who=who)
        page.write(storage, folder)
    index.write(storage, "histoline models promote")
    _, dataset, task, _ = folder.split("/")
    _show_champion(storage, dataset, task, made, as_json)


@command.command("rollback")
@click.argument("dataset")
@task_option(None)
@click.option("--to", type=int, default=None, help="Version to publish again; the one before the champion by default.")
@reason_option
@who_option
@workspace_option()
@json_option
def rollback(
    dataset: str, task: str, to: int | None, reason: str, who: str, workspace: str, as_json: bool
) -> None:
    """Publish an earlier model again, under a new and higher version."""
    from components.promotion import publish
    from components.report import index

    storage = open_workspace(workspace)
    made = publish.rollback(storage, dataset, task, reason=reason, to=to, who=who)
    index.write(storage, "histoline models rollback")
    _show_champion(storage, dataset, task, made, as_json)


def _show_champion(storage: Storage, dataset: str, task: str, made: Promotion, as_json: bool) -> None:
    from components.promotion.champion import home

    path = storage.uri(f"{home(dataset, task)}/{made.version}")
    document = {"dataset": dataset, "task": task, **dataclasses.asdict(made), "path": path}

    def show() -> None:
        again = f", which is version {made.from_version} again" if made.from_version is not None else ""
        click.echo(f"{dataset} {task}: version {made.version} of run {made.run_id}{again} is the champion now.")
        click.echo(path)
        if made.caveat:
            click.echo(f"WARNING: {made.caveat}")

    console.emit(document, as_json, show)


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.models")))
