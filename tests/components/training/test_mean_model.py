"""The mean of exported models, as plain TensorFlow serves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from components.datasets.committed import facts_json
from components.errors import DataError, UsageError
from components.training import export, models
from components.training.mean_model import load_mean
from tests.components.training.test_export import answers, facts, images, png, raw
from tests.support.training_help import export_model

pytestmark = pytest.mark.integration

SIDE = 32
SIZES = {"source_size": (SIDE, SIDE), "stored_size": (SIDE, SIDE)}


def member(folder: Path, seed: int, classes: tuple[str, ...], temperature: float, bias: Any, **given: Any) -> Path:
    keras.utils.set_random_seed(seed)
    model = models.build("simple_cnn", (SIDE, SIDE, 3), len(classes), **given)
    return export_model(model, folder, facts(classes, **SIZES), temperature, 0.3, bias=bias)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("members")
    two = ("negative", "idc")
    return [
        member(home / "a", 1, two, 2.0, -0.4),
        member(home / "b", 2, two, 0.7, 0.9, image_size=(24, 24), views=2),
    ]


@pytest.fixture(scope="module")
def of_members(pair: list[Path]) -> list[Any]:
    return [tf.saved_model.load(str(folder)) for folder in pair]


def log_odds(probability: np.ndarray) -> np.ndarray:
    exact = probability.astype(np.float64)
    return np.log(exact) - np.log1p(-exact)


def test_what_is_served_is_the_mean_of_what_the_members_serve(
    pair: list[Path], of_members: list[Any], tmp_path: Path
) -> None:
    # The members may be gone once they are loaded.
    copies = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in pair]
    serving = load_mean(copies)
    for folder in copies:
        shutil.rmtree(folder)
    pixels = images(9, SIDE, SIDE)
    asked = {"serving_default": raw(pixels), "serve_bytes": [png(image) for image in pixels]}
    single = [answers(loaded, "serving_default", raw(pixels))["probability"] for loaded in of_members]
    mean = np.mean([log_odds(p) for p in single], axis=0)
    assert np.abs(log_odds(single[0]) - log_odds(single[1])).min() > 0.1, "the members disagree"

    def check(found: dict[str, Any], temperature: float, bias: float, threshold: float) -> None:
        np.testing.assert_allclose(log_odds(found["probability"]), mean / temperature + bias, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found["label"], found["probability"] >= np.float32(threshold))

    # Before its own calibration it is the mean, then what the calibration makes of it.
    for set_to in ((1.0, 0.0, 0.5), (1.6, 0.25, 0.6)):
        serving.set_calibration(*set_to[:2])
        serving.threshold.assign(set_to[2])
        for served, values in zip((serving.serve_examples, serving.serve_bytes), asked.values()):
            check({name: value.numpy() for name, value in served(tf.constant(values)).items()}, *set_to)
    out = export.save(serving, tmp_path / "mean", facts(**SIZES))
    loaded = tf.saved_model.load(str(out))
    for name, values in asked.items():
        found = answers(loaded, name, values)
        check(found, *set_to)
    bulk = loaded.signatures["bulk_inference"](examples=tf.constant(raw(pixels)))
    np.testing.assert_array_equal(bulk["probability"], found["probability"])
    np.testing.assert_allclose(serving.probability(serving.pixel_logits(pixels)), found["probability"], atol=1e-6)
    told = json.loads((out / export.FACTS).read_text())
    assert (told["temperature"], told["bias"], told["threshold"]) == pytest.approx((1.6, 0.25, 0.6))
    assert loaded.explain(tf.constant(raw(pixels)), tf.ones(9, tf.int64)).shape == (9, SIDE, SIDE)
    saved = saved_model_pb2.SavedModel.FromString((out / "saved_model.pb").read_bytes())
    kinds = {node.user_object.identifier for node in saved.meta_graphs[0].object_graph_def.nodes}
    assert not [kind for kind in kinds if "keras" in kind]


def test_weights_are_stored_once_and_a_mean_may_be_a_member(
    pair: list[Path], of_members: list[Any], tmp_path: Path
) -> None:
    def stored(folder: Path) -> int:
        return (folder / "variables" / "variables.data-00000-of-00001").stat().st_size

    inner = export.save(load_mean(pair), tmp_path / "inner", facts(**SIZES))
    assert stored(inner) < 1.05 * sum(stored(folder) for folder in pair)
    outer = load_mean([inner, pair[0]])
    pixels = raw(images(4, SIDE, SIDE))
    first, second = (log_odds(answers(loaded, "serving_default", pixels)["probability"]) for loaded in of_members)
    found = log_odds(outer.serve_examples(tf.constant(pixels))["probability"].numpy())
    np.testing.assert_allclose(found, 0.75 * first + 0.25 * second, atol=2e-6)
    assert len(outer.weights) == len({id(weight) for weight in outer.weights})


def test_several_classes_have_the_normalised_geometric_mean(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    folders = [member(tmp_path / str(seed), seed, names, 0.5, [0.1 * seed, 0.0, -0.2]) for seed in (3, 4)]
    pixels = raw(images(5, SIDE, SIDE))
    single = [answers(tf.saved_model.load(str(f)), "serving_default", pixels)["probability"] for f in folders]
    wanted = np.sqrt(single[0].astype(float) * single[1])
    serving = load_mean(folders)
    found = serving.serve_examples(tf.constant(pixels))["probability"].numpy()
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-6)


def test_members_that_have_no_mean(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        load_mean([])
    for field, value in (("classes", ["idc", "negative"]), ("source_size", [64, 64]), ("stored_size", [16, 16])):
        other = Path(shutil.copytree(pair[1], tmp_path / field))
        told = json.loads((other / export.FACTS).read_text())
        (other / export.FACTS).write_text(facts_json({**told, field: value}))
        with pytest.raises(UsageError, match=f"another {field.replace('_', ' ')}"):
            load_mean([pair[0], other])
    with pytest.raises(DataError, match="holds no exported model"):
        load_mean([pair[0], tmp_path / "gone"])
    broken = Path(shutil.copytree(pair[1], tmp_path / "broken"))
    (broken / "saved_model.pb").unlink()
    with pytest.raises(DataError, match="can't be loaded"):
        load_mean([pair[0], broken])
