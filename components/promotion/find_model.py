"""Which exported model is meant: the champion, a version, a run's model or any folder; it need not be on this disk."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from components.errors import DataError, UsageError
from components.promotion import champion as champions
from components.promotion import version_digests
from components.promotion.served_model import NotServable, model_digest, read_facts, read_train_groups
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training import run_record

NEEDED = ("dataset", "adapter", "task", "classes", "source_size", "stored_size")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """An exported model, found and described; loads nothing.

    Attributes:
        root: Storage root under which it lies.
        path: Its folder, relative to the root.
        version: What tables call it: VERSION, RUN_ID, or the folder's name.
        digest: SHA-256 over its files.
        facts: assets.extra/histoline.json.
        unproven: Why it was promoted although its data set is not proved to be patient-disjoint; mostly empty.
        drawn: Whether a program drew the images that it was trained on.
    """

    root: str
    path: str
    version: str
    digest: str
    facts: dict[str, Any]
    unproven: str = ""
    drawn: bool = False

    @property
    def caveat(self) -> str:
        """What must be said of everything that is made with it; mostly nothing."""
        return champions.caveat(self.unproven, self.drawn)

    @property
    def uri(self) -> str:
        """Full name of the folder."""
        return open_storage(self.root).uri(self.path)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(self.facts["classes"])

    @property
    def source_size(self) -> tuple[int, int]:
        """(width, height) in pixels of a regular source image."""
        width, height = self.facts["source_size"]
        return int(width), int(height)

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the images that the model takes."""
        width, height = self.facts["stored_size"]
        return int(width), int(height)

    @property
    def threshold(self) -> float | None:
        """P(positive) from which a patch is positive; None for several classes."""
        return float(self.facts["threshold"]) if len(self.classes) == 2 else None

    def local(self) -> Path:
        """Local folder with the model; fetched where it lies on gs://."""
        return open_storage(self.root).local_tree(self.path)

    def train_groups(self) -> frozenset[str] | None:
        """Groups that it was fitted or tuned on; None where it does not say."""
        return read_train_groups(self.local())


def champion_model(storage: Storage, dataset: str, task: str) -> ModelSource:
    """The champion of a data set and task.

    Raises:
        UsageError: Nothing was promoted yet.
        DataError: Its folder is gone or damaged.
    """
    home = champions.home(dataset, task)
    champion = champions.load(storage, home)
    if champion is None:
        raise UsageError(
            f"No model of {dataset} {task} was promoted in {storage.root}.",
            "Train one (histoline train), promote one by hand (histoline models promote), or name one with --model.",
        )
    return _version(storage, home, champion.current.version)


def named_model(storage: Storage, name: str) -> ModelSource:
    """The model of a VERSION or of a RUN_ID, under whatever data set and task it is.

    Raises:
        UsageError: There is none, or one VERSION stands under two tasks.
        DataError: Its folder is damaged.
    """
    homes = [f"models/{d}/{t}" for d in storage.list_dirs("models") for t in storage.list_dirs(f"models/{d}")]
    if name.isdecimal():
        found = [home for home in homes if storage.exists(f"{home}/{int(name)}/{champions.LIVE}")]
        if len(found) > 1:
            raise UsageError(f"Version {name} stands in {' and '.join(found)}.", "Name its folder with --model.")
        if found:
            return _version(storage, found[0], int(name))
    folder = run_record.find_run(storage, name)
    if folder is not None and storage.exists(f"{folder}/model/{champions.LIVE}"):
        return _source(storage, f"{folder}/model", name)
    raise UsageError(
        f"{storage.root} holds no version and no run with a model named {name!r}.",
        "See histoline models list, or name the model's folder with --model.",
    )


def model_folder(name: str) -> ModelSource:
    """The model in a folder (local or gs://): a SavedModel, or a run folder that holds one in `model/`.

    Raises:
        UsageError: The folder holds no exported model.
        DataError: What it says of itself is damaged.
    """
    whole = name.rstrip("/") if "://" in name else os.path.abspath(name)
    root, _, last = whole.rpartition("/")
    storage = open_storage(root or "/")
    for path in (last, f"{last}/model"):
        if storage.exists(f"{path}/{champions.LIVE}"):
            return _source(storage, path, _own_name(storage, path, whole))
    raise UsageError(
        f"{name!r} holds no exported model ({champions.LIVE}).",
        "Give a version's folder (models/DATASET/TASK/VERSION), or a run's model/.",
    )


def _own_name(storage: Storage, path: str, whole: str) -> str:
    """VERSION where the folder is a published one, RUN_ID where it is a run's, else its own name."""
    if storage.exists(f"{path}/{champions.PROMOTION}"):
        try:
            return str(int(json.loads(storage.read_bytes(f"{path}/{champions.PROMOTION}"))["version"]))
        except (ValueError, KeyError, TypeError):
            pass
    parts = whole.split("/")
    return parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]


def _version(storage: Storage, home: str, version: int) -> ModelSource:
    champions.version_dir(storage, home, version)  # says what to do where the folder is gone
    return _source(storage, f"{home}/{version}", str(version))


def _source(storage: Storage, path: str, version: str) -> ModelSource:
    folder = storage.local_tree(path)
    version_digests.check(folder, storage.uri(path))
    try:
        facts = read_facts(folder)
        missing = [key for key in NEEDED if not facts.get(key)]
        if missing or (len(facts["classes"]) == 2 and not isinstance(facts.get("threshold"), (int, float))):
            raise NotServable(f"its description lacks {', '.join(missing) or 'the threshold'}")
    except NotServable as error:
        raise DataError(
            f"The model {storage.uri(path)} can't be used: {error}.", "Export it again, or choose another model."
        ) from None
    return ModelSource(storage.root, path, version, model_digest(folder), facts, *_told(storage, path))


def _told(storage: Storage, path: str) -> tuple[str, bool]:
    """`unproven` and `drawn` of a model: a version says them itself, of a run's model the run's record does."""
    record = f"{path.rpartition('/')[0]}/{run_record.NAME}".lstrip("/")
    for file, key in ((f"{path}/{champions.PROMOTION}", ""), (record, "promotion")):
        if not storage.exists(file):
            continue
        try:
            document = json.loads(storage.read_bytes(file))
            entry = (document[key] or {}) if key else document
            return str(entry.get("unproven", "")), bool(document.get("drawn", False))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return "", False
