from __future__ import annotations

import dataclasses
import json
import os
import signal
import types
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf

from components.datasets.committed import open_dataset
from components.errors import DataError, UsageError
from components.promotion.served_model import ServedModel
from components.training import checkpoints, run_fn, trainer
from components.training.trainer import read_result, train
from pipelines.tfx.schema import write_schema
from tests.support.training_help import dataset, python, recipe

pytestmark = pytest.mark.integration

TRAIN = """
import sys
from pathlib import Path
from components.training.trainer import train
from components.training.recipe import TrainingConfig
result = train(TrainingConfig.from_json(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), log=print)
"""

KILLED = """
import os, signal
from components.training import callbacks
class Killed(callbacks.NanGuard):
    def on_train_batch_end(self, batch, logs=None):
        if self._first + self._epoch == 1 and batch >= 1:
            os.kill(os.getpid(), signal.SIGKILL)
import components.training.loop
components.training.loop.NanGuard = Killed
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("idc"))


def variables(run: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(run / "model" / "variables" / "variables"))
    names = [n for n in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in n]
    return {name: reader.get_tensor(name) for name in names}


def history(run: Path) -> dict[str, list[float]]:
    result = read_result(run)
    assert result is not None
    return {k: v for k, v in result.history.items() if k != "seconds"}


@pytest.mark.e2e
def test_killed_in_epoch_2_and_run_again_it_ends_as_if_nothing_had_been(folder: Path, tmp_path: Path) -> None:
    # Two processes, same seed, same weights: determinism; one of them killed on its way: resume.
    config = recipe(
        3, 1, deterministic=True, augmentation="standard", options={"dropout": 0.3},
        early_stopping={"monitor": "val_loss", "patience": 9},
        ema=0.9, mixup=0.2, warmup_steps=2, max_train_per_class=20,
    ).to_json()  # fmt: skip
    whole = python(TRAIN, config, folder, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = python(KILLED + TRAIN, config, folder, tmp_path / "killed")
    assert killed.returncode == -signal.SIGKILL
    assert read_result(tmp_path / "killed") is None
    assert sorted(p.name for p in (tmp_path / "killed" / "checkpoints").glob("*.npz")) == ["epoch-00001.npz"]
    again = python(TRAIN, config, folder, tmp_path / "killed")
    assert again.returncode == 0, again.stderr
    assert "going on after epoch 1 of 4" in again.stdout and "epoch 1/4" not in again.stdout
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    assert [len(v) for v in history(tmp_path / "whole").values()] == [4] * len(history(tmp_path / "whole"))
    first, second = variables(tmp_path / "whole"), variables(tmp_path / "killed")
    assert first.keys() == second.keys() and len(first) > 10
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    run = tmp_path_factory.mktemp("run")
    lines: list[str] = []
    train(recipe(2, 1), folder, run, log=lines.append)
    return run, lines


def test_what_a_run_leaves(trained: tuple[Path, list[str]], folder: Path) -> None:
    run, lines = trained
    assert [line for line in lines if line.startswith("epoch 3/3, phase 2/2") and "val_auc" in line]
    result = read_result(run)
    assert result is not None and result.epochs_run == 3 and result.model_dir == run / "model"
    assert {"loss", "val_loss", "auc", "val_auc", "learning_rate", "seconds"} <= result.history.keys()
    assert result.history["val_auc"][-1] > 0.9
    facts = json.loads((run / "model" / "assets.extra" / "histoline.json").read_text())
    told = (result.temperature, result.bias, result.threshold)
    assert (facts["temperature"], facts["bias"], facts["threshold"]) == told
    assert set(result.calibration["before"]) == set(result.calibration["after"]) == {"ece", "log_loss", "brier"}
    assert result.calibration["groups"] > 0 and result.calibration["expected_bias"] == [0.0]
    assert result.calibration["after"]["log_loss"] <= result.calibration["before"]["log_loss"] + 1e-6
    assert list((run / "tensorboard" / "train").iterdir()) and list((run / "tensorboard" / "validation").iterdir())


def test_a_finished_run_is_not_done_again_but_another_recipe_is(trained: tuple[Path, list[str]], folder: Path) -> None:
    run, _ = trained
    lines: list[str] = []
    assert train(recipe(2, 1), folder, run, log=lines.append).epochs_run == 3
    assert len(lines) == 1 and "trained already" in lines[0]
    data = open_dataset(folder)
    assert trainer.run_key(recipe(2, 1), data) != trainer.run_key(recipe(2, 1, seed=6), data)


def test_temperature_and_threshold_are_those_of_the_exported_models_answers(
    trained: tuple[Path, list[str]], folder: Path
) -> None:
    from components.datasets.tfrecord import read_records
    from components.metrics.calibration import apply_calibration
    from components.metrics.threshold import choose_threshold
    from tests.support import ingest_help

    run, _ = trained
    result = read_result(run)
    assert result is not None
    records = [d for shard in sorted((folder / "Split-eval").iterdir()) for _, d in read_records(shard)]
    serve = tf.saved_model.load(str(run / "model")).signatures["serving_default"]
    probability = serve(examples=tf.constant(records))["probability"].numpy()
    by_id = {k: v[1]["label"] for k, v in ingest_help.examples(folder).items() if v[0] == "eval"}
    from components.datasets.example import decode_example

    labels = [by_id[decode_example(r)["patch_id"].decode()] for r in records]  # type: ignore[union-attr]
    assert result.threshold is not None
    assert choose_threshold(labels, probability) == pytest.approx(result.threshold, abs=1e-5)
    assert np.isfinite(apply_calibration(probability, result.temperature, result.bias)).all()


def test_run_fn_hands_model_and_logs_to_tfx(trained: tuple[Path, list[str]], folder: Path, tmp_path: Path) -> None:
    run, _ = trained
    args = types.SimpleNamespace(
        custom_config={"config": recipe(2, 1).to_dict(), "run_dir": str(run), "source_digest": "x"},
        train_files=[f"{folder}/Split-train/*"],
        eval_files=[f"{folder}/Split-eval/*"],
        schema_path=str(write_schema(open_dataset(folder).manifest, tmp_path / "schemas")),
        serving_model_dir=str(tmp_path / "artifact" / "Format-Serving"),
        model_run_dir=str(tmp_path / "model_run" / "1"),
    )  # fmt: skip
    for _ in range(2):  # a retry overwrites
        run_fn.run_fn(args)
    signatures = tf.saved_model.load(args.serving_model_dir).signatures
    assert signatures.keys() == {"serving_default", "serve_bytes", "bulk_inference"}
    assert (tmp_path / "artifact" / "Format-Serving" / "assets.extra" / "histoline.json").is_file()
    assert (tmp_path / "model_run" / "1" / "train").is_dir()
    assert not (tmp_path / "artifact" / ".tmp").exists()


def test_early_stopping_goes_back_to_the_best_epoch(folder: Path, tmp_path: Path) -> None:
    # A rate of 0 after the first phase: nothing gets better, so patience ends the phase.
    config = recipe(8, early_stopping={"monitor": "val_accuracy", "patience": 1})
    config = dataclasses.replace(config, phases=(dataclasses.replace(config.phases[0], learning_rate=0.0),))
    lines: list[str] = []
    result = train(config, folder, tmp_path, log=lines.append)
    assert result.epochs_run == 2
    assert any(line.startswith("back to epoch 1: val_accuracy") for line in lines)


def test_a_fine_tuning_phase_that_harms_does_not_win(folder: Path, tmp_path: Path) -> None:
    config = recipe(3, 2, early_stopping={"monitor": "val_auc", "patience": 9})
    harmful = dataclasses.replace(config.phases[1], learning_rate=0.3)
    config = dataclasses.replace(config, phases=(config.phases[0], harmful))
    lines: list[str] = []
    result = train(config, folder, tmp_path, log=lines.append)
    aucs = result.history["val_auc"]
    best = 1 + max(range(5), key=lambda epoch: aucs[epoch])  # the first of the best
    assert best <= 3 and max(aucs[3:]) < aucs[best - 1], "the second phase was meant to harm"
    assert [line for line in lines if line.startswith("back to epoch")][-1].startswith(f"back to epoch {best}: val_auc")


def test_a_later_phase_is_given_its_patience() -> None:
    # The best epoch was the second of the first phase, which had five; the next phase has just begun.
    assert checkpoints.Position("k", epoch=5, phase=1, phase_epoch=0, best_epoch=2).waited == 0
    assert checkpoints.Position("k", epoch=6, phase=1, phase_epoch=1, best_epoch=2).waited == 1
    assert checkpoints.Position("k", epoch=6, phase=1, phase_epoch=1, best_epoch=6).waited == 0


def test_calibration_and_scoring_are_done_in_true_float32(folder: Path, tmp_path: Path) -> None:
    tf.config.experimental.enable_tensor_float_32_execution(True)
    train(recipe(1), folder, tmp_path)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(True)
    ServedModel(tmp_path / "model")  # what scores and what the gate compares with
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_sampling_and_class_weights_move_the_bias_back(tmp_path: Path) -> None:
    folder = dataset(tmp_path, rare=True)
    for i, given in enumerate(({"sampling": "balanced"}, {"class_weights": "balanced"})):
        result = train(recipe(1, **given), folder, tmp_path / str(i))
        assert result.epochs_run == 1
        # One of five patches is positive: the odds were made four times too high.
        assert result.calibration["expected_bias"] == pytest.approx([-np.log(4)], abs=1e-3)
        assert result.bias == pytest.approx(-np.log(4), abs=0.6)
        assert result.calibration["before"]["log_loss"] > result.calibration["after"]["log_loss"] - 0.05


def test_a_loss_that_is_no_number_ends_with_exit_65_and_the_batchs_statistics(folder: Path, tmp_path: Path) -> None:
    import keras

    from components.training import models

    keras.utils.set_random_seed(0)
    model = models.build("cnn_105k", (50, 50, 3), 2)
    model.get_layer("head_dense").kernel.assign(np.full((256, 128), np.nan, np.float32))
    model.save_weights(tmp_path / "broken.weights.h5")
    config = recipe(2, options={"weights": str(tmp_path / "broken.weights.h5")})
    with pytest.raises(DataError, match=r"(loss|weights) became nan in epoch 1, batch 1: .*mean 1\d\d") as caught:
        train(config, folder, tmp_path / "run")
    assert caught.value.exit_code == 65 and "weights that are not finite are in" in str(caught.value)
    assert not (tmp_path / "run" / "model").exists()


def test_recipe_and_data_set_must_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pcam"):
        train(recipe(1, dataset="pcam"), folder, tmp_path)


def test_a_checkpoint_of_another_network_is_told(folder: Path, tmp_path: Path) -> None:
    config = recipe(2)
    key = trainer.run_key(config, open_dataset(folder))
    checkpoints.save(tmp_path / "checkpoints", checkpoints.Position(key, 1, 0, 1), [np.ones(3)], [])
    with pytest.raises(DataError, match="another version of this model"):
        train(config, folder, tmp_path)
