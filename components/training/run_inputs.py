"""What a training run starts from: data set, recipe and options, settled and frozen before anything heavy is loaded."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.datasets import manifest as manifests
from components.datasets.latest_pointer import read_latest
from components.datasets.manifest import Manifest
from components.errors import UsageError
from components.splits.fold_assignment import FoldAssignment
from components.storage.base import Storage
from components.training import presets, run_record
from components.training.ensemble import settle_members
from components.training.fold_plan import freeze_folds, frozen, settle_folds
from components.training.recipe import TrainingConfig
from components.training.run_types import RunRecord
from components.training.source_digest import library_versions, source_digest
from components.version import __version__

FINAL = ("promoted", "refused")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything that decides on a run's outcome.

    Attributes:
        dataset: Name of the data set.
        task: Task.
        dataset_dir: Folder of the data set, relative to the workspace.
        manifest: Its manifest.
        config: The recipe.
        options: What is no part of the recipe: `accept_drift`, `drift_thresholds`, `beam_args`, `on_infeasible`.
        folds: Who is where, of a recipe that decides by folds.
    """

    dataset: str
    task: str
    dataset_dir: str
    manifest: Manifest
    config: TrainingConfig
    options: Mapping[str, Any]
    folds: FoldAssignment | None = None

    def digest(self) -> str:
        """SHA-256 over data (by content), recipe and code: equal means that nothing has changed."""
        parts = [
            self.dataset,
            self.task,
            self.manifest.content_digest,
            self.config.digest(),
            source_digest(),
            *([self.folds.digest()] if self.folds else []),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def new_run_id(model: str) -> str:
    """A RUN_ID that sorts by time and tells the model."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{now:%Y%m%d-%H%M%S}-{model}-{secrets.token_hex(2)}"


def find_dataset(storage: Storage, dataset: str, task: str, data: str = "") -> tuple[str, Manifest]:
    """The data set to train on: the one that is named, or the latest.

    Args:
        storage: The workspace.
        dataset: Name.
        task: Task.
        data: A data set's folder inside the workspace (absolute, relative, or PLAN_ID); empty for the latest.

    Returns:
        Folder relative to the workspace, and the manifest.

    Raises:
        UsageError: There is none, it lies outside the workspace, or it is of another data set or task.
        DataError: Its manifest is damaged.
    """
    home = f"datasets/{dataset}/{task}"
    if not data:
        latest = read_latest(storage, home)
        if latest is None:
            raise UsageError(
                f"{storage.uri(home)} holds no data set to train on by default.",
                f"Run: histoline ingest {dataset} --input DIR --task {task}; or name one with --data.",
            )
        folder = latest.dataset_dir
    else:
        folder = _inside(storage, home, data)
    manifest = manifests.load(storage, folder)
    if (manifest.dataset, manifest.task) != (dataset, task):
        raise UsageError(
            f"{storage.uri(folder)} is {manifest.dataset} {manifest.task}, not {dataset} {task}.",
            "Name another folder with --data, or train for its data set and task.",
        )
    return folder, manifest


def _inside(storage: Storage, home: str, data: str) -> str:
    if "/" not in data and storage.exists(f"{home}/{data}/{manifests.NAME}"):
        return f"{home}/{data}"
    whole = data.rstrip("/") if "://" in data else str(Path(data).resolve())
    root = storage.root if "://" in storage.root else str(Path(storage.root).resolve())
    if not whole.startswith(f"{root}/"):
        raise UsageError(
            f"{data!r} is no data set of the workspace {storage.root}.",
            "Give a folder (or PLAN_ID) under its datasets/, or another --workspace.",
        )
    return whole[len(root) + 1 :]


def choose_config(
    dataset: str,
    task: str,
    preset: str = "",
    model: str = "",
    overrides: Mapping[str, str] | None = None,
    *,
    folder: Path,
) -> TrainingConfig:
    """The recipe: the named preset, else one made for the model, else the default of the data set.

    Args:
        dataset: Name of the data set.
        task: Task.
        preset: Name or YAML file; empty to choose.
        model: Name in the registry; empty for the preset's.
        overrides: Dotted names to YAML values.
        folder: Where presets lie.

    Raises:
        UsageError: No such preset or model, or wrong fields.
    """
    changes = dict(overrides or {})
    if not preset:
        default = presets.DEFAULTS.get((dataset, task))
        if default is None:
            raise UsageError(
                f"There is no recipe for {dataset} {task} by default.", "Name one with --preset."
            )
        infos = presets.infos(folder)
        made = [i.name for i in infos if (i.dataset, i.task, i.model) == (dataset, task, model)]
        preferred = [name for name in made if not name.endswith("_quick")]
        preset = default if not made or default in made else (preferred or made)[0]
    if model:
        changes["model"] = model
    return presets.from_preset(preset, changes, folder=folder)


def settle(
    storage: Storage, dataset: str, task: str, data: str, config: TrainingConfig, options: Mapping[str, Any]
) -> Inputs:
    """Brings data set and recipe together and checks that they fit.

    Raises:
        UsageError: They don't, there is no data set, or a member of an ensemble does not belong on it.
        DataError: The manifest is damaged, or a class has too few groups for so many folds.
    """
    folder, manifest = find_dataset(storage, dataset, task, data)
    width, height = manifest.stored_size
    region = manifest.label_region
    config.check_data(dataset, task, height, width, region)
    config = settle_members(storage, dataset, task, folder, manifest, config)
    for split, facts in manifest.splits.items():
        if not facts.patches:
            raise UsageError(f"{storage.uri(folder)} has no patches in {split}.", "Ingest more patients.")
    folds = None
    if config.decision == "folds":
        folds = settle_folds(storage, folder, manifest, config, str(options.get("on_infeasible", "fail")))
    return Inputs(dataset, task, folder, manifest, config, options, folds)


def freeze(storage: Storage, folder: str, inputs: Inputs) -> RunRecord:
    """Writes run.json of a new run, or gives that of the same run back.

    Args:
        storage: The workspace.
        folder: Of the run, locked by the caller.
        inputs: What the run starts from.

    Raises:
        UsageError: A run of this name was begun with other data or another recipe.
    """
    if run_record.exists(storage, folder):
        record = run_record.read(storage, folder)
        # Fields that an older version did not know have the value that they then had.
        frozen_config = {**json.loads(TrainingConfig().to_json()), **record.config}
        same = (
            frozen_config == json.loads(inputs.config.to_json())
            and record.dataset_dir == inputs.dataset_dir
            and record.manifest_digest == inputs.manifest.manifest_digest
        )
        if same and record.options == inputs.options and record.decision_by == inputs.config.decision:
            return record
        # Until training has begun nothing depends on what was frozen: drift may be accepted now, say.
        if "train" in record.stages:
            other = "other options" if same else "other data or another recipe"
            raise UsageError(
                f"Run {folder.rsplit('/', 1)[1]!r} was begun with {other}.",
                "Choose another --run-id, or none.",
            )
    digests = {
        "inputs": inputs.digest(),
        "source": source_digest(),
        "config": inputs.config.digest(),
        "recipe": inputs.config.making_digest(),
    }
    record = run_record.create(
        storage,
        folder,
        config=json.loads(inputs.config.to_json()),
        dataset_dir=inputs.dataset_dir,
        manifest=inputs.manifest,
        options=inputs.options,
        digests=digests,
    )
    changes: dict[str, Any] = {}
    if inputs.folds is not None:
        freeze_folds(storage, folder, inputs.folds)
        changes = {"decision_by": "folds", "folds": frozen(inputs.folds, inputs.config.serve)}
        changes["digests"] = {"folds": inputs.folds.digest()}
    return run_record.update(
        storage, folder, versions={"histoline": __version__, **library_versions()}, **changes
    )


def find_same(storage: Storage, folder: str, digest: str) -> RunRecord | None:
    """The newest finished run with these very inputs, which the gate has decided on; None where there is none.

    Args:
        storage: The workspace.
        folder: Of the run at hand, which does not count.
        digest: Of `Inputs.digest`.
    """
    home = folder.rsplit("/", 1)[0]
    found = None
    for name in storage.list_dirs(home):
        other = f"{home}/{name}"
        if other == folder or not storage.exists(f"{other}/{run_record.NAME}"):
            continue
        try:
            record = run_record.read(storage, other)
        except Exception:  # a damaged record is no reason to stop; it is not the same run
            continue
        same = record.digests.get("inputs") == digest
        if same and record.state == "done" and record.decision in FINAL:
            found = record if found is None or record.created > found.created else found
    return found
