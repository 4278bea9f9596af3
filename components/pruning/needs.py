"""Who needs what: the champion its run and data, a run that is not over its data and members, a page its run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from components.errors import DataError, HistolineError
from components.promotion import champion as champions
from components.promotion.champion import Champion
from components.pruning.rules import Rules, unix_time
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage
from components.sweeps import record as sweep_record
from components.sweeps.sweep_types import SweepRecord
from components.training import run_record
from components.training.run_types import RunRecord

Read = TypeVar("Read")


@dataclasses.dataclass(frozen=True)
class Family:
    """What a workspace holds of one data set and task.

    Attributes:
        dataset: Data set.
        task: Task.
        runs: Folder to run.json: None where there is none, the error where it can't be read.
        sweeps: Folder to sweep.json, likewise.
        champion: Promotions; None where there were none.
    """

    dataset: str
    task: str
    runs: Mapping[str, RunRecord | HistolineError | None]
    sweeps: Mapping[str, SweepRecord | HistolineError | None]
    champion: Champion | None

    @property
    def name(self) -> str:
        """Data set and task as people write them."""
        return f"{self.dataset} {self.task}"


def families(storage: Storage, dataset: str = "", task: str = "") -> list[Family]:
    """Reads what there is.

    Args:
        storage: The workspace.
        dataset: Only this one; empty for all.
        task: Only this one; empty for all.

    Raises:
        DataError: A champion.json is damaged: nobody can tell what it needs.
    """
    homes = {
        (name, each)
        for top in ("runs", "sweeps", "datasets", "models")
        for name in storage.list_dirs(top)
        for each in storage.list_dirs(f"{top}/{name}")
    }
    wanted = [(name, each) for name, each in sorted(homes) if dataset in ("", name) and task in ("", each)]
    return [_family(storage, *names) for names in wanted]


def again(storage: Storage, family: Family) -> Family:
    """What there is now of the same data set and task."""
    return _family(storage, family.dataset, family.task)


def _family(storage: Storage, dataset: str, task: str) -> Family:
    home = f"{dataset}/{task}"
    return Family(
        dataset,
        task,
        _read_all(storage, f"runs/{home}", run_record.NAME, run_record.read),
        _read_all(storage, f"sweeps/{home}", sweep_record.NAME, sweep_record.read),
        read_champion(storage, dataset, task),
    )


def _read_all(
    storage: Storage, home: str, name: str, read: Callable[[Storage, str], Read]
) -> dict[str, Read | HistolineError | None]:
    found: dict[str, Read | HistolineError | None] = {}
    for folder in storage.list_dirs(home):
        path = f"{home}/{folder}"
        try:
            found[path] = read(storage, path) if storage.exists(f"{path}/{name}") else None
        except HistolineError as error:
            found[path] = error
    return found


def read_champion(storage: Storage, dataset: str, task: str) -> Champion | None:
    """The promotions, those too that a push was killed before it had noted them; nothing is written.

    Raises:
        DataError: champion.json is damaged.
    """
    home = champions.home(dataset, task)
    found, _ = champions.read(storage, home)
    entries = champions.published(storage, home, found.current.version if found else 0)
    if found is not None:
        return found.adopt(entries)
    return Champion(tuple(entries)) if entries else None


def is_pending(record: RunRecord | SweepRecord, rules: Rules) -> bool:
    """Whether somebody will go on with a run or sweep, as far as anybody can tell; one that failed is over."""
    return record.state == "running" and not rules.is_abandoned(unix_time(record.updated))


def runs_needed(family: Family, rules: Rules, kept: Collection[str] = ()) -> dict[str, str]:
    """Runs that something else needs, and what, as a clause.

    Args:
        family: What there is.
        rules: What is asked.
        kept: Runs that stay for another reason: what their pages lead to stays, too.
    """
    home = f"runs/{family.dataset}/{family.task}"
    needed: dict[str, str] = {}
    for folder, record in family.runs.items():
        if not isinstance(record, RunRecord):
            continue
        if is_pending(record, rules):
            members = (str(member["run_id"]) for member in record.config.get("ensemble") or ())
            needed |= {f"{home}/{name}": f"run {record.run_id}, which is not over, is made of it" for name in members}
        if folder in kept and record.paths.get("same_as"):
            needed[record.paths["same_as"]] = f"run {record.run_id} found its data, recipe and code unchanged"
    if family.champion is not None:
        for name, entry in reversed(champions.compared(family.champion).items()):
            title = "the champion" if name == "champion" else "the best model ever promoted"
            needed[f"{home}/{family.champion.origin(entry).run_id}"] = f"{title}, version {entry.version}, is its model"
    return needed


def sweeps_needed(family: Family, rules: Rules) -> dict[str, str]:
    """Sweeps that something else needs, and what, as a clause."""
    home = f"sweeps/{family.dataset}/{family.task}"
    needed: dict[str, str] = {}
    pending = [run for run in family.runs.values() if isinstance(run, RunRecord) and is_pending(run, rules)]
    for run in pending:
        for member in run.config.get("ensemble") or ():
            sweep_id, slash, _ = str(member["run_id"]).partition("/")
            if slash:
                needed[f"{home}/{sweep_id}"] = f"run {run.run_id}, which is not over, is made of its trials"
    for folder, sweep in family.sweeps.items():
        if isinstance(sweep, SweepRecord) and sweep.run_id in {run.run_id for run in pending}:
            needed[folder] = f"run {sweep.run_id}, which is not over, takes its winner over"
    return needed


def datasets_needed(
    storage: Storage, family: Family, rules: Rules, gone: Collection[str] = ()
) -> dict[str, str]:
    """Data sets that something else needs, and what, as a clause.

    Args:
        storage: The workspace.
        family: What there is.
        rules: What is asked.
        gone: Runs and sweeps that go before the data sets do.

    Raises:
        DataError: Nobody can tell what a damaged run needs.
    """
    needed: dict[str, str] = {}
    for sweep in family.sweeps.values():
        if isinstance(sweep, SweepRecord) and is_pending(sweep, rules):
            needed[sweep.dataset_dir] = f"sweep {sweep.sweep_id} is not over"
    for folder, run in family.runs.items():
        if folder in gone:
            continue
        if isinstance(run, RunRecord):
            # A run that found nothing new read no more than the manifest.
            if run.decision != "unchanged":
                needed[run.dataset_dir] = f"run {run.run_id} was made on it"
        elif run is not None:
            needed[_dataset_of(storage, folder, run)] = f"the damaged run {folder.rsplit('/', 1)[1]} was made on it"
    if family.champion is not None:
        for name, entry in reversed(champions.compared(family.champion).items()):
            title = "the champion" if name == "champion" else "the best model ever promoted"
            needed[entry.dataset_dir] = f"{title}, version {entry.version}, was trained on it"
    return needed


def _dataset_of(storage: Storage, folder: str, error: HistolineError) -> str:
    """Data set of a run whose run.json is not what was written."""
    try:
        return str(json.loads(storage.read_bytes(f"{folder}/{run_record.NAME}"))["dataset_dir"])
    except StorageMissing:  # another pruning was faster
        return ""
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"No data set can be pruned: {error.what.rstrip('.')}, so nobody can tell which one it needs.",
            "Restore the file, or delete the run's folder.",
        ) from error
