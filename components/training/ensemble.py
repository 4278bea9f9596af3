"""Which runs an ensemble is made of: found, checked and named by the digests of their models. Loads no TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from components.core.text import plural
from components.datasets.manifest import Manifest
from components.errors import DataError, UsageError
from components.storage.base import Storage
from components.training import run_record
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import Member

MODEL = "model/saved_model.pb"
GROUPS = {
    "model/assets.extra/train_groups.json": ("train", "eval"),
    "model/assets.extra/fitted_groups.json": ("train",),
}
"""What a model says of whom it has seen, and the splits in which these must be."""


def model_digest(model_dir: Path) -> str:
    """SHA-256 over names and contents of a model's files."""
    whole = hashlib.sha256()
    for file in sorted(path for path in model_dir.rglob("*") if path.is_file()):
        whole.update(f"{file.relative_to(model_dir).as_posix()}\0".encode())
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def recipe_of(storage: Storage, dataset: str, task: str, run_ids: Sequence[str]) -> TrainingConfig:
    """The recipe of an ensemble: judged, and its threshold chosen, as its first member was.

    Args:
        storage: The workspace.
        dataset: Name of the data set.
        task: Task.
        run_ids: Members, two or more.

    Raises:
        UsageError: Too few, one twice, or no such run.
    """
    if len(set(run_ids)) < 2:
        raise UsageError("An ensemble needs two different runs.", f"List them: histoline runs list {dataset}.")
    first = _told(storage, member_folder(storage, dataset, task, run_ids[0]), run_ids[0]).config
    # `class_weights` and `sampling` are for the colour baseline, which must stand where the members stood.
    kept = ("batch_size", "seed", "class_weights", "sampling", "threshold", "floors", "gate")
    return TrainingConfig(
        title=f"Mean of {len(run_ids)} models",
        dataset=dataset,
        task=task,
        model="ensemble",
        ensemble=tuple(Member(run_id) for run_id in run_ids),
        **{name: getattr(first, name) for name in kept},
    )


def settle_members(
    storage: Storage, dataset: str, task: str, dataset_dir: str, manifest: Manifest, config: TrainingConfig
) -> TrainingConfig:
    """Checks that the members of a recipe may be one model on a data set, and puts their models' digests into it.

    Args:
        storage: The workspace.
        dataset: Name of the data set.
        task: Task.
        dataset_dir: Its folder, relative to the workspace.
        manifest: Its manifest.
        config: A recipe with members, or without: then it is given back as it is.

    Raises:
        UsageError: A member is gone, has changed, or was trained on other data or on patients of the test split.
    """
    if not config.ensemble:
        return config
    splits = _groups(storage, dataset_dir)
    members = tuple(
        Member(
            member.run_id,
            _checked(storage, member_folder(storage, dataset, task, member.run_id), member.run_id, manifest, splits),
        )
        for member in config.ensemble
    )
    for given, found in zip(config.ensemble, members, strict=True):
        if given.model not in ("", found.model):
            raise _changed(given)
    return dataclasses.replace(config, ensemble=members)


def member_folders(storage: Storage, dataset: str, task: str, config: TrainingConfig) -> list[Path]:
    """Local folders of the members' models, proved to be those that were frozen.

    Raises:
        UsageError: One is gone or has changed since.
    """
    folders = []
    for member in config.ensemble:
        folder = member_folder(storage, dataset, task, member.run_id)
        if not storage.exists(f"{folder}/{MODEL}"):
            raise _gone(storage, folder)
        local = storage.local_tree(f"{folder}/model")
        if member.model and model_digest(local) != member.model:
            raise _changed(member)
        folders.append(local)
    return folders


