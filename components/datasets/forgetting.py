"""Forgetting groups whose consent was withdrawn: what holds them is purged, ledgers keep them as tombstones."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
from collections.abc import Iterable
from typing import Any

from components.datasets import manifest as manifests
from components.datasets.layout import lock_path, sidecar_path
from components.datasets.retention import DatasetInfo, homes_of, list_datasets
from components.splits.ledger import Ledger
from components.storage.atomic_files import TMP
from components.storage.base import Storage


def _read_object(storage: Storage, path: str) -> dict[str, Any]:
    """A JSON object; empty where the file holds none, since one damaged file must not stop a purge."""
    try:
        found = json.loads(storage.read_bytes(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def trained_on(storage: Storage, paths: Iterable[str]) -> list[str]:
    """Models and runs that name one of these data sets, as paths relative to the workspace."""
    plans = {path.rsplit("/", 1)[-1] for path in paths}
    names = []
    for folder, marker, depth in (("models", "assets.extra/histoline.json", 4), ("runs", "run.json", 4)):
        for path, _ in storage.list_files(folder):
            if path.endswith("/" + marker):
                facts = _read_object(storage, path)
                used = (str(facts.get("plan_id", "")), str(facts.get("dataset_dir", "")).rsplit("/", 1)[-1])
                if not plans.isdisjoint(used):
                    names.append("/".join(path.split("/")[:depth]))
    return sorted(set(names))


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """What held groups whose consent was withdrawn.

    Attributes:
        held: Data set -> which of the groups it held, sorted.
        trained_on: Models and runs that name one of these data sets.
        not_searched: Data sets pseudonymised with another key.
    """

    held: dict[str, list[str]]
    trained_on: list[str]
    not_searched: list[str]


def forget(storage: Storage, groups: frozenset[str], key_fingerprint: str = "", *, dry_run: bool) -> Forgotten:
    """Purges every data set that holds these groups and makes them tombstones in all ledgers that name them.

    Everything is searched and changed under the locks of all data sets and tasks: an ingest that runs meanwhile could
    commit the groups again, or write its older copy of a fold's ledger over the tombstones.

    Args:
        storage: The workspace.
        groups: As ledgers name them, pseudonyms included.
        key_fingerprint: Of the key that these pseudonyms were made with; empty without one.
        dry_run: Only tell what would be purged; takes no lock.

    Raises:
        TemporaryError: An ingest holds a lock; nothing was changed.
        UsageError, DataError: A ledger is of a newer format, or damaged.
    """
    homes = homes_of(storage)
    with contextlib.ExitStack() as locks:
        for home in [] if dry_run else homes:
            locks.enter_context(storage.lock(lock_path(home), owner="histoline datasets forget"))
        infos = list_datasets(storage)
        readable = ("", key_fingerprint)
        opaque = [i.path for i in infos if i.manifest and i.manifest.key_fingerprint not in readable]
        held = datasets_holding(storage, infos, groups)
        models = trained_on(storage, held)
        if not dry_run:
            for path in sorted(held):
                purge(storage, path, frozenset(held[path]))
            for info in infos:
                if info.manifest is None:  # what a killed ingest was writing
                    storage.delete_tree(f"{info.path}/{TMP}")
            storage.finish_deletions()
            for home in homes:
                _forget_in_folds(storage, home, groups)
    return Forgotten(held, models, opaque)


def datasets_holding(storage: Storage, infos: Iterable[DatasetInfo], groups: frozenset[str]) -> dict[str, list[str]]:
    """Which of the data sets hold, or have a ledger that names, which of the groups: path -> sorted groups.

    Unfinished and damaged ones too, and what is left of those whose purge was cut short.
    """
    found = {}
    for info in infos:
        path = f"{info.path}/splits.json"
        ledger = _read_ledger(storage, path) if storage.exists(path) else None
        held = groups & ledger.splits.keys() if ledger else frozenset()
        if info.manifest is None:
            held |= _held_unfinished(storage, info.path, groups, ledger)
        elif ledger and ledger.group_unit == "image":  # a leaky ledger names images; the records name groups
            held = groups & _groups_of(storage, f"{info.path}/patches.parquet")
        if held:
            found[info.path] = sorted(held)
    return found


def _held_unfinished(storage: Storage, path: str, groups: frozenset[str], ledger: Ledger | None) -> frozenset[str]:
    """Which of the groups the files of a folder without a manifest may hold."""
    files = {file for file, _ in storage.list_files(path)} - {f"{path}/splits.json"}
    sidecars = {file for file in files if file.startswith(f"{path}/sidecars/")}
    shards = {f"{path}/{sidecar_path(posixpath.basename(file))}" for file in files if "/Split-" in file}
    if not shards <= sidecars:
        return groups  # nobody knows what is in a shard whose sidecar was not written
    named = set().union(*(_groups_of(storage, file) for file in sidecars))
    if files and ledger:
        named |= ledger.tombstones  # a purge that was cut short
    return groups & named


def _read_ledger(storage: Storage, path: str) -> Ledger:
    return Ledger.from_json(storage.read_bytes(path).decode(), storage.uri(path))


def _groups_of(storage: Storage, table_path: str) -> set[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(storage.local_copy(table_path), columns=["group_id"])
    return set(table.column("group_id").unique().to_pylist())


def purge(storage: Storage, path: str, groups: frozenset[str]) -> None:
    """Deletes a data set but for its ledger, in which the groups become tombstones.

    The ledger stays because it keeps every other patient on its side at the next ingest, which reads it through
    latest.json and then leaves the tombstones out by itself. A purge that was cut short is purged again.
    """
    ledger_path = f"{path}/splits.json"
    ledger = _read_ledger(storage, ledger_path) if storage.exists(ledger_path) else None
    storage.delete(f"{path}/{manifests.NAME}")  # first, so that a purge cut short leaves nothing committed
    if ledger:
        _write_tombstones(storage, ledger_path, ledger, groups)
    storage.delete_tree(f"{path}/{TMP}")
    for file, _ in storage.list_files(path):
        if file != ledger_path:
            storage.delete(file)


def _forget_in_folds(storage: Storage, home: str, groups: frozenset[str]) -> None:
    for path, _ in storage.list_files(f"{home}/folds"):
        ledger = _read_ledger(storage, path)
        known = groups & ledger.splits.keys()
        if known:
            _write_tombstones(storage, path, ledger, frozenset(known))


def _write_tombstones(storage: Storage, path: str, ledger: Ledger, groups: frozenset[str]) -> None:
    """Moves groups from a ledger's splits to its tombstones."""
    splits = {group: split for group, split in ledger.splits.items() if group not in groups}
    changed = dataclasses.replace(ledger, splits=splits, tombstones=ledger.tombstones | groups)
    storage.write_atomic(path, changed.to_json().encode())
