"""What follows from rules and needs: a verdict on every run, sweep, data set and cache. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from components.datasets import retention
from components.errors import HistolineError
from components.pruning import needs
from components.pruning.needs import Family
from components.pruning.rules import Rules, Verdict, unix_time
from components.storage.base import Storage
from components.storage.open import open_storage
from components.sweeps.sweep_types import SweepRecord
from components.training.run_types import RunRecord

CACHES = "cache/features"
"""Features of frozen backbones, a folder for each way to prepare images."""

_CHECKPOINTS = "checkpoints"


def judge(storage: Storage, rules: Rules, found: Iterable[Family]) -> list[Verdict]:
    """Verdicts on all that is asked about, but for what TFX keeps.

    Args:
        storage: The workspace.
        rules: What is asked.
        found: Of `needs.families`.

    Raises:
        DataError: Nobody can tell what something damaged needs.
    """
    verdicts: list[Verdict] = []
    for family in found:
        runs = judge_runs(storage, family, rules)
        sweeps = judge_sweeps(storage, family, rules)
        told = {"runs": runs, "sweeps": sweeps}
        gone = {v.path for kind, made in told.items() if kind in rules.kinds for v in made if v.goes}
        if "checkpoints" in rules.kinds:
            told["checkpoints"] = judge_checkpoints(storage, family, rules, gone)
        if "datasets" in rules.kinds:
            told["datasets"] = judge_datasets(storage, family, rules, gone)
        verdicts += [verdict for kind in rules.kinds for verdict in told.get(kind, [])]
    if "cache" in rules.kinds and not rules.dataset:
        verdicts += judge_caches(storage, rules)
    return verdicts


def judge_runs(storage: Storage, family: Family, rules: Rules) -> list[Verdict]:
    """Verdicts on the runs of a data set and task."""
    own: list[tuple[str, str]] = []
    unchanged: list[tuple[str, str]] = []
    for folder, run in family.runs.items():
        if isinstance(run, RunRecord):
            (unchanged if run.decision == "unchanged" else own).append((run.created, folder))
    newest = {folder for runs in (own, unchanged) for _, folder in sorted(runs, reverse=True)[: rules.keep_runs]}
    why_newest = dict.fromkeys(newest, f"among the newest {rules.keep_runs}")
    first = _judge(storage, "runs", family.runs, rules, why_newest, needs.runs_needed(family, rules))
    kept = {verdict.path for verdict in first if not verdict.goes}
    return _judge(storage, "runs", family.runs, rules, why_newest, needs.runs_needed(family, rules, kept))


def judge_sweeps(storage: Storage, family: Family, rules: Rules) -> list[Verdict]:
    """Verdicts on the sweeps of a data set and task."""
    known = [(sweep.created, folder) for folder, sweep in family.sweeps.items() if isinstance(sweep, SweepRecord)]
    newest = {folder for _, folder in sorted(known, reverse=True)[: rules.keep_sweeps]}
    why_newest = dict.fromkeys(newest, f"among the newest {rules.keep_sweeps}")
    return _judge(storage, "sweeps", family.sweeps, rules, why_newest, needs.sweeps_needed(family, rules))


def _judge(
    storage: Storage,
    kind: str,
    found: Mapping[str, RunRecord | SweepRecord | HistolineError | None],
    rules: Rules,
    newest: Mapping[str, str],
    needed: Mapping[str, str],
) -> list[Verdict]:
    verdicts = []
    for folder, record in found.items():
        if isinstance(record, (RunRecord, SweepRecord)):
            changed = unix_time(record.updated)
            pending = "it is not over" if needs.is_pending(record, rules) else ""
            why = needed.get(folder, "") or pending or newest.get(folder, "") or rules.young(changed)
            gone = "nothing needs it, and it is not among the newest"
            if record.state == "running":
                gone = "abandoned: it is not over, and nobody works on it"
        else:
            changed = storage.modified(folder)
            damaged = "" if record is None else "its record is damaged: look at it first"
            why = needed.get(folder, "") or damaged or rules.young(changed)
            gone = "it has no record: left of a deletion, or never begun"
        verdicts.append(Verdict(kind, folder, not why, why or gone, _bytes(storage, folder), changed))
    return verdicts


def judge_checkpoints(storage: Storage, family: Family, rules: Rules, gone: set[str]) -> list[Verdict]:
    """Verdicts on the checkpoints of runs that stay: nobody goes on from them once the run is over.

    Args:
        storage: The workspace.
        family: What there is.
        rules: What is asked.
        gone: Runs that go as a whole.
    """
    work = open_storage(storage.work_folder())
    verdicts = []
    for folder, run in family.runs.items():
        if folder in gone or not isinstance(run, RunRecord):
            continue
        places = [folder, *(f"{folder}/folds/{fold}" for fold in work.list_dirs(f"{folder}/folds"))]
        for place in places:
            size = _bytes(work, f"{place}/{_CHECKPOINTS}")
            if not size:
                continue
            changed = unix_time(run.updated)
            why = rules.young(changed) if run.state == "done" else "its run goes on from them"
            told = why or "the run is over, and nothing goes on from them"
            verdicts.append(Verdict("checkpoints", f"{place}/{_CHECKPOINTS}", not why, told, size, changed))
    return verdicts


def judge_datasets(storage: Storage, family: Family, rules: Rules, gone: set[str]) -> list[Verdict]:
    """Verdicts on the data sets of a data set and task.

    Args:
        storage: The workspace.
        family: What there is.
        rules: What is asked.
        gone: Runs and sweeps that go before them.
    """
    infos = retention.list_datasets(storage, family.dataset, family.task)
    if not infos:
        return []
    needed = needs.datasets_needed(storage, family, rules, gone)
    needed |= retention.named_by_latest(storage, family.dataset, family.task)
    judged = retention.judge(infos, rules.keep_datasets, needed, rules.young)
    return [Verdict("datasets", j.info.path, j.goes, j.why, j.info.bytes, j.info.changed) for j in judged]


def judge_caches(storage: Storage, rules: Rules) -> list[Verdict]:
    """Verdicts on features that no training has used for long; they are computed anew where they are gone."""
    work = open_storage(storage.work_folder())
    verdicts = []
    for name in work.list_dirs(CACHES):
        path = f"{CACHES}/{name}"
        changed = work.modified(path)
        why = rules.young(changed).replace("changed", "used")
        verdicts.append(Verdict("cache", path, not why, why or "unused for long", _bytes(work, path), changed))
    return verdicts


def _bytes(storage: Storage, path: str) -> int:
    return sum(size for _, size in storage.list_files(path))
