"""What was there before an ingest: the ledger that it goes on from, and who must not be written again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from components.core.regular_files import read_regular_text
from components.datasets.fold_ledgers import EVERYONE, fold_path, read_fold_ledgers
from components.datasets.latest_pointer import read_latest
from components.errors import DataError, UsageError
from components.ingest.config import IngestConfig
from components.splits.ledger import Ledger
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage


@dataclasses.dataclass(frozen=True)
class Previous:
    """The ledgers of a workspace as an ingest finds them; each file is read once.

    Attributes:
        ledger: The ledger to go on from; None for a first ingest, and for a leaky one.
        where: Its file, for messages.
        folds: All ledgers of the cross-validation that it belongs to, in order.
        latest: The ledger of the data set that latest.json names.
        latest_id: PLAN_ID of that data set.
    """

    ledger: Ledger | None = None
    where: str = ""
    folds: tuple[Ledger, ...] = ()
    latest: Ledger | None = None
    latest_id: str = ""

    def withdrawn(self, key_fingerprint: str) -> frozenset[str]:
        """Groups whose consent was withdrawn, by the ledger to go on from and by the latest data set's.

        The latest one counts even for folds, a named ledger or a leaky split: whoever wrote those may not have known.

        Args:
            key_fingerprint: Of this ingest's key; the latest ledger's groups mean nothing under another.
        """
        known = self.ledger.tombstones if self.ledger else frozenset()
        if self.latest is None or self.latest.key_fingerprint != key_fingerprint:
            return known
        return known | self.latest.tombstones


def read_previous(storage: Storage, config: IngestConfig) -> Previous:
    """Finds the ledger: --ledger, the fold's, else that of the data set that latest.json names.

    Raises:
        UsageError: A named ledger is missing or broken; there are no such folds.
        DataError: The latest data set's ledger is missing, or was changed after the commit.
    """
    leaky = config.split_by == "image"  # made to measure leakage: has no past and no future
    previous = Previous()
    if config.ledger and not leaky:
        previous = Previous(_read_named(config.ledger), str(config.ledger))
    elif (config.fold or config.folds) and not leaky:
        previous = _read_folds(storage, config)
    pointer = read_latest(storage, config.home)
    if pointer is None:
        return previous
    follows = not (leaky or config.ledger or config.fold or config.folds)
    path = f"{pointer.dataset_dir}/splits.json"
    where = storage.uri(path)
    try:
        text = storage.read_bytes(path).decode()
    except StorageMissing:
        if not follows:
            return previous
        raise DataError(
            f"{storage.uri(config.home)}/latest.json names a data set without {path}.",
            "Without its ledger patients could change sides. Restore it, or name a copy with --ledger.",
        ) from None
    if follows:
        _check_untouched(storage, pointer.dataset_dir, text, where)
    latest = Ledger.from_json(text, where)
    if follows:
        return Previous(latest, where, latest=latest, latest_id=pointer.plan_id)
    return dataclasses.replace(previous, latest=latest, latest_id=pointer.plan_id)


def _read_named(path: Path) -> Ledger:
    try:
        text = read_regular_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--ledger {path} can't be read: {error}.", "Name a splits.json.") from None
    return Ledger.from_json(text, str(path))


def _check_untouched(storage: Storage, dataset_dir: str, text: str, where: str) -> None:
    """Refuses a ledger that is not the one of the commit; without a manifest (a repair under way) nothing is known."""
    try:
        manifest = json.loads(storage.read_bytes(f"{dataset_dir}/manifest.json"))
        committed = manifest["ledger"]["sha256"]
    except (StorageMissing, ValueError, KeyError, TypeError):
        return
    if committed != hashlib.sha256(text.encode()).hexdigest():
        raise DataError(
            f"{where} was changed after the commit: patients could have changed sides.",
            "Restore it. A split of your own comes in with --splits-csv, or with --ledger COPY.",
        )


def _read_folds(storage: Storage, config: IngestConfig) -> Previous:
    ledgers = read_fold_ledgers(storage, config.home, config.folds)
    if not ledgers:
        if config.folds:
            return Previous()
        raise UsageError(
            f"There are no folds in {storage.uri(config.home)}/{EVERYONE}.",
            "Plan them first: histoline ingest ... --folds 5.",
        )
    count = len(ledgers)
    if config.fold > count:
        raise UsageError(f"--fold {config.fold}: there are {count} folds.", f"Choose 1 to {count}.")
    chosen = max(config.fold, 1)
    return Previous(ledgers[chosen - 1], storage.uri(fold_path(config.home, chosen)), ledgers)
