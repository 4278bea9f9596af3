"""Grad-CAM against its formula by hand, through views, and inside the exported model."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from components.training import export
from components.training.gradient_maps import GradCam, _put_back
from components.training.image_graph import ImageSize
from components.training.models.views import CropViews, MeanOverViews, TurnedViews
from tests.support.training_help import recipe


def network(views: int = 1, classes: int = 2, side: int = 8) -> keras.Model:
    """One convolution, pooling, one dense layer; small enough to work out by hand."""
    keras.utils.set_random_seed(3)
    images = keras.Input((side, side, 3), name="images")
    turned = TurnedViews(views)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(turned(images))
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))
    logits = MeanOverViews(turned.count(images.shape), name="logits")(layers.Dense(classes)(x))
    return keras.Model(images, layers.Softmax(name="probabilities")(logits), name="tiny")


def cut(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("logits").output, name="tiny")


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 8, 8, 3)).astype(np.float32)


def test_the_map_is_the_formula() -> None:
    model, pixels, classes = network(classes=3), images(), np.array([0, 1, 2])
    found = GradCam(cut(model))(tf.constant(pixels), tf.constant(classes)).numpy()
    features = model.get_layer("features")
    after = keras.Model(model.input, features.output)(pixels)
    with tf.GradientTape() as tape:
        tape.watch(after)
        pooled = tf.reduce_mean(tf.nn.max_pool2d(after, 2, 2, "VALID"), axis=(1, 2))
        dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
        logits = dense(pooled)
        score = sum(logits[i, c] - tf.reduce_mean(logits[i]) for i, c in enumerate(classes))
    alpha = tape.gradient(score, after).numpy().mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found, (alpha * after.numpy()).sum(axis=-1), rtol=1e-4, atol=1e-6)
    assert (found > 0).any() and (found < 0).any()


def test_classes_ask_for_different_maps() -> None:
    maps = GradCam(cut(network()))
    one, other = (maps(images(), tf.constant([c] * 3, tf.int64)).numpy() for c in (0, 1))
    # Of two classes, what speaks for the one speaks against the other.
    np.testing.assert_allclose(one, -other, rtol=1e-5)
    assert np.abs(one).max() > 0


def test_views_are_turned_back() -> None:
    maps, pixels, classes = GradCam(cut(network(views=8))), images(), tf.zeros(3, tf.int64)
    plain = maps(pixels, classes).numpy()
    assert np.abs(plain).max() > 0
    # A network that averages over all eight views answers a turned image with the turned map.
    np.testing.assert_allclose(maps(np.rot90(pixels, 1, (1, 2)), classes), np.rot90(plain, 1, (1, 2)), atol=1e-5)
    np.testing.assert_allclose(maps(pixels[:, :, ::-1], classes), plain[:, :, ::-1], atol=1e-5)
    assert np.abs(plain - plain[:, ::-1]).max() > 1e-3 * np.abs(plain).max()


def test_overlapping_crops_are_averaged_where_they_overlap() -> None:
    layer = CropViews(4)
    assert layer.count((1, 4, 6, 1)) == 2  # columns 0-3 and 2-5
    views = tf.concat([tf.ones((1, 4, 4, 1)), 3 * tf.ones((1, 4, 4, 1))], axis=0)
    back = _put_back(layer, views, tf.constant([1, 4, 6, 1])).numpy()[0, 0, :, 0]
    np.testing.assert_allclose(back, [1, 1, 2, 2, 3, 3])


def test_a_network_without_places_has_no_map() -> None:
    images = keras.Input((8, 8, 3))
    flat = keras.Model(images, layers.Dense(2)(layers.Flatten()(images)))
    with pytest.raises(ValueError, match="no feature maps"):
        GradCam(flat)


def test_the_exported_model_explains_with_its_own_weights(tmp_path: Path) -> None:
    config = recipe()
    facts = export.ModelFacts(
        dataset="idc", adapter="idc", task="binary", classes=("negative", "idc"), source_size=(8, 8),
        stored_size=(8, 8), input_size=(8, 8), label_region=None, plan_id="0" * 16, content_digest="0" * 64,
        model="tiny", config=config.to_dict(), config_digest=config.digest(), groups=["a"], fitted=["a"],
    )  # fmt: skip
    model = network()
    serving = export.Serving(model, ImageSize((8, 8), (8, 8)), facts.classes)
    loaded = tf.saved_model.load(str(export.save(serving, tmp_path / "model", facts)))
    assert {"serving_default", "serve_bytes"} <= set(loaded.signatures) and "explain" not in loaded.signatures
    pixels = images().astype(np.uint8)
    records = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"image/raw": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))}
            )
        ).SerializeToString()
        for image in pixels
    ]
    classes = tf.constant([0, 1, 0], tf.int64)
    expected = GradCam(cut(model))(pixels, classes).numpy()
    np.testing.assert_allclose(loaded.explain(tf.constant(records), classes), expected, rtol=1e-4, atol=1e-6)
    for weight in loaded.weights:
        weight.assign(tf.reverse(weight, [0]))
    assert np.abs(loaded.explain(tf.constant(records), classes) - expected).max() > 0.1 * np.abs(expected).max()
