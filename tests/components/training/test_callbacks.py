from __future__ import annotations

import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from components.errors import DataError
from components.training import callbacks, phases
from components.training.augmentation import PRESETS, Augmentation
from components.training.fitted_model import training_model
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import Phase


def small() -> keras.Model:
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(8, activation="relu", name="dense")(x))
    x = keras.layers.Dense(2, name="logits")(x)
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(x), name="small")


def data(count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 6, 6, 3)).astype("float32"), rng.integers(0, 2, count)


def compiled(rate: float = 0.01, augmentation: Augmentation | None = None, epochs: int = 1) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = small()
    training = training_model(model, augmentation or Augmentation(), seed=1)
    config = TrainingConfig(phases=(Phase(epochs, rate, "cosine"),))
    phases.compile_phase(model, training, config, 0, steps_per_epoch=2)
    return training


def test_nan_pixels_end_training_with_the_batchs_statistics() -> None:
    x, y = data()
    x[3, 2, 2, 1] = np.inf  # a NaN would be lost in relu where kernels are fused
    with pytest.raises(DataError, match="images were not finite in epoch 3, batch 1.*some pixels are not") as caught:
        compiled().fit(x, y, batch_size=16, verbose=0, callbacks=[callbacks.NanGuard(first_epoch=2)])
    assert caught.value.exit_code == 65


def test_diverged_weights_are_told_from_bad_images() -> None:
    training = compiled()
    training.get_layer("small").get_layer("dense").kernel.assign(np.full((108, 8), np.nan, "float32"))
    with pytest.raises(
        DataError,
        match="(loss|weights) became nan.*mean 1[0-9.]+, standard deviation [67]"
        ".*optimizer has probably diverged.*in dense",
    ) as e:
        training.fit(*data(), batch_size=8, verbose=0, callbacks=[callbacks.NanGuard()])
    assert "learning rate is 0.0" in str(e.value) and "Lower the learning rate" in e.value.fix


@pytest.mark.parametrize(("at_once", "every"), [(1, 50), (4, 2)])
def test_the_bad_batch_is_named_though_the_device_is_asked_later(at_once: int, every: int) -> None:
    x, y = data(40)
    x[20:24] = np.inf
    training = compiled()
    training.steps_per_execution = at_once
    with pytest.raises(DataError, match="in epoch 1, batch 6: the bad batch had pixels from inf to inf.*not finite"):
        training.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[callbacks.NanGuard(every=every)])


def test_a_device_is_asked_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    training, guard = compiled(), callbacks.NanGuard(every=4)
    asked: list[int] = []
    monkeypatch.setattr(type(training.watch), "first_bad", lambda watch: asked.append(int(watch.step)))
    training.fit(*data(40), batch_size=4, verbose=0, callbacks=[guard])
    assert asked == [1, 5, 9, 10]
    assert "on_train_batch_end" not in vars(callbacks.NanGuard), "Keras would fetch every batch's logs for it"


def test_validation_loss_is_watched_too() -> None:
    x, y = data()
    weights = np.where(np.arange(16) == 5, np.nan, 1.0)  # NaN pixels would be lost in relu where kernels are fused
    with pytest.raises(DataError, match="val_loss became nan after epoch 1"):
        compiled().fit(x, y, validation_data=(x, y, weights), verbose=0, callbacks=[callbacks.NanGuard()])


def test_a_healthy_run_is_left_alone() -> None:
    history = compiled().fit(*data(), validation_data=data(), epochs=2, verbose=0, callbacks=[callbacks.NanGuard()])
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "diverged"),
        ({"mean": np.nan}, "not finite"),
        ({"max": 300.0}, "outside 0-255"),
        ({"max": 0.9}, "scaled twice"),
        ({"constant": 0.8}, "constant"),
    ],
)
def test_what_looks_wrong_in_a_batch(changed: dict[str, float], said: str) -> None:
    values = {"min": 3.0, "max": 250.0, "mean": 170.0, "std": 40.0, "constant": 0.0}
    assert said in callbacks.judge({**values, **changed})


def test_one_line_per_epoch() -> None:
    lines: list[str] = []
    line = callbacks.EpochLine(16, 5, phases=2, phase=1, first_epoch=3, emit=lines.append)
    compiled(epochs=2).fit(*data(), validation_data=data(), epochs=2, batch_size=8, verbose=0, callbacks=[line])
    assert len(lines) == 2
    assert re.match(r"epoch 4/5, phase 2/2  accuracy 0\.\d{4}  auc .*  loss .*  val_loss .*images/s", lines[0])
    assert lines[1].startswith("epoch 5/5") and "learning rate 1.00e-04" in lines[1]


def test_a_resumed_run_draws_what_an_unbroken_one_draws() -> None:
    x, y = data()
    whole = compiled(augmentation=PRESETS["strong"])
    assert callbacks.reseed(whole, 7, 0) == 5  # four augmentations and dropout
    seeds = callbacks.SeedPerEpoch(7)
    whole.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[seeds])

    first = compiled(augmentation=PRESETS["strong"])
    first.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=[seeds])
    resumed = compiled(augmentation=PRESETS["strong"])
    resumed.set_weights(first.get_weights())
    resumed.optimizer.build(resumed.trainable_variables)
    for to, of in zip(resumed.optimizer.variables, first.optimizer.variables, strict=True):
        to.assign(of)
    resumed.fit(x, y, batch_size=8, initial_epoch=1, epochs=3, shuffle=False, verbose=0, callbacks=[seeds])
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_seeds_differ_by_epoch_place_and_seed() -> None:
    model = compiled(augmentation=PRESETS["strong"])

    def states(seed: int, epoch: int) -> list[tuple[int, ...]]:
        callbacks.reseed(model, seed, epoch)
        return [tuple(np.asarray(g.state)) for layer in phases.leaf_layers(model) for g in layer._seed_generators]

    drawn = [state for seed, epoch in ((1, 0), (1, 1), (2, 0)) for state in states(seed, epoch)]
    assert len(set(drawn)) == len(drawn) == 15 and states(1, 0) == drawn[:5]
