"""The ledgers of a cross-validation, one a fold, as the workspace keeps them for ingests and trainings alike."""

from __future__ import annotations

from components.errors import UsageError
from components.splits.ledger import Ledger
from components.storage.base import Storage

EVERYONE = "folds"
"""Folder of the folds over all groups, beside the data sets of a task."""

HELD_OUT = "folds-holdout-test"
"""Folder of the folds over the groups that the data set's own ledger does not keep for test."""


def fold_path(home: str, fold: int, plan: str = EVERYONE) -> str:
    """File of a fold's ledger, relative to the workspace.

    Args:
        home: `datasets/DATASET/TASK`.
        fold: From 1.
        plan: `EVERYONE` or `HELD_OUT`.
    """
    return f"{home}/{plan}/{fold}.json"


def read_fold_ledgers(storage: Storage, home: str, folds: int = 0, plan: str = EVERYONE) -> tuple[Ledger, ...]:
    """All ledgers of a cross-validation, in order; none where it was never planned.

    Args:
        storage: The workspace.
        home: `datasets/DATASET/TASK`.
        folds: How many there must be; 0 for any number.
        plan: `EVERYONE` or `HELD_OUT`.

    Raises:
        UsageError: It has another number of folds.
        DataError: A ledger is damaged.
    """
    first = fold_path(home, 1, plan)
    if not storage.exists(first):
        return ()
    ledgers = [Ledger.from_json(storage.read_bytes(first).decode(), storage.uri(first))]
    count = ledgers[0].folds
    if folds and folds != count:
        raise UsageError(
            f"{storage.uri(home)}/{plan} holds {count} folds, --folds says {folds}.",
            "Keep the number, or delete that folder to start anew.",
        )
    for number in range(2, count + 1):
        path = fold_path(home, number, plan)
        ledgers.append(Ledger.from_json(storage.read_bytes(path).decode(), storage.uri(path)))
    return tuple(ledgers)
