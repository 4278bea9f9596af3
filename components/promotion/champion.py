"""champion.json: which model is served, which was the best that the gate ever promoted, and the whole history.

The history decides: current and best ever follow from it. Each version folder carries its own entry
(`assets.extra/promotion.json`), so that a crash between the model's rename and champion.json, or the loss of
champion.json itself, is repaired by whoever looks next.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.core import json_documents
from components.errors import DataError, TemporaryError, UsageError
from components.promotion import version_digests
from components.storage.atomic_files import StorageConflict, StorageMissing
from components.storage.base import Storage

FORMAT = 1
NAME = "champion.json"
SCHEMA = "champion.schema.json"
PROMOTION = "assets.extra/promotion.json"
"""A version's own entry, inside its folder."""

OUT_OF_FOLD = "assets.extra/out_of_fold.parquet"
"""In a version that was decided by folds: what the fold that had not seen a patch said of it."""

LIVE = "saved_model.pb"
"""The file that makes a version folder a model."""

_TRIES = 20


@dataclasses.dataclass(frozen=True)
class Promotion:
    """How one version came to be served.

    Attributes:
        version: Folder name, a positive number; the highest is served.
        run_id: Run that trained the model.
        promoted_by: `gate` or `hand`.
        from_version: Of a rollback, the version that was published again; else None.
        when: ISO 8601, UTC.
        who: User name.
        why: The gate's sentence, or the reason that was given.
        dataset_dir: Data set of the run, relative to the workspace.
        plan_id: Of that data set.
        content_digest: Likewise.
        group_unit: What its groups are: patient, slide or image.
        group_key: Fingerprint of the pseudonymisation key, empty where ids are plain.
        metric: Primary metric, `auc` or `macro_f1`.
        metrics: Metric to value on the test split of that data set.
        raises_best: The gate found it at least as good as the best so far, on the same patches.
        recipe_digest: Of what makes the model (`TrainingConfig.making_digest`); empty in entries of before it was kept.
        source_digest: Of the code that made it; likewise.
        unproven: Why it was promoted although its data set is not proved to be patient-disjoint; else empty.
        decision_by: What was decided by: one test `split`, or `folds` by patient, out of which `metrics` then are.
        drawn: Whether a program drew the images that it was trained on.
    """

    version: int
    run_id: str
    promoted_by: str
    from_version: int | None
    when: str
    who: str
    why: str
    dataset_dir: str
    plan_id: str
    content_digest: str
    group_unit: str
    group_key: str
    metric: str
    metrics: Mapping[str, float | None]
    raises_best: bool
    recipe_digest: str = ""
    source_digest: str = ""
    unproven: str = ""
    decision_by: str = "split"
    drawn: bool = False

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Promotion:
        """Reads an entry; raises TypeError where a field is missing that every entry has."""
        return cls(**{field.name: given[field.name] for field in dataclasses.fields(cls) if field.name in given})

    @property
    def caveat(self) -> str:
        """What must be said wherever the model or something made from it is shown; mostly nothing."""
        return caveat(self.unproven, self.drawn)


DRAWN = "Trained on synthetic images, which a program drew: its figures say nothing of real tissue."


def caveat(unproven: str, drawn: bool) -> str:
    """What must be said of a promoted model, in sentences; empty where there is nothing."""
    return " ".join(filter(None, [DRAWN if drawn else "", unproven_caveat(unproven)]))


def unproven_caveat(reason: str) -> str:
    """The sentence about a model whose data set is not proved to be patient-disjoint; empty without a reason."""
    if not reason:
        return ""
    return (
        "The splits of this model's data set are not proved to be disjoint by patient, so that its figures may be too"
        f" good; it was promoted by hand all the same, because: {reason}"
    )


@dataclasses.dataclass(frozen=True)
class Champion:
    """The promotions of one data set and task.

    Attributes:
        history: Oldest first, at least one; the last is served.
    """

    history: tuple[Promotion, ...]

    @property
    def current(self) -> Promotion:
        """The champion."""
        return self.history[-1]

    @property
    def best_ever(self) -> Promotion | None:
        """The best model that the gate ever promoted; None where it never did.

        What was promoted by hand does not count, nor what a rollback took back: rolling back to a version says that
        every promotion after it was wrong.
        """
        counting: list[Promotion] = []
        for entry in self.history:
            if entry.promoted_by == "gate":
                counting.append(entry)
            elif entry.from_version is not None:
                origin = self.origin(entry).version
                counting = [earlier for earlier in counting if earlier.version <= origin]
        return next((entry for entry in reversed(counting) if entry.raises_best), None)

    def find(self, version: int) -> Promotion | None:
        """The entry of a version."""
        return next((entry for entry in self.history if entry.version == version), None)

    def pushed(self, run_id: str) -> Promotion | None:
        """The entry by which the gate published a run; None where it did not."""
        return next((e for e in self.history if e.run_id == run_id and e.promoted_by == "gate"), None)

    def origin(self, entry: Promotion) -> Promotion:
        """The entry that first published this model: follows rollbacks back."""
        while entry.from_version is not None:
            source = self.find(entry.from_version)
            if source is None:
                break
            entry = source
        return entry

    def before(self) -> Promotion | None:
        """The model served before the current one, which a rollback goes back to; None for the first."""
        origin = self.origin(self.current)
        place = self.history.index(origin)
        return self.origin(self.history[place - 1]) if place else None

    def adopt(self, entries: Iterable[Promotion]) -> Champion:
        """With entries that the history lacks and that are newer than all of it."""
        new = sorted((e for e in entries if e.version > self.current.version), key=lambda e: e.version)
        return Champion((*self.history, *new)) if new else self

    def dump(self) -> bytes:
        """The bytes of champion.json."""
        best = self.best_ever
        return json_documents.dump(
            {
                "format": FORMAT,
                **dataclasses.asdict(self.current),
                "best_ever": dataclasses.asdict(best) if best else None,
                "history": [dataclasses.asdict(entry) for entry in self.history],
            },
            SCHEMA,
        )


