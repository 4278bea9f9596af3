"""What an evaluation reads: run, data set, exported model and promoted models, as values. Nothing is decided here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.array_types import Array
from components.datasets.manifest import Manifest
from components.datasets.sidecars import read_split, shard_files
from components.metrics.calibration import undo_calibration
from components.promotion import champion as champions
from components.promotion.champion import Champion, Promotion
from components.promotion.scoring_process import SPLITS
from components.promotion.served_model import NotServable, read_facts, read_fitted_groups, read_train_groups
from components.splits.fold_assignment import NAME, FoldAssignment
from components.storage.base import Storage
from components.training.run_types import RunRecord
from schemas.tables import COLOUR_COLUMNS

MEASURED = ("group_id", "label", "magnification", "tumor_type")


@dataclasses.dataclass(frozen=True)
class PromotedModel:
    """A promoted model that the candidate is compared with.

    Attributes:
        entry: Its promotion.
        folder: Local folder of the version.
        trained_on: Groups that it was fitted or tuned on; None where it does not say.
        fitted_on: Groups that it was fitted on; None where it does not say.
        by_gate: The gate first promoted it; not a hand.
        measured_on: Groups that it was measured on out of fold; None where it was decided by a test split.
        folds: Number of its folds and what was held out of them (`none` or `test`); None where that is not known.
    """

    entry: Promotion
    folder: Path
    trained_on: frozenset[str] | None
    fitted_on: frozenset[str] | None = None
    by_gate: bool = True
    measured_on: frozenset[str] | None = None
    folds: tuple[int, str] | None = None

    def groups_beyond(self, groups: Array) -> int:
        """How many groups it was measured on out of fold that are not among some."""
        return len((self.measured_on or frozenset()) - frozenset(np.unique(groups).tolist()))


@dataclasses.dataclass(frozen=True)
class EvaluationInputs:
    """Everything that an evaluation depends on, beside the models' answers.

    Attributes:
        record: run.json of the run.
        manifest: Of its data set.
        promoted: `champion` and `best_ever`, those that there are.
        model_dir: Local folder of the exported model.
        facts: What the exported model says of itself; empty where that can't be read.
        trained_on: Groups that it was fitted or tuned on.
        problem: What is wrong with either, as a clause; empty where nothing is.
        shards: Split to local (shard, sidecar) files, for eval and test.
        train: Groups, labels and colour features of what the model was fitted on.
        eval: Columns `MEASURED` of the eval split; None where there is none that all was tuned on.
        test: Columns `MEASURED`, names, pixel hashes and colour features of the test split.
    """

    record: RunRecord
    manifest: Manifest
    promoted: Mapping[str, PromotedModel]
    model_dir: Path
    facts: Mapping[str, Any]
    trained_on: frozenset[str]
    problem: str
    shards: Mapping[str, list[tuple[str, str]]]
    train: pa.Table
    eval: pa.Table | None
    test: pa.Table

    @property
    def n_classes(self) -> int:
        """Classes of the task."""
        return len(self.manifest.classes)

    @property
    def tables(self) -> dict[str, pa.Table]:
        """What is measured, by name."""
        return {**({} if self.eval is None else {"eval": self.eval}), "test": self.test}

    @property
    def comparable(self) -> dict[str, PromotedModel]:
        """The promoted models that were decided by what this run is decided by."""
        return {n: model for n, model in self.promoted.items() if model.entry.decision_by == self.record.decision_by}

    def threshold(self, split: str) -> float | Array | None:
        """Cut of the model, or of each patch's own model, on one of `tables`; None for several classes."""
        return None if self.n_classes > 2 else float(self.facts["threshold"])

    def uncalibrated(self, split: str, probability: Array) -> Array:
        """Probabilities of one of `tables` without temperature and bias."""
        return undone(probability, self.facts)


def undone(probability: Array, facts: Mapping[str, Any]) -> Array:
    """Probabilities of a model without the temperature and bias that it says it has."""
    bias = facts.get("bias")
    return undo_calibration(probability, facts.get("temperature") or 1.0, 0.0 if bias is None else bias)


def read_inputs(
    storage: Storage, run_dir: str, record: RunRecord, manifest: Manifest, champion: Champion | None
) -> EvaluationInputs:
    """Reads all that an evaluation depends on.

    Args:
        storage: The workspace.
        run_dir: Folder of the run, relative to it.
        record: Its run.json.
        manifest: Of its data set.
        champion: Of the data set and task; None where nothing was promoted.

    Raises:
        DataError: The data set, or a promoted model, is damaged or gone.
    """

    def read(split: str, *columns: str) -> pa.Table:
        return read_split(storage, record.dataset_dir, manifest, split, columns)

    model_dir = storage.local_tree(f"{run_dir}/model")
    facts, trained_on, problem = own_facts(model_dir, record.content_digest)
    return EvaluationInputs(
        record=record,
        manifest=manifest,
        promoted=promoted_models(storage, champions.home(record.dataset, record.task), champion),
        model_dir=model_dir,
        facts=facts,
        trained_on=trained_on,
        problem=problem,
        shards={split: _local_shards(storage, record.dataset_dir, manifest, split) for split in SPLITS},
        train=read("train", "group_id", "label", *COLOUR_COLUMNS),
        eval=read("eval", *MEASURED),
        test=read("test", "patch_id", "pixel_hash", *MEASURED, *COLOUR_COLUMNS),
    )


def _local_shards(storage: Storage, dataset_dir: str, manifest: Manifest, split: str) -> list[tuple[str, str]]:
    pairs = shard_files(manifest, dataset_dir, split)
    local = [str(path) for path in storage.local_copies([name for pair in pairs for name in pair])]
    return list(zip(local[::2], local[1::2], strict=True))


def promoted_models(storage: Storage, home: str, champion: Champion | None) -> dict[str, PromotedModel]:
    """Champion and best ever, those that there are.

    Raises:
        DataError: One is gone or damaged.
    """
    models = {}
    for name, entry in champions.compared(champion).items():
        folder = champions.version_dir(storage, home, entry.version)
        by_gate = champion is not None and champion.origin(entry).promoted_by == "gate"
        by_folds = entry.decision_by == "folds"
        models[name] = PromotedModel(
            entry, folder, read_train_groups(folder), read_fitted_groups(folder), by_gate,
            _measured_on(folder) if by_folds else None, _folds(folder) if by_folds else None,
        )  # fmt: skip
    return models


def _measured_on(folder: Path) -> frozenset[str]:
    """Groups that a version decided by folds was measured on; none where it does not say."""
    file = folder / champions.OUT_OF_FOLD
    if not file.is_file():
        return frozenset()
    return frozenset(pq.read_table(file, columns=["group_id"])["group_id"].to_pylist())


def _folds(folder: Path) -> tuple[int, str] | None:
    """Number and holdout of the folds that a version was decided by; None where it does not say."""
    try:
        found = FoldAssignment.from_bytes((folder / "assets.extra" / NAME).read_bytes(), str(folder))
    except FileNotFoundError:
        return None
    return found.folds, found.holdout


def own_facts(model_dir: Path, content_digest: str) -> tuple[dict[str, Any], frozenset[str], str]:
    """The model's own facts, the groups that it was trained on, and what is wrong with either."""
    try:
        facts = read_facts(model_dir)
    except NotServable as error:
        return {}, frozenset(), str(error)
    trained_on = read_train_groups(model_dir)
    if trained_on is None:
        return facts, frozenset(), "it does not say which groups it was trained on"
    same = facts.get("content_digest", content_digest) == content_digest
    return facts, trained_on, "" if same else "it says that it was trained on another data set"
