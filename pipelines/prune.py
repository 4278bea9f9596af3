"""`histoline prune`: deletes what nobody needs any more of what a workspace collects; without --yes it only tells."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import posixpath
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from components.core.text import plural
from components.errors import HistolineError, TemporaryError, UsageError
from components.pruning.rules import KINDS, Rules, Skipped, Verdict, parse_age
from pipelines import console
from pipelines.options import (
    Option,
    json_option,
    metadata_option,
    metadata_server,
    only_task_option,
    open_workspace,
    workspace_option,
    yes_option,
)

if TYPE_CHECKING:
    from components.storage.base import Storage
    from pipelines.tfx.metadata_store import Server

TOLD = 200
"""Most things that the result for a scheduler names."""

OWNER = "histoline prune"
_DEFAULT = Rules()


def _count(name: str, default: int, least: int, what: str) -> Option[Any]:
    return click.option(name, type=click.IntRange(least), default=default, show_default=True, help=what)


@click.command("prune")
@click.argument("dataset", required=False, default="")
@only_task_option
@click.option("--only", multiple=True, type=click.Choice(KINDS), metavar="KIND",
              help=f"Only this kind: {', '.join(KINDS)}; may be given often.")  # fmt: skip
@_count("--keep-runs", _DEFAULT.keep_runs, 0, "Newest runs to keep of each data set and task; unchanged ones apart.")
@_count("--keep-sweeps", _DEFAULT.keep_sweeps, 0, "Newest sweeps to keep, likewise.")
@_count("--keep-datasets", _DEFAULT.keep_datasets, 1, "Newest data sets to keep, likewise, the latest included.")
@click.option("--older-than", default="7d", show_default=True, metavar="AGE",
              help="What was changed since stays: 30d, 12h, 0d.")  # fmt: skip
@click.option("--abandoned-after", default="", metavar="AGE",
              help="Runs and sweeps that are not over, but untouched for so long, may go; else they stay.")  # fmt: skip
@workspace_option()
@metadata_option
@yes_option
@json_option
def command(
    dataset: str,
    task: str,
    only: tuple[str, ...],
    keep_runs: int,
    keep_sweeps: int,
    keep_datasets: int,
    older_than: str,
    abandoned_after: str,
    workspace: str,
    metadata: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete old runs, checkpoints, sweeps, TFX's outputs, data sets and caches that nothing needs.

    Something goes if it is neither among the newest nor young. Whatever the options say, these stay: what the champion
    and the best model ever promoted come from, what is not over, what a step works on, the latest data set, and every
    data set that a run which stays was made on. Model versions, ledgers of folds and looks are never touched.
    """
    if task and not dataset:
        raise UsageError("--task needs a data set.", "For example: histoline prune idc --task binary.")
    rules = Rules(
        kinds=tuple(kind for kind in KINDS if not only or kind in only),
        dataset=dataset,
        task=task,
        keep_runs=keep_runs,
        keep_sweeps=keep_sweeps,
        keep_datasets=keep_datasets,
        older_than=parse_age(older_than),
        abandoned_after=parse_age(abandoned_after) if abandoned_after else None,
        now=time.time(),
    )
    pruning = Pruning(open_workspace(workspace), rules, metadata_server(metadata))
    document = pruning.carry_out() if yes else pruning.tell()
    console.leave_result(
        {
            "state": "done", "decision": "pruned" if yes else "dry_run", "reason": document["summary"],
            "bytes": document["bytes"], "removed": document["removed" if yes else "would_remove"][:TOLD],
            "removed_by_reason": document["removed_by_reason"], "kept_by_reason": document["kept_by_reason"][:TOLD],
            "skipped": document["skipped"][:TOLD],
        }
    )  # fmt: skip
    console.emit(document, as_json, lambda: show(document, yes))


