"""What an evaluation reads: run, data set, exported model and promoted models, as values. Nothing is decided here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.datasets.manifest import Manifest
from components.datasets.sidecars import read_split, shard_files
from components.promotion import champion as champions
from components.promotion.champion import Champion, Promotion
from components.promotion.scoring_process import SPLITS
from components.promotion.served_model import NotServable, read_facts, read_fitted_groups, read_train_groups
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
    """

    entry: Promotion
    folder: Path
    trained_on: frozenset[str] | None
    fitted_on: frozenset[str] | None = None
    by_gate: bool = True


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
        train: Groups, labels and colour features of the train split.
        eval: Columns `MEASURED` of the eval split.
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
    eval: pa.Table
    test: pa.Table

    @property
    def n_classes(self) -> int:
        """Classes of the task."""
        return len(self.manifest.classes)


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
    facts, trained_on, problem = _own_facts(model_dir, record.content_digest)
    return EvaluationInputs(
        record=record,
        manifest=manifest,
        promoted=_promoted_models(storage, champions.home(record.dataset, record.task), champion),
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


def _promoted_models(storage: Storage, home: str, champion: Champion | None) -> dict[str, PromotedModel]:
    models = {}
    for name, entry in champions.compared(champion).items():
        folder = champions.version_dir(storage, home, entry.version)
        by_gate = champion is not None and champion.origin(entry).promoted_by == "gate"
        models[name] = PromotedModel(entry, folder, read_train_groups(folder), read_fitted_groups(folder), by_gate)
    return models


def _own_facts(model_dir: Path, content_digest: str) -> tuple[dict[str, Any], frozenset[str], str]:
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
