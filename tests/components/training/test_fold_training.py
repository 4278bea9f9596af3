"""The models of folds and what is served of them, trained for real in a moment."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.datasets.committed import DatasetFiles, open_dataset
from components.datasets.tfrecord import read_records
from components.errors import UsageError
from components.metrics.threshold import choose_threshold
from components.promotion.served_model import ServedModel, read_fitted_groups, read_train_groups
from components.splits.fold_assignment import FoldAssignment
from components.storage.open import open_storage
from components.training import fold_training, run_inputs
from components.training.fold_plan import local_folds
from components.training.fold_training import OUT_OF_FOLD, fold_dir, train_fold, train_folds
from components.training.recipe import TrainingConfig
from components.training.trainer import TrainResult
from tests.support.training_help import dataset, recipe

pytestmark = pytest.mark.integration
RUN = "runs/idc/binary/r"


@dataclasses.dataclass(frozen=True)
class Trained:
    data: DatasetFiles
    run: Path
    config: TrainingConfig
    result: TrainResult
    lines: list[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("folds")
    folder = dataset(home, 12, 3)
    config = recipe(2, decision="folds", folds=2, early_stopping={"monitor": "val_auc", "patience": 1})
    storage = open_storage(home / "ws")
    inputs = run_inputs.settle(storage, "idc", "binary", folder.name, config, {})
    run_inputs.freeze(storage, RUN, inputs)
    lines: list[str] = []
    data, run = open_dataset(folder), home / "ws" / RUN
    return Trained(data, run, config, train_folds(config, data, run, log=lines.append), lines)


def folds_of(trained: Trained) -> FoldAssignment:
    return local_folds(trained.run)


def test_each_fold_speaks_of_the_patients_that_it_has_never_seen(trained: Trained) -> None:
    folds, tested = folds_of(trained), []
    for fold in (1, 2):
        split_of = folds.split_of(fold)
        model = fold_dir(trained.run, fold) / "model"
        said = set(pq.read_table(fold_dir(trained.run, fold) / OUT_OF_FOLD)["group_id"].to_pylist())
        assert said == {group for group, split in split_of.items() if split == "test"}
        assert read_train_groups(model) == split_of.keys() - said
        assert read_fitted_groups(model) == {group for group, split in split_of.items() if split == "train"}
        tested += said
    assert sorted(tested) == trained.data.groups("train", "eval", "test")
    assert read_train_groups(trained.run / "model") == set(tested), "what is served has seen everyone"


def test_what_is_served_is_the_mean_of_the_folds_at_a_threshold_chosen_out_of_fold(trained: Trained) -> None:
    records = [data for _, data in read_records(trained.data.splits["test"].shards[0])][:8]
    answers = [ServedModel(fold_dir(trained.run, fold) / "model").probabilities([records]) for fold in (1, 2)]
    served = ServedModel(trained.run / "model")
    logits = np.mean([np.log(p / (1 - p)) for p in np.array(answers, float)], axis=0)
    np.testing.assert_allclose(served.probabilities([records]), 1 / (1 + np.exp(-logits)), atol=1e-5)
    tables = [pq.read_table(fold_dir(trained.run, fold) / OUT_OF_FOLD) for fold in (1, 2)]
    labels, said = (np.concatenate([table[name].to_numpy() for table in tables]) for name in ("label", "probability"))
    assert served.facts["threshold"] == trained.result.threshold == choose_threshold(labels, said)


def test_nothing_that_is_trained_is_trained_again(trained: Trained) -> None:
    lines: list[str] = []
    made = {file: file.stat().st_mtime_ns for file in trained.run.rglob("saved_model.pb")}
    assert train_folds(trained.config, trained.data, trained.run, log=lines.append) == trained.result
    assert len(lines) == 3 and all("already" in line for line in lines)
    assert {file: file.stat().st_mtime_ns for file in trained.run.rglob("saved_model.pb")} == made


def test_there_are_only_so_many_folds(trained: Trained) -> None:
    with pytest.raises(UsageError, match="2 folds"):
        train_fold(trained.config, trained.data, folds_of(trained), 3, trained.run)


def test_refitted_it_is_one_model_on_everyone_for_the_epochs_that_the_folds_found_best(trained: Trained) -> None:
    config = dataclasses.replace(trained.config, serve="refit")
    for fold in (1, 2):  # the folds' models are the same, whatever is served
        file = fold_dir(trained.run, fold) / "model" / "assets.extra" / "training.json"
        document = json.loads(file.read_text())
        data = fold_training.regroup(trained.data, folds_of(trained).split_of(fold))
        document["key"] = fold_training.run_key(config, data)
        document["result"] |= {"phase_epochs": [fold], "temperature": float(fold), "bias": 0.5 * fold}
        file.write_text(json.dumps(document))
    result = train_folds(config, trained.data, trained.run)
    assert result.epochs_run == 2 and not [name for name in result.history if name.startswith("val_")]
    assert result.temperature == pytest.approx(2**0.5) and result.bias == pytest.approx(0.75)
    assert result.threshold == trained.result.threshold
    assert read_fitted_groups(result.model_dir) == folds_of(trained).groups.keys()
    assert train_folds(config, trained.data, trained.run) == result