class Pruning:
    """One pruning of a workspace.

    Args:
        storage: The workspace.
        rules: What is asked.
        server: ML Metadata, where it is shared.
    """

    def __init__(self, storage: Storage, rules: Rules, server: Server | None) -> None:
        self.storage, self.rules, self.server = storage, rules, server

    def judge(self) -> list[Verdict]:
        """Verdicts on everything that is asked about, in the order of `KINDS`."""
        from components.pruning import judgement, needs
        from pipelines.tfx.artifacts import Outputs

        found = needs.families(self.storage, self.rules.dataset, self.rules.task)
        if not found and self.rules.dataset:
            wanted = f"{self.rules.dataset} {self.rules.task}".strip()
            raise UsageError(f"{self.storage.root} holds nothing of {wanted}.", "See histoline datasets list.")
        verdicts = judgement.judge(self.storage, self.rules, found)
        if "artifacts" in self.rules.kinds:
            gone = {v.path for v in verdicts if v.goes and v.kind in ("runs", "sweeps")}
            for family in found:
                outputs = Outputs(self.storage, family.dataset, family.task, self.server)
                verdicts += outputs.judge(family, gone)
        return sorted(verdicts, key=lambda v: (KINDS.index(v.kind), v.path))

    def tell(self) -> dict[str, Any]:
        """What would go, and what stays because of whom."""
        verdicts = self.judge()
        going = [verdict for verdict in verdicts if verdict.goes]
        pages = self._pages([verdict.path for verdict in going if verdict.kind == "runs"])
        return _document("would_remove", going, verdicts, [], pages)

    def carry_out(self) -> dict[str, Any]:
        """Deletes what goes. What a killed pruning had begun is ended first; what somebody works on is left alone."""
        from components.pruning.removal import Remover

        remover = Remover(self.storage, self.rules)
        remover.work.finish_deletions()
        verdicts = self.judge()
        going = {kind: [v for v in verdicts if v.goes and v.kind == kind] for kind in KINDS}
        pages = self._pages([verdict.path for verdict in going["runs"]])
        remover.runs(going["runs"])
        remover.checkpoints(going["checkpoints"])
        remover.sweeps(going["sweeps"])
        if "artifacts" in self.rules.kinds:
            self._artifacts(remover)
        remover.datasets(going["datasets"])
        remover.caches(going["cache"])
        remover.leftovers(verdict.path for verdict in verdicts if verdict.kind == "runs" and not verdict.goes)
        self._make_anew(pages)
        return _document("removed", remover.removed, verdicts, remover.skipped, pages)

    def _artifacts(self, remover: Any) -> None:
        from components.pruning import needs
        from pipelines.tfx.artifacts import Outputs

        for family in needs.families(self.storage, self.rules.dataset, self.rules.task):
            outputs = Outputs(self.storage, family.dataset, family.task, self.server)
            try:
                removed, skipped = outputs.remove(functools.partial(needs.again, self.storage, family))
            except TemporaryError as error:
                removed, skipped = [], [Skipped(outputs.root, error.what)]
            remover.removed += removed
            remover.skipped += skipped

    def _pages(self, runs: list[str]) -> list[str]:
        """Pages that lead to one of these runs, or to one that a killed pruning deleted, and are made anew without."""
        from components.report.page import FILE
        from components.sweeps.record import PAGE

        pages = ["runs/index.html"] if self.storage.exists("runs/index.html") else []
        for top, file in (("runs", FILE), ("sweeps", PAGE)):
            for dataset in self.storage.list_dirs(top):
                for task in self.storage.list_dirs(f"{top}/{dataset}"):
                    home = f"{top}/{dataset}/{task}"
                    names = [name for name in self.storage.list_dirs(home) if f"{home}/{name}" not in runs]
                    found = (f"{home}/{name}/{file}" for name in names if self.storage.exists(f"{home}/{name}/{file}"))
                    pages += [page for page in found if self._dangles(page, runs)]
        return pages

    def _dangles(self, page: str, gone: list[str]) -> bool:
        text = self.storage.read_bytes(page).decode("utf-8", "replace")
        for link in set(re.findall(r'href="((?:\.\./)+[^"#]+/report/index\.html)"', text)):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
            if target.rsplit("/", 2)[0] in gone or not self.storage.exists(target):
                return True
        return False

    def _make_anew(self, pages: list[str]) -> None:
        """A page that can't be made now leads nowhere until the next pruning."""
        from components.report import evidence, index, page, sweep_page

        for path in pages:
            folder = "/".join(path.split("/")[:4])
            if path == index.PATH:
                index.write(self.storage, OWNER)
                continue
            lock = self.storage.lock(f"{folder}/.lock", owner=OWNER, wait_seconds=0)
            with contextlib.suppress(HistolineError), lock:
                if path.startswith("sweeps/"):
                    sweep_page.write(self.storage, folder)
                else:
                    # Not as the report stage does: the run's record, and with it the run's age, stay as they are.
                    made = page.render(evidence.collect(self.storage, folder))
                    self.storage.write_atomic(path, made.encode("utf-8", "replace"), tmp_dir=f"{folder}/.tmp")


