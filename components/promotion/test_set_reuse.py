"""How often a test split was looked at: every look makes a lucky model a little likelier, so looks are shown.

One file per data set and task counts the runs that were evaluated on each test split, each run once however often it
is evaluated. It lies beside the data sets so that pruned runs still count.
"""

from __future__ import annotations

import json

from components.errors import DataError, TemporaryError
from components.storage.atomic_files import StorageConflict
from components.storage.base import Storage

_TRIES = 20


def path(dataset: str, task: str) -> str:
    """File of a data set's and task's looks, relative to the workspace."""
    return f"datasets/{dataset}/{task}/looks.json"


def count_look(storage: Storage, dataset: str, task: str, test_digest: str, run_id: str) -> int:
    """Adds a run to those that saw a test split and returns how many did.

    Args:
        storage: The workspace.
        dataset: Data set.
        task: Task.
        test_digest: As `split_data.digest_of_split` gives it.
        run_id: RUN_ID; counted once.

    Raises:
        DataError: The file is damaged.
        TemporaryError: Others keep changing it.
    """
    file = path(dataset, task)
    for _ in range(_TRIES):
        data, token = storage.read_versioned(file)
        try:
            splits: dict[str, list[str]] = json.loads(data)["splits"] if data is not None else {}
            seen = list(splits.get(test_digest, []))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{storage.uri(file)} is damaged.", "Delete it: looks at the test splits are then counted from 0."
            ) from None
        if run_id in seen:
            return len(seen)
        document = {"format": 1, "splits": {**splits, test_digest: [*seen, run_id]}}
        try:
            storage.compare_and_swap(file, (json.dumps(document, indent=1) + "\n").encode(), token)
        except StorageConflict:
            continue
        return len(seen) + 1
    raise TemporaryError(f"{storage.uri(file)} keeps changing.", "Run again.")
