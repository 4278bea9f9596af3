"""What an evaluation by folds reads: every patient as the test of the one fold that has never seen it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.array_types import Array, Integers
from components.datasets.manifest import Manifest
from components.datasets.sidecars import read_sidecars, shard_files
from components.metrics.point import binary_metrics, multiclass_metrics
from components.promotion import champion as champions
from components.promotion.champion import Champion
from components.promotion.evaluation_inputs import (
    MEASURED,
    EvaluationInputs,
    own_facts,
    promoted_models,
    undone,
)
from components.promotion.scoring_process import COLUMNS
from components.promotion.served_model import read_train_groups
from components.splits.fold_assignment import FoldAssignment
from components.storage.base import Storage
from components.training.fold_plan import read_folds
from components.training.fold_training import FOLDS
from components.training.run_types import FoldRecord, FoldsRecord, RunRecord
from components.training.trainer import RESULT
from schemas.tables import COLOUR_COLUMNS


@dataclasses.dataclass(frozen=True)
class Member:
    """One fold's model.

    Attributes:
        fold: Its number.
        folder: Local folder of the exported model.
        facts: What it says of itself.
        trained_on: Groups that it was fitted or tuned on.
        epochs_run: Epochs that were trained.
    """

    fold: int
    folder: Path
    facts: Mapping[str, Any]
    trained_on: frozenset[str]
    epochs_run: int


@dataclasses.dataclass(frozen=True)
class FoldInputs(EvaluationInputs):
    """As `EvaluationInputs`; `test` is every patch that a fold tests, and `train` is all that any fold fits or tests.

    Attributes:
        folds: Who is where.
        members: The folds' models, in order.
        fold: Fold that tests each row of `test`, [N].
        holdout: Columns of `test` for the patches that no fold saw; None without them.
    """

    folds: FoldAssignment = dataclasses.field(kw_only=True)
    members: tuple[Member, ...] = dataclasses.field(kw_only=True)
    fold: Integers = dataclasses.field(kw_only=True)
    holdout: pa.Table | None = dataclasses.field(default=None, kw_only=True)

    @property
    def tables(self) -> dict[str, pa.Table]:
        """What is measured, by name: `test` out of fold, and `holdout` by the served model."""
        return {"test": self.test, **({} if self.holdout is None else {"holdout": self.holdout})}

    def threshold(self, split: str) -> float | Array | None:
        """Out of fold each patch is cut at the threshold of the model that scored it."""
        if self.n_classes > 2 or split != "test":
            return super().threshold(split)
        cuts: Array = np.array([float(member.facts["threshold"]) for member in self.members], np.float32)
        own: Array = cuts[self.fold - 1]
        return own

    def uncalibrated(self, split: str, probability: Array) -> Array:
        """Probabilities without temperature and bias of the models that gave them."""
        if split != "test":
            return undone(probability, self.facts)
        raw = np.array(probability, float)
        for member in self.members:
            mine = self.fold == member.fold
            raw[mine] = undone(probability[mine], member.facts)
        return raw

    def fold_train(self, fold: int) -> pa.Table:
        """Rows of `train` that a fold's model is fitted on."""
        split_of = self.folds.split_of(fold)
        return self.train.filter(pa.array([split_of.get(g) == "train" for g in self.train["group_id"].to_pylist()]))

    def measured(self, probability: Array) -> FoldsRecord:
        """What run.json says of the folds.

        Args:
            probability: Out of fold, of each row of `test`.
        """
        assert self.record.folds is not None
        labels, cuts = self.test["label"].to_numpy(), self.threshold("test")
        members = []
        for member in self.members:
            mine, places = self.fold == member.fold, list(self.folds.split_of(member.fold).values())
            if isinstance(cuts, np.ndarray):
                figure = binary_metrics(labels[mine], probability[mine], cuts[mine])["auc"]
            else:
                figure = multiclass_metrics(labels[mine], probability[mine])["macro_f1"]
            threshold = member.facts.get("threshold")
            members.append(
                FoldRecord(
                    fold=member.fold,
                    train=places.count("train"),
                    eval=places.count("eval"),
                    test=places.count("test"),
                    patches=int(mine.sum()),
                    epochs_run=member.epochs_run,
                    temperature=float(member.facts["temperature"]),
                    threshold=None if threshold is None else float(threshold),
                    figure=float(figure) if math.isfinite(figure) else None,
                )
            )
        return dataclasses.replace(self.record.folds, members=tuple(members))


