"""runs/index.html: all runs of a workspace, newest first, with the primary metric over time."""

from __future__ import annotations

import dataclasses
import datetime

from markupsafe import Markup

from components.errors import HistolineError
from components.promotion import champion as champions
from components.promotion.champion import Champion
from components.report import figures
from components.report.measures import TITLES
from components.report.page import FILE, environment, reason, verdict
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import RunRecord

PATH = "runs/index.html"
LOCK = "runs/.index.lock"
SHORT = 34
"""Letters of a RUN_ID in the list; those that histoline makes are shorter."""

OVER_TIME = 60
"""Runs of one data set and task in the plot, the latest."""


@dataclasses.dataclass(frozen=True)
class RunsOfTask:
    """What was read of the runs of one data set and task.

    Attributes:
        dataset: Data set.
        task: Task.
        runs: Each run's record, and its page relative to the workspace, empty where there is none.
        champion: Promotions; None where there were none, or where they can't be read.
    """

    dataset: str
    task: str
    runs: tuple[tuple[RunRecord, str], ...]
    champion: Champion | None


@dataclasses.dataclass(frozen=True)
class Line:
    """A run in the list.

    Attributes:
        run_id: RUN_ID.
        dataset: Data set.
        task: Task.
        created: ISO 8601, UTC.
        model: Name of the architecture.
        verdict: promoted, refused, unchanged, failed, running or evaluated.
        reason: Why, in a sentence.
        metric: Primary metric as people write it.
        estimate: On the test split, None before the evaluation.
        low: Of its interval, None where there is none.
        high: Likewise.
        version: That was pushed, None where none was.
        champion: Whether that version, or a rollback to it, is served.
        page: Link to the report, relative to the index; empty where there is none.
        drawn: Whether a program drew the images.
    """

    run_id: str
    dataset: str
    task: str
    created: str
    model: str
    verdict: str
    reason: str
    metric: str
    estimate: float | None
    low: float | None
    high: float | None
    version: int | None
    champion: bool
    page: str
    drawn: bool

    @property
    def short(self) -> str:
        """The RUN_ID where it is short, else its two ends."""
        return self.run_id if len(self.run_id) <= SHORT else f"{self.run_id[: SHORT - 9]}…{self.run_id[-8:]}"


@dataclasses.dataclass(frozen=True)
class Family:
    """Runs of one data set and task.

    Attributes:
        title: Data set and task.
        lines: Newest first.
        served: The champion in words, empty where there is none.
        plot: Primary metric over time; None with fewer than two evaluated runs.
    """

    title: str
    lines: tuple[Line, ...]
    served: str
    plot: Markup | None

    @property
    def anchor(self) -> str:
        """Name of its place in the page."""
        return self.title.replace(" ", "-")

    @property
    def metric(self) -> str:
        """Title of the primary metric."""
        return self.lines[0].metric

    @property
    def told(self) -> list[Line]:
        """Runs that have something to tell."""
        return [line for line in self.lines if line.verdict != "unchanged"]

    @property
    def unchanged(self) -> list[Line]:
        """Runs that found data, recipe and code as they were: schedules leave many of them."""
        return [line for line in self.lines if line.verdict == "unchanged"]


def write(storage: Storage, owner: str = "histoline report") -> str:
    """Makes the index anew, under its lock, and gives its path.

    Args:
        storage: The workspace.
        owner: Who writes, as a waiting user should read it.
    """
    with storage.lock(LOCK, owner=owner) as held:
        found, broken = families(storage)
        page = environment().get_template("index.html").render(families=found, broken=broken)
        held.check()
        storage.write_atomic(PATH, page.encode("utf-8", "replace"))
    return PATH


def families(storage: Storage) -> tuple[list[Family], list[str]]:
    """All runs by data set and task, and the folders whose run.json is damaged."""
    collected, broken = collect(storage)
    return [family(runs) for runs in collected], broken


def collect(storage: Storage) -> tuple[list[RunsOfTask], list[str]]:
    """Reads every run.json and champion.json of a workspace; folders of damaged records come second."""
    found, broken = [], []
    for dataset in storage.list_dirs("runs"):
        for task in storage.list_dirs(f"runs/{dataset}"):
            runs = []
            for run_id in storage.list_dirs(f"runs/{dataset}/{task}"):
                folder = f"runs/{dataset}/{task}/{run_id}"
                try:
                    if storage.exists(f"{folder}/{run_record.NAME}"):
                        record = run_record.read(storage, folder)
                        page = f"{folder}/{FILE}"
                        runs.append((record, page if storage.exists(page) else ""))
                except HistolineError:
                    broken.append(folder)
            if runs:
                found.append(RunsOfTask(dataset, task, tuple(runs), _champion(storage, dataset, task)))
    return found, broken


def _champion(storage: Storage, dataset: str, task: str) -> Champion | None:
    try:
        return champions.read(storage, champions.home(dataset, task))[0]
    except HistolineError:
        return None


def family(runs: RunsOfTask) -> Family:
    """What the index shows of the runs of one data set and task."""
    champion = runs.champion
    current = champion.current if champion else None
    origin = champion.origin(champion.current).run_id if champion else ""
    lines = [_line(record, page, origin) for record, page in runs.runs]
    lines.sort(key=lambda line: (line.created, line.run_id), reverse=True)
    served = ""
    if current is not None:
        by = "the gate" if current.promoted_by == "gate" else f"hand ({current.who})"
        again = f", version {current.from_version} again" if current.from_version is not None else ""
        served = f"version {current.version} of run {current.run_id}{again}, promoted by {by} on {current.when[:10]}"
        served += f". {current.caveat.rstrip('.')}" if current.caveat else ""
    title = f"{runs.dataset} {runs.task}"
    return Family(title, tuple(lines), served, _plot(f"trend-{runs.dataset}-{runs.task}", title, lines))


def _line(record: RunRecord, page: str, origin: str) -> Line:
    metric = "macro_f1" if len(record.classes) > 2 else "auc"
    value = record.figures().get(metric, {})
    return Line(
        run_id=record.run_id, dataset=record.dataset, task=record.task, created=record.created,
        model=str(record.config.get("model", "")), verdict=verdict(record), reason=reason(record),
        metric=TITLES[metric], estimate=value.get("estimate"), low=value.get("low"), high=value.get("high"),
        version=record.version, champion=record.run_id == origin, page=page.partition("/")[2], drawn=record.drawn,
    )  # fmt: skip


def _plot(name: str, title: str, lines: list[Line]) -> Markup | None:
    runs = [
        {
            "when": datetime.datetime.fromisoformat(line.created), "estimate": line.estimate, "low": line.low,
            "high": line.high, "promoted": line.verdict == "promoted", "champion": line.champion,
        }
        for line in reversed(lines)
        if line.estimate is not None
    ][-OVER_TIME:]  # fmt: skip
    if len(runs) < 2:
        return None
    return figures.trend(name, runs, lines[0].metric, f"{lines[0].metric} of the runs on {title} over time")
