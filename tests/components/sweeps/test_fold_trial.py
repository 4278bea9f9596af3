"""Folds of a trial: pooled in one order, each model at its own cut, never a patient of the test split."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.datasets.committed import open_dataset
from components.datasets.fold_view import regroup
from components.splits.fold_assignment import FoldAssignment, FoldPlace
from components.storage.open import open_storage
from components.sweeps import fold_trial, record, scoring
from components.sweeps.tuning_data import open_tuning
from components.training import fold_training
from components.training.fold_plan import read_folds
from pipelines import sweep_steps
from tests.support.training_help import dataset

GIVEN = {"data": "", "recipes": "idc_quick", "search_file": "", "oracle": None, "trials": None, "minutes": None,
         "seed": 0, "metadata": "", "folds": 3}  # fmt: skip


def test_calls_are_those_of_each_folds_own_cut() -> None:
    rng = np.random.default_rng(0)
    probability = np.concatenate([rng.random(200), [0.3, 0.7, 0.0, 1.0]]).astype(np.float32)
    cuts = np.concatenate([rng.choice([0.3, 0.7], 200), [0.3, 0.7, 0.3, 0.7]])
    moved = fold_trial.centred(probability, cuts)
    assert np.array_equal(moved >= 0.5, probability >= cuts) and (moved >= 0).all() and (moved <= 1).all()
    same = cuts == 0.3
    assert np.array_equal(np.argsort(moved[same], kind="stable"), np.argsort(probability[same], kind="stable"))


def test_the_folds_are_pooled_by_patch_and_measured_once(tmp_path: Path) -> None:
    folds = FoldAssignment(1, 2, "test", "", "patient", "", (), (), {"a": FoldPlace(1, ()), "b": FoldPlace(2, ())})
    parts = {1: (["p3", "p1"], [1, 0], [0.8, 0.4]), 2: (["p2", "p4"], [0, 1], [0.1, 0.35])}
    for fold, (names, labels, values) in parts.items():
        file = fold_training.fold_dir(tmp_path, fold) / fold_training.OUT_OF_FOLD
        file.parent.mkdir(parents=True)
        group = ["a" if fold == 1 else "b"] * 2
        pq.write_table(pa.table({"patch_id": names, "group_id": group, "label": labels, "probability": values}), file)
    results = [
        types.SimpleNamespace(threshold=cut, history={"val_auc": curve}, epochs_run=n, parameters=7, pixels=9)
        for cut, curve, n in ((0.5, [0.5, 0.7, 0.9], 3), (0.3, [0.7, 0.9], 2))
    ]
    found = fold_trial._pooled(folds, tmp_path, results, "val_auc")
    assert found.table["patch_id"].to_pylist() == ["p1", "p2", "p3", "p4"]
    assert found.probability.tolist() == [0.4, 0.1, 0.8, 0.35]
    assert np.allclose(found.curve, (0.6, 0.8)) and (found.epochs, found.parameters, found.pixels) == (5, 7, 9)
    assert found.centred is not None
    scored = scoring.of_folds(found.table, found.probability, found.centred)
    assert scored.figures["auc"]["estimate"] == 0.75  # of the probabilities as they are
    assert scored.figures["accuracy"]["estimate"] == 1.0  # each at its own cut


def test_planned_folds_keep_the_test_split_out_and_a_fold_of_it_is_read(tmp_path: Path) -> None:
    folder = dataset(tmp_path, patients=20, per_class=2)
    storage = open_storage(tmp_path / "ws")
    home = record.sweep_dir("idc", "binary", "s")
    assert sweep_steps.begin(storage, home, GIVEN).folds == 3
    folds, whole = read_folds(storage, home), open_dataset(folder)
    assert set(folds.held_out) == set(whole.groups("test"))
    assert set(folds.fold_of()) == set(whole.groups("train", "eval"))
    tuning = open_tuning(folder)
    tested: list[str] = []
    for fold in (1, 2, 3):
        view = regroup(tuning, folds.split_of(fold))
        tested += view.groups("test")
        assert not set(view.groups("train", "eval", "test")) & set(folds.held_out)
        assert all("Split-test" not in str(path) for split in view.splits.values() for path in split.shards)
    assert sorted(tested) == sorted(folds.fold_of())
    # The same again changes nothing; another number of folds is another sweep.
    assert sweep_steps.begin(storage, home, GIVEN).trials == record.read(storage, home).trials