def read_inputs(
    storage: Storage, run_dir: str, record: RunRecord, manifest: Manifest, champion: Champion | None
) -> FoldInputs:
    """As `components.promotion.evaluation_inputs.read_inputs`, of a run that decides by folds.

    Raises:
        DataError: The data set, a fold, or a promoted model, is damaged or gone.
    """
    folds = read_folds(storage, run_dir)
    rows = _rows(storage, record.dataset_dir, manifest)
    groups = rows["group_id"].to_pylist()
    tested = folds.fold_of()
    fold = np.array([tested.get(group, 0) for group in groups], np.int64)
    model_dir = storage.local_tree(f"{run_dir}/model")
    facts, _, problem = own_facts(model_dir, record.content_digest)
    members = []
    for number in range(1, folds.folds + 1):
        folder = storage.local_tree(f"{run_dir}/{FOLDS}/{number}/model")
        own, trained_on, wrong = own_facts(folder, record.content_digest)
        problem = problem or (f"fold {number}: {wrong}" if wrong else "")
        members.append(Member(number, folder, own, trained_on, _epochs(folder)))
    # None, unless a fold's model was trained on what it is to be measured on.
    seen = {group for group, number in tested.items() if group in members[number - 1].trained_on}
    holdout = None
    if folds.holdout == "test":
        held_out = set(folds.held_out) - (read_train_groups(model_dir) or frozenset())
        holdout = rows.filter(pa.array([group in held_out for group in groups]))
    return FoldInputs(
        record=record,
        manifest=manifest,
        promoted=promoted_models(storage, champions.home(record.dataset, record.task), champion),
        model_dir=model_dir,
        facts=facts,
        trained_on=frozenset(seen),
        problem=problem,
        shards={},
        train=rows.filter(pa.array([group in folds.groups for group in groups])),
        eval=None,
        test=rows.filter(pa.array(fold > 0)),
        folds=folds,
        members=tuple(members),
        fold=fold[fold > 0],
        holdout=holdout,
    )


def _rows(storage: Storage, dataset_dir: str, manifest: Manifest) -> pa.Table:
    """All records of a data set, and in `file` the local shard that holds each."""
    tables = []
    wanted = dict.fromkeys((*COLUMNS, "pixel_hash", *MEASURED, *COLOUR_COLUMNS))
    for split in manifest.splits:
        pairs = shard_files(manifest, dataset_dir, split)
        local = storage.local_copies([name for pair in pairs for name in pair])
        for shard, sidecar in zip(local[::2], local[1::2], strict=True):
            table = read_sidecars([sidecar], list(wanted))
            tables.append(table.append_column("file", pa.array([str(shard)] * len(table), pa.string())))
    return pa.concat_tables(tables)


def _epochs(folder: Path) -> int:
    try:
        document = json.loads((folder / "assets.extra" / RESULT).read_text(encoding="utf-8"))
        return int(document["result"]["epochs_run"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def kept_out_of_fold(folder: Path, patch_ids: Array, labels: Array, hashes: Array) -> Array | None:
    """What a promoted version said out of fold of some patches: [N] or [N, C], NaN where it has said nothing.

    Args:
        folder: Of the version.
        patch_ids: [N].
        labels: Class number of each, [N]; where the version had another one, what it said does not count.
        hashes: Hash of each one's pixels, [N]; likewise.

    Returns:
        None where the version does not hold such a table.
    """
    from components.promotion.prediction_tables import probability_values

    file = folder / champions.OUT_OF_FOLD
    if not file.is_file():
        return None
    table = pq.read_table(file)
    theirs = probability_values(table["probability"])
    keys = zip(table["patch_id"].to_pylist(), table["label"].to_pylist(), table["pixel_hash"].to_pylist(), strict=True)
    place = {key: row for row, key in enumerate(keys)}
    rows = np.array([place.get(key, -1) for key in zip(patch_ids, labels.tolist(), hashes, strict=True)], np.int64)
    found = np.full((len(rows), *theirs.shape[1:]), np.nan, np.float32)
    found[rows >= 0] = theirs[rows[rows >= 0]]
    return found
