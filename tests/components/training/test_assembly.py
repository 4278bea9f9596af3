"""An ensemble is put together, calibrated on eval as one model, and not put together twice."""

from __future__ import annotations

import json
import os
import types
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from components.datasets.committed import open_dataset
from components.promotion.served_model import ServedModel
from components.training import export, run_fn
from components.training.assembly import assemble
from components.training.recipe import TrainingConfig
from components.training.trainer import read_result
from tests.components.training.test_mean_model import log_odds
from tests.support.training_help import dataset, export_model, recipe

pytestmark = pytest.mark.integration


def test_a_mean_is_calibrated_as_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset(dataset(tmp_path, patients=12, per_class=3))
    layers, folders = keras.layers, []
    for seed in (1, 2):
        pixels = keras.Input((50, 50, 3), name="images")
        x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 64, -2)(pixels))
        dense = layers.Dense(2, name="logits")
        logits = dense(x)
        dense.set_weights([np.array([[0.1, -0.1]] * 3) * seed, np.zeros(2)])  # what is darker is class 1
        model = keras.Model(pixels, layers.Softmax(name="probabilities")(logits))
        facts = export.ModelFacts.of(recipe(), data)
        folders.append(export_model(model, tmp_path / f"m{seed}", facts, 1.0, 0.5, bias=0.3 * seed))
    config = TrainingConfig.from_dict({"model": "ensemble", "ensemble": ["m1", "m2"], "title": "Both"})
    lines: list[str] = []
    result = assemble(config, data, tmp_path / "run", folders, log=lines.append)
    assert result.epochs_run == 0 and result.history == {} and "mean of 2 models: m1, m2" in lines
    whole, *single = (ServedModel(folder) for folder in (result.model_dir, *folders))
    assert whole.facts["config"]["ensemble"][1]["run_id"] == "m2" and whole.facts["model"] == "ensemble"
    assert whole.facts["temperature"] == pytest.approx(result.temperature) and result.bias != 0.0
    from components.datasets.tfrecord import read_records

    records = [record for shard in data.splits["eval"].shards for _, record in read_records(shard)]
    mean = np.mean([log_odds(model.probabilities([records])) for model in single], axis=0)
    found = log_odds(whole.probabilities([records]))
    assert isinstance(result.bias, float)
    np.testing.assert_allclose(found, mean / result.temperature + result.bias, rtol=1e-5, atol=1e-5)
    assert json.loads((result.model_dir / export.FACTS).read_text())["threshold"] == pytest.approx(result.threshold)
    before = (result.model_dir / "saved_model.pb").stat().st_mtime_ns
    assert assemble(config, data, tmp_path / "run", folders, log=lines.append) == read_result(tmp_path / "run")
    assert (result.model_dir / "saved_model.pb").stat().st_mtime_ns == before and "already" in lines[-1]

    # As TFX's Trainer calls it: the members are looked for in the workspace, and the model goes where TFX wants it.
    asked: list[Any] = []
    monkeypatch.setattr(run_fn, "member_folders", lambda storage, *what: asked.append((storage.root, *what)) or folders)
    run_fn.run_fn(
        types.SimpleNamespace(
            custom_config={"config": config.to_dict(), "run_dir": str(tmp_path / "run"), "workspace": str(tmp_path)},
            train_files=[f"{data.folder}/Split-train/*"],
            eval_files=[f"{data.folder}/Split-eval/*"],
            schema_path="",
            serving_model_dir=str(tmp_path / "artifact" / "Format-Serving"),
            model_run_dir=str(tmp_path / "model_run"),
        )
    )
    assert asked == [(str(tmp_path), "idc", "binary", config)]
    assert (tmp_path / "artifact/Format-Serving/assets.extra/histoline.json").is_file()