def member_folder(storage: Storage, dataset: str, task: str, run_id: str) -> str:
    """Folder of a member, relative to the workspace: a run's, or, named `SWEEP_ID/N`, that of a sweep's trial.

    Args:
        storage: The workspace.
        dataset: Name of the data set.
        task: Task.
        run_id: Name of the member.

    Raises:
        UsageError: There is no such run of the data set and task.
    """
    sweep_id, slash, number = run_id.partition("/")
    if slash:
        folder = f"sweeps/{dataset}/{task}/{run_record.check_run_id(sweep_id)}/trials/{number}"
        if not number.isdecimal() or not storage.exists(f"{folder}/{MODEL}"):
            raise UsageError(
                f"Sweep {sweep_id!r} of {dataset} {task} has no trial {number!r} with a model.",
                "See its table of trials.",
            )
        return folder
    folder = run_record.run_dir(dataset, task, run_id)
    if run_record.exists(storage, folder):
        return folder
    other = run_record.find_run(storage, run_id)
    where = f"Run {run_id!r} is in {other}, not of {dataset} {task}." if other else f"There is no run {run_id!r}."
    raise UsageError(where, f"List the runs of {dataset}: histoline runs list {dataset}.")


@dataclasses.dataclass(frozen=True)
class _Told:
    """What a run, or a trial's model, says of itself: recipe, data, and the model's digest where it was noted."""

    name: str
    config: TrainingConfig
    content_digest: str
    model: str


def _told(storage: Storage, folder: str, name: str) -> _Told:
    if "/" not in name:
        record = run_record.read(storage, folder)
        config = TrainingConfig.from_dict(dict(record.config))
        return _Told(name, config, record.content_digest, record.digests.get("model", ""))
    try:
        facts = json.loads(storage.read_bytes(f"{folder}/model/assets.extra/histoline.json"))
        return _Told(name, TrainingConfig.from_dict(facts["config"]), str(facts["content_digest"]), "")
    except (ValueError, KeyError, TypeError):
        raise DataError(f"The model of trial {name!r} does not say what it is.", "Train its recipe again.") from None


def _checked(storage: Storage, folder: str, run_id: str, manifest: Manifest, splits: dict[str, set[str]]) -> str:
    """The digest of a member's model, where it may be one."""
    told = _told(storage, folder, run_id)
    unit = manifest.group_unit
    if not storage.exists(f"{folder}/{MODEL}"):
        raise _gone(storage, folder)
    local = storage.local_tree(f"{folder}/model")
    for name, of in GROUPS.items():
        try:
            seen = {str(group) for group in json.loads((local.parent / name).read_bytes())}
        except (OSError, ValueError, TypeError):
            raise DataError(
                f"The model of run {run_id!r} does not say which {unit}s it was trained on.", "Train it again."
            ) from None
        tested = sorted(seen & splits["test"])
        if tested:
            raise UsageError(
                f"Run {run_id!r} was trained on {plural(len(tested), unit)} of the test split, such as"
                f" {tested[0]}:"
                " the ensemble could not be judged on it.",
                "Name runs that were trained on this data set (runs compare shows what runs have in common).",
            )
        if seen != set().union(*(splits[split] for split in of)):
            raise _other_data(run_id, unit)
    if told.content_digest != manifest.content_digest:
        raise _other_data(run_id, unit)
    digest = model_digest(local)
    if told.model not in ("", digest):
        raise _changed(Member(run_id))
    return digest


def _groups(storage: Storage, dataset_dir: str) -> dict[str, set[str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(storage.local_copy(f"{dataset_dir}/patches.parquet"), columns=["group_id", "split"])
    found: dict[str, set[str]] = {"train": set(), "eval": set(), "test": set()}
    for row in table.group_by(["group_id", "split"]).aggregate([]).to_pylist():
        found[row["split"]].add(row["group_id"])
    return found


def _gone(storage: Storage, folder: str) -> UsageError:
    return UsageError(
        f"Run {folder.rsplit('/', 1)[1]!r} has no model any more ({storage.uri(folder)}).",
        "Train it again, or name other runs: histoline runs list.",
    )


def _changed(member: Member) -> UsageError:
    return UsageError(
        f"The model of run {member.run_id!r} is not the one that was there before: its files have changed.",
        "Train it again under another name, and name that run.",
    )


def _other_data(run_id: str, unit: str) -> UsageError:
    return UsageError(
        f"Run {run_id!r} was trained on other {unit}s, or other patches of them, than this data set's train and eval.",
        "Name runs of one data set, and that data set with --data; train the others again on it.",
    )
