"""How often a test split was looked at: every look makes a lucky model a little likelier, so looks are counted.

Counted by patient, so that a split which has grown by a few does not look fresh: a patient's looks are the runs that
were evaluated on a split that held the patient, each run once however often it is evaluated. The looks of a split are
the most that at least half of its patients have had (those of its most-looked-at half).

One file per data set and task remembers them. It lies beside the data sets so that pruned runs still count.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Mapping
from typing import Any

from components.core import json_documents
from components.datasets.manifest import Manifest
from components.errors import DataError, TemporaryError
from components.storage.atomic_files import StorageConflict
from components.storage.base import Storage
from components.training.run_types import LookCount

FORMAT = 2
_TRIES = 20


def path(dataset: str, task: str) -> str:
    """File of a data set's and task's looks, relative to the workspace."""
    return f"datasets/{dataset}/{task}/looks.json"


def names_of(manifest: Manifest) -> str:
    """What the groups of a data set are called by: unit, and the key's fingerprint where they are pseudonyms."""
    return f"{manifest.group_unit} {manifest.key_fingerprint}".strip()


def count_look(
    storage: Storage, dataset: str, task: str, *, test_digest: str, groups: Iterable[str], names: str, run_id: str
) -> LookCount:
    """Adds a run to those that saw a test split and returns how often its patients have been looked at.

    Args:
        storage: The workspace.
        dataset: Data set.
        task: Task.
        test_digest: As `digest_of_split` gives it.
        groups: Groups of the split.
        names: As `names_of` gives them; looks under other names can't be told apart, so all of them count.
        run_id: RUN_ID; counted once.

    Raises:
        UsageError: The file is of a newer format.
        DataError: It is damaged.
        TemporaryError: Others keep changing it.
    """
    file, mine = path(dataset, task), sorted(set(groups))
    for _ in range(_TRIES):
        data, token = storage.read_versioned(file)
        splits = {} if data is None else _read(data, storage.uri(file))
        before = splits.get(test_digest, {"runs": []})
        runs = before["runs"] if run_id in before["runs"] else [*before["runs"], run_id]
        # Written anew: an entry of format 1 learns here which patients its runs have seen.
        splits[test_digest] = {"names": names, "groups": mine, "runs": runs}
        counted = looks_of(splits, test_digest)
        document = (json.dumps({"format": FORMAT, "splits": splits}) + "\n").encode()
        if document == data:
            return counted
        try:
            storage.compare_and_swap(file, document, token)
        except StorageConflict:
            continue
        return counted
    raise TemporaryError(f"{storage.uri(file)} keeps changing.", "Run again.")


def _read(data: bytes, where: str) -> dict[str, dict[str, Any]]:
    """Test digest to `names`, `groups` and `runs`; what format 1 did not keep is None."""
    fix = "Delete it: looks at the test splits are then counted from 0."
    document = json_documents.decode(data, FORMAT, where, "a count of looks at test splits", fix)
    splits: dict[str, dict[str, Any]] = {}
    try:
        for digest, entry in document["splits"].items():
            if document["format"] == 1:
                entry = {"names": None, "groups": None, "runs": entry}
            if not isinstance(entry["runs"], list) or not isinstance(entry["groups"], (list, type(None))):
                raise TypeError
            splits[digest] = {"names": entry["names"], "groups": entry["groups"], "runs": entry["runs"]}
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{where} is damaged: it does not say which runs saw which split.", fix) from None
    return splits


def looks_of(splits: Mapping[str, Mapping[str, Any]], test_digest: str) -> LookCount:
    """The looks of one split, from all that were ever looked at; a pure function.

    Args:
        splits: Test digest to its `names`, `groups` and `runs`. Where `groups` is None or `names` are others, its runs
            may have seen any patient, and so count for every one.
        test_digest: The split.
    """
    own = splits[test_digest]
    everybody: set[str] = set()
    seen: dict[str, list[str]] = collections.defaultdict(list)
    for digest, entry in splits.items():
        if entry["groups"] is None or entry["names"] != own["names"]:
            everybody |= set(entry["runs"])
        else:
            for group in entry["groups"]:
                seen[group].append(digest)
    sizes: dict[tuple[str, ...], int] = {}  # many patients share the splits that they were in
    for group in own["groups"]:
        among = tuple(seen[group])
        if among not in sizes:
            sizes[among] = len(everybody.union(*(splits[digest]["runs"] for digest in among)))
    looks = sorted((sizes[tuple(seen[group])] for group in own["groups"]), reverse=True)
    count = looks[(len(looks) + 1) // 2 - 1]
    return LookCount(count, test_digest, sum(each >= count for each in looks), len(looks))
