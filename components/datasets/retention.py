"""Committed data sets of a workspace: what there is, and what may go."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping

from components.datasets import manifest as manifests
from components.datasets.latest_pointer import read_latest
from components.datasets.layout import lock_path
from components.datasets.manifest import Manifest
from components.errors import HistolineError
from components.storage.base import Storage


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A folder under datasets/DATASET/TASK/.

    Attributes:
        dataset: Data set.
        task: Task.
        plan_id: PLAN_ID.
        path: Folder, relative to the workspace.
        state: `latest`, `committed`, `unfinished` (no manifest: running, or to be resumed) or `damaged`.
        bytes: Size of all files.
        manifest: The manifest, None unless committed.
        problem: Why it is damaged.
        changed: When it was committed, else when its newest file was written; Unix time.
    """

    dataset: str
    task: str
    plan_id: str
    path: str
    state: str
    bytes: int
    manifest: Manifest | None
    problem: str = ""
    changed: float = 0.0


def list_datasets(storage: Storage, dataset: str = "", task: str = "") -> list[DatasetInfo]:
    """Finds all data sets, the newest of each task first.

    Args:
        storage: The workspace.
        dataset: Only this one; empty for all.
        task: Only this one; empty for all.
    """
    found: list[DatasetInfo] = []
    for home in homes_of(storage, dataset, task):
        pointer = read_latest(storage, home)
        latest = pointer.plan_id if pointer else None
        plans = [p for p in storage.list_dirs(home) if p != "folds" and not p.startswith(".")]
        infos = [_info(storage, home, plan, latest) for plan in plans]
        found += sorted(infos, key=lambda i: i.manifest.created if i.manifest else "", reverse=True)
    return found


def homes_of(storage: Storage, dataset: str = "", task: str = "") -> list[str]:
    """`datasets/DATASET/TASK` of all data sets and tasks, or of those named."""
    return [
        f"datasets/{name}/{each}"
        for name in ([dataset] if dataset else storage.list_dirs("datasets"))
        for each in ([task] if task else storage.list_dirs(f"datasets/{name}"))
    ]


def _info(storage: Storage, home: str, plan_id: str, latest: str | None) -> DatasetInfo:
    path = f"{home}/{plan_id}"
    _, dataset, task = home.split("/")
    size = sum(n for _, n in storage.list_files(path))
    found = DatasetInfo(dataset, task, plan_id, path, "unfinished", size, None)
    if not storage.exists(f"{path}/{manifests.NAME}"):
        return dataclasses.replace(found, changed=storage.modified(path))
    try:
        manifest = manifests.load(storage, path)
    except HistolineError as error:
        return dataclasses.replace(found, state="damaged", problem=str(error), changed=storage.modified(path))
    committed = datetime.datetime.fromisoformat(manifest.created).timestamp()
    state = "latest" if plan_id == latest else "committed"
    return dataclasses.replace(found, state=state, manifest=manifest, changed=committed)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What is said of a data set.

    Attributes:
        info: The data set.
        goes: Whether it may be deleted.
        why: It may, or stays; a clause.
    """

    info: DatasetInfo
    goes: bool
    why: str


def judge(
    infos: Iterable[DatasetInfo], keep: int, needed: Mapping[str, str], young: Callable[[float], str] = lambda _: ""
) -> list[Judged]:
    """What may be deleted: never the latest, never what is needed, never the newest `keep` of a task.

    Unfinished folders may go too: the next ingest of that input starts again instead of going on.

    Args:
        infos: As `list_datasets` gives them, newest first.
        keep: Committed data sets to keep of each task, the latest included.
        needed: Path to who needs it, as a clause.
        young: Why something stays that was changed at this Unix time, empty where it is old enough.
    """
    kept: dict[tuple[str, str], int] = {}
    found = []
    for info in sorted(infos, key=lambda i: i.state != "latest"):
        key = (info.dataset, info.task)
        committed = info.manifest is not None
        why = "it is the latest" if info.state == "latest" else needed.get(info.path, "")
        if not why and committed and kept.get(key, 0) < keep:
            why = f"among the newest {keep}"
        why = why or young(info.changed)
        if why and committed:
            kept[key] = kept.get(key, 0) + 1
        gone = f"{info.state}: no ingest works on it"
        if committed:
            gone = "nothing needs it, and it is not among the newest"
        found.append(Judged(info, not why, why or gone))
    return found


def prune(
    storage: Storage,
    dataset: str,
    task: str,
    keep: int,
    *,
    dry_run: bool,
    needed: Callable[[], Mapping[str, str]] = dict,
    young: Callable[[float], str] = lambda _: "",
    wait_seconds: float | None = None,
) -> list[DatasetInfo]:
    """Deletes old and unfinished data sets, each under the lock of its data set and task.

    Args:
        storage: The workspace.
        dataset: Only this one; empty for all.
        task: Only this one; empty for all.
        keep: Committed data sets to keep of each task, the latest included.
        dry_run: Only tell what would be deleted.
        needed: Tells who needs which data set, see `judge`; asked again under the lock.
        young: See `judge`.
        wait_seconds: For a lock that an ingest holds; None for as long as other commands wait.

    Returns:
        What was, or would be, deleted.

    Raises:
        TemporaryError: An ingest holds a lock.
        UsageError, DataError: Nobody can tell what is needed, such as where champion.json is damaged; nothing was
            deleted.
    """

    def going(*home: str) -> list[DatasetInfo]:
        wanted = {**needed(), **named_by_latest(storage, *home)}
        return [judged.info for judged in judge(list_datasets(storage, *home), keep, wanted, young) if judged.goes]

    found = going(dataset, task)
    if dry_run:
        return found
    patience = {} if wait_seconds is None else {"wait_seconds": wait_seconds}
    deleted = []
    for home in sorted({(info.dataset, info.task) for info in found}):
        lock = lock_path("/".join(("datasets", *home)))
        with storage.lock(lock, owner="histoline prune", **patience):
            # Looked up again: what was unfinished may have been committed while the lock was waited for.
            gone = going(*home)
            for info in gone:
                storage.delete_tree(info.path)
            deleted += gone
    return deleted


def named_by_latest(storage: Storage, dataset: str = "", task: str = "") -> dict[str, str]:
    """Data sets that a latest.json names, purged ones too, and why they are needed.

    Args:
        storage: The workspace.
        dataset: Only this one; empty for all.
        task: Only this one; empty for all.

    Raises:
        UsageError, DataError: A latest.json is of a newer format, or damaged.
    """
    pointers = (read_latest(storage, home) for home in homes_of(storage, dataset, task))
    return {pointer.dataset_dir: "the next ingest goes on from its ledger" for pointer in pointers if pointer}