def _document(
    key: str, going: list[Verdict], verdicts: list[Verdict], skipped: list[Skipped], pages: list[str]
) -> dict[str, Any]:
    kept = [verdict for verdict in verdicts if not verdict.goes]
    counts = collections.Counter(verdict.kind for verdict in going)
    size = sum(verdict.bytes for verdict in going)
    what = ", ".join(plural(counts[kind], _ONE[kind]) for kind in KINDS if counts[kind]) or "nothing"
    verb = "Removed" if key == "removed" else "Would remove"
    summary = f"{verb} {what}: {size / 1e6:,.1f} MB." if counts else f"{verb} nothing."
    if skipped:
        summary += f" Left for the next time: {plural(len(skipped), 'thing')} that somebody works on or has changed."
    return {
        "summary": summary,
        key: [_told(verdict) for verdict in going],
        "bytes": size,
        "removed_by_reason": _by_reason(going),
        "kept": [_told(verdict) for verdict in kept],
        "kept_by_reason": _by_reason(kept),
        "skipped": [dataclasses.asdict(one) for one in skipped],
        "pages": pages,
    }


_ONE = {
    "runs": "run", "checkpoints": "folder of checkpoints", "sweeps": "sweep", "artifacts": "TFX output",
    "datasets": "data set", "cache": "cache",
}  # fmt: skip


def _by_reason(verdicts: list[Verdict]) -> list[dict[str, Any]]:
    reasons: dict[tuple[str, str], list[Verdict]] = collections.defaultdict(list)
    for verdict in verdicts:
        reasons[verdict.kind, verdict.why].append(verdict)
    return [
        {"kind": kind, "count": len(found), "bytes": sum(v.bytes for v in found), "why": why, "path": found[0].path}
        for (kind, why), found in reasons.items()
    ]


def _told(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in ("kind", "path", "bytes", "why")}


def show(document: dict[str, Any], done: bool) -> None:
    """Prints what goes and what stays, TFX's outputs by data set and task."""
    going = document["removed" if done else "would_remove"]
    rows: dict[tuple[str, str, str], list[int]] = collections.defaultdict(list)
    for one in going:
        path = "/".join(one["path"].split("/")[:2]) if one["kind"] == "artifacts" else one["path"]
        rows[one["kind"], path, one["why"]].append(one["bytes"])
    if rows:
        cells = [
            (kind, path + (f" ({len(sizes)} folders)" if kind == "artifacts" else ""), f"{sum(sizes) / 1e6:,.1f}", why)
            for (kind, path, why), sizes in rows.items()
        ]
        console.table("Removed" if done else "Would go", ("kind", "path", "MB", "why"), cells, right=(2,))
    stays = [
        (one["kind"], one["count"], f"{one['bytes'] / 1e6:,.1f}", one["why"],
         one["path"] if one["count"] == 1 else "")
        for one in document["kept_by_reason"]
    ]  # fmt: skip
    if stays:
        console.table("\nStays", ("kind", "number", "MB", "why", "path"), stays, right=(1, 2))
    for one in document["skipped"]:
        click.echo(f"left for the next time: {one['path']}: {one['why']}")
    for page in document["pages"] if rows else ():
        click.echo(f"{'made anew' if done else 'will be made anew'}: {page}")
    click.echo(f"\n{document['summary']}")
    if rows and not done:
        click.echo("Nothing was deleted: add --yes.")


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.prune")))
