from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.training.augmentation import Augmentation
from components.training.callbacks import NanGuard, reseed
from components.training.fitted_model import FittedModel, Mixup, training_model
from components.training.weight_average import EvaluateAverage, WeightAverage


def small(mixup: float = 0.0, **given: object) -> tuple[keras.Model, FittedModel]:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3, 3, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="logits")(x), name="small")
    training = training_model(model, Augmentation(), 1, mixup)
    training.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), jit_compile=False, **given)
    return model, training


def data(count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 3, 3, 3)).astype("float32"), rng.integers(0, 2, count)


def test_averages_follow_their_formula_moving_statistics_too() -> None:
    model, training = small()
    training.average = WeightAverage(model, 0.7)
    wanted = [np.asarray(v) for v in training.average.variables]
    assert len(wanted) == 6
    x, y = data()
    for step in range(1, 5):
        training.train_on_batch(x[step * 3 : step * 3 + 3], y[step * 3 : step * 3 + 3])
        keep = min(0.7, step / (9 + step))
        wanted = [
            keep * a + (1 - keep) * np.asarray(v) for a, v in zip(wanted, training.average.variables, strict=True)
        ]
    *averages, steps = training.average.arrays()
    assert int(steps) == 4
    for one, other in zip(averages, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_validation_sees_the_averages_and_training_goes_on_with_the_weights() -> None:
    model, training = small()
    average = training.average = WeightAverage(model, 0.9)
    x, y = data()
    told = training.fit(
        x, y, batch_size=4, validation_data=(x, y), verbose=0, callbacks=[EvaluateAverage(average)]
    ).history
    weights = [np.asarray(v) for v in average.variables]
    with average.in_place():
        seen = training.evaluate(x, y, verbose=0)
    assert told["val_loss"][0] == pytest.approx(seen) != pytest.approx(training.evaluate(x, y, verbose=0))
    for one, variable in zip(weights, average.variables, strict=True):
        np.testing.assert_array_equal(one, np.asarray(variable))


def test_mixup_blends_images_and_losses_by_the_same_share() -> None:
    _, training = small(0.4)
    x, y = data(4)
    weights = np.array([1.0, 2.0, 3.0, 4.0], "float32")
    blended = keras.Model(training.inputs, training.get_layer("mixup").output)
    reseed(training, 7, 0)
    mixed = np.asarray(blended(x, training=True))
    share = float(training.get_layer("mixup").share)
    assert 0 < share < 1
    np.testing.assert_allclose(mixed, share * x + (1 - share) * np.roll(x, 1, axis=0), rtol=1e-4, atol=1e-3)
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5]], "float32")
    own, other = -np.log(p[np.arange(4), y]), -np.log(p[np.arange(4), np.roll(y, 1)])
    wanted = share * (own * weights).mean() + (1 - share) * (other * np.roll(weights, 1)).mean()
    given = [tf.constant(v) for v in (x, y, p, weights)]
    assert float(training.compute_loss(*given, training=True)) == pytest.approx(wanted, rel=1e-4)
    assert float(training.compute_loss(*given, training=False)) == pytest.approx((own * weights).mean(), rel=1e-4)
    np.testing.assert_array_equal(np.asarray(blended(x, training=False)), x)


def test_shares_are_those_of_the_beta_distribution() -> None:
    layer, images = Mixup(0.4, seed=3), tf.zeros((1, 1, 1, 3))
    drawn = tf.function(lambda: (layer(images, training=True), tf.convert_to_tensor(layer.share))[1])
    shares = np.array([float(drawn()) for _ in range(800)])
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(0.25 / 1.8, abs=0.02)  # 1 / (4 (2 alpha + 1))


@pytest.mark.parametrize("mixup", [0.0, 0.3])
def test_several_steps_at_once_with_a_short_last_execution_are_the_same_steps(mixup: float) -> None:
    x, y = data(20)
    weights = []
    for at_once in (1, 3):
        model, training = small(mixup, steps_per_execution=at_once)
        reseed(training, 7, 0)
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        training.fit(batches, steps_per_epoch=5, verbose=0, class_weight={0: 1.0, 1: 2.0}, callbacks=[NanGuard()])
        assert int(training.optimizer.iterations) == int(training.watch.step) == 5
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