def home(dataset: str, task: str) -> str:
    """Folder of the models of a data set and task, relative to the workspace."""
    return f"models/{dataset}/{task}"


def read(storage: Storage, folder: str) -> tuple[Champion | None, str]:
    """The champion and the version of champion.json for a compare-and-swap; None where there is none.

    Args:
        storage: The workspace.
        folder: As `home` gives it.

    Raises:
        DataError: The file is damaged.
    """
    data, token = storage.read_versioned(f"{folder}/{NAME}")
    if data is None:
        return None, token
    fix = "Delete it: the next evaluation or push writes it again from the version folders."
    document = json_documents.parse(data, SCHEMA, storage.uri(f"{folder}/{NAME}"), fix)
    return Champion(tuple(Promotion.from_dict(entry) for entry in document["history"])), token


def published(storage: Storage, folder: str, above: int = 0) -> list[Promotion]:
    """The entries inside the version folders above a version, oldest first; not what is half uploaded or foreign."""
    entries = []
    for version in versions(storage, folder):
        if version <= above:
            continue
        try:
            if not storage.exists(f"{folder}/{version}/{LIVE}"):
                continue
            entry = Promotion.from_dict(json.loads(storage.read_bytes(f"{folder}/{version}/{PROMOTION}")))
        except (StorageMissing, ValueError, KeyError, TypeError):
            continue
        if entry.version == version:
            entries.append(entry)
    return entries


def versions(storage: Storage, folder: str) -> list[int]:
    """Numbers of the version folders, rising."""
    return sorted(int(name) for name in storage.list_dirs(folder) if name.isdecimal() and int(name) > 0)


def load(storage: Storage, folder: str) -> Champion | None:
    """The champion, after repairing champion.json from the version folders; None where nothing was promoted.

    Raises:
        DataError: champion.json is damaged.
        TemporaryError: Others keep changing it.
    """
    for _ in range(_TRIES):
        champion, token = read(storage, folder)
        entries = published(storage, folder, champion.current.version if champion else 0)
        if champion is not None:
            repaired: Champion | None = champion.adopt(entries)
        else:
            repaired = Champion(tuple(entries)) if entries else None
        if repaired is None or repaired == champion:
            return champion
        try:
            storage.compare_and_swap(f"{folder}/{NAME}", repaired.dump(), token)
        except StorageConflict:
            continue
        return repaired
    raise TemporaryError(f"{storage.uri(folder)}/{NAME} keeps changing.", "Run again.")


def version_dir(storage: Storage, folder: str, version: int) -> Path:
    """Local folder of a promoted version.

    Args:
        storage: The workspace.
        folder: As `home` gives it.
        version: Number.

    Raises:
        DataError: It is gone, or not what was published.
    """
    if not storage.exists(f"{folder}/{version}/{LIVE}"):
        raise DataError(
            f"The promoted model {storage.uri(f'{folder}/{version}')} is gone, so nothing can be compared with it.",
            "Restore the folder, or roll back to a version that exists (histoline models rollback).",
        )
    tree = storage.local_tree(f"{folder}/{version}")
    version_digests.check(tree, storage.uri(f"{folder}/{version}"))
    return tree


def check_drawn(what: str, drawn: bool, champion: Champion | None) -> None:
    """Refuses that a model of drawn images takes the place of one of real ones, by hand too.

    Args:
        what: The model, for the message.
        drawn: Whether a program drew the images that it was trained on.
        champion: That it would replace.

    Raises:
        UsageError: It would.
    """
    if drawn and champion is not None and not champion.current.drawn:
        raise UsageError(
            f"{what} was trained on synthetic images, and champion {champion.current.version} on real ones: it never"
            " takes its place, not by hand either.",
            "Keep synthetic data in a workspace of their own.",
        )


def compared(champion: Champion | None) -> dict[str, Promotion]:
    """`champion` and `best_ever`, those that there are: the models that a candidate is compared with."""
    if champion is None:
        return {}
    best = champion.best_ever
    return {"champion": champion.current, **({"best_ever": best} if best else {})}


def versions_of(entries: Mapping[str, Promotion]) -> dict[str, int | None]:
    """`champion_version` and `best_ever_version` as run.json keeps them, to see later whether they have changed."""
    return {f"{name}_version": entries[name].version if name in entries else None for name in ("champion", "best_ever")}


def next_version(existing: Iterable[int], seconds: float) -> int:
    """Number of the next version: unix time, but always above every version that exists.

    So a clock that was set back, or two pushes within a second, still give a version that serving prefers.

    Args:
        existing: All versions that exist or existed.
        seconds: Unix time.
    """
    return max(max(existing, default=0) + 1, int(seconds))
