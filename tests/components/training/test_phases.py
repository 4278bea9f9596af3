from __future__ import annotations

import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from components.training import models, objectives, phases, presets
from components.training.augmentation import Augmentation
from components.training.fitted_model import training_model
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import BatchNorm, Phase
from pipelines.recipes import PRESETS_FOLDER


def normalised() -> keras.Model:
    """Two normalised convolutions, a nested backbone among them, and a head."""
    inputs = keras.Input((8, 8, 3))
    inner = keras.Input((8, 8, 3))
    y = keras.layers.BatchNormalization(name="inner_norm")(keras.layers.Conv2D(4, 3, name="inner_conv")(inner))
    x = keras.Model(inner, y, name="backbone")(inputs)
    x = keras.layers.BatchNormalization(name="outer_norm")(keras.layers.Conv2D(4, 3, name="outer_conv")(x))
    x = keras.layers.Dense(5, name="head_dense")(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Dense(2, name="logits")(x)
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(x))


def data(count: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((count, 8, 8, 3)).astype("float32") * 255, rng.integers(0, 2, count)


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [
        ("head", set()),
        (1, {"outer_norm"}),
        (3, {"outer_norm", "outer_conv", "inner_norm"}),
        ("all", {"outer_norm", "outer_conv", "inner_norm", "inner_conv"}),
        (99, {"outer_norm", "outer_conv", "inner_norm", "inner_conv"}),
    ],
)
def test_only_what_is_trainable_moves_moving_statistics_included(trainable: str | int, moved: set[str]) -> None:
    model = normalised()
    training = training_model(model, Augmentation(), 0)
    config = TrainingConfig(phases=(Phase(1, 0.1, "constant", trainable),))
    said = phases.compile_phase(model, training, config, 0, steps_per_epoch=4)
    assert (said.layers, said.frozen) == (len(moved) + 2, 4 - len(moved))
    before = {v.path: np.array(v) for v in model.variables}
    training.fit(*data(), batch_size=8, verbose=0)
    changed = {v.path.split("/")[-2] for v in model.variables if not np.array_equal(before[v.path], np.array(v))}
    assert changed == moved | {"head_dense", "logits"}
    if "inner_norm" in moved:
        stats = [v for v in model.variables if "inner_norm/moving" in v.path]
        assert len(stats) == 2 and all(not np.array_equal(before[v.path], np.array(v)) for v in stats)


def fine_tuned(**given: object) -> tuple[keras.Model, dict[str, np.ndarray]]:
    """A model after an epoch in which only the first convolution is frozen, and its values before."""
    keras.utils.set_random_seed(0)
    model = normalised()
    training = training_model(model, Augmentation(), 0)
    config = dataclasses.replace(TrainingConfig(phases=(Phase(1, 0.1, "constant", 3),)), **given)  # type: ignore[arg-type]
    phases.compile_phase(model, training, config, 0, steps_per_epoch=4)
    before = {v.path: np.array(v) for v in model.variables}
    training.fit(*data(), batch_size=8, verbose=0)
    return model, {v.path: np.array(v) - before[v.path] for v in model.variables}


def test_frozen_normalisation_keeps_its_statistics_while_scale_and_offset_learn() -> None:
    model = normalised()
    config = TrainingConfig(phases=(Phase(1, 0.1),))
    object.__setattr__(config, "batchnorm", BatchNorm("frozen"))  # of a model that came with weights
    training = training_model(model, Augmentation(), 0)
    phases.compile_phase(model, training, config, 0, steps_per_epoch=4)
    before = {v.path: np.array(v) for v in model.variables}
    x, y = data()
    np.testing.assert_allclose(model(x, training=True), model(x, training=False), atol=1e-6)
    training.fit(x, y, batch_size=8, verbose=0)
    moved = {v.path for v in model.variables if not np.array_equal(before[v.path], np.array(v))}
    assert not [path for path in moved if "moving" in path]
    assert {"inner_norm/gamma", "outer_norm/beta", "inner_conv/kernel"} <= moved
    assert phases.apply_trainable(model, "all").parameters == sum(np.asarray(w).size for w in model.trainable_weights)
    assert not np.allclose(model(x, training=True), model(x, training=False)), "the next phase follows again"


@pytest.mark.integration
def test_statistics_follow_with_the_recipes_momentum() -> None:
    moved = {}
    for momentum in (None, 0.99, 0.9):
        _, change = fine_tuned(batchnorm=BatchNorm("follow", momentum))
        moved[momentum] = np.abs(change["outer_norm/moving_variance"]).mean()
    assert moved[None] == moved[0.99] < moved[0.9]  # 0.99 is what Keras builds the layer with
    assert moved[0.9] == pytest.approx(moved[0.99] * (1 - 0.9**4) / (1 - 0.99**4), rel=0.5)


def test_a_small_data_set_has_more_epochs() -> None:
    config = TrainingConfig(min_steps=100)
    assert [phases.phase_epochs(config, Phase(5), steps) for steps in (1, 10, 30, 1000)] == [100, 10, 5, 5]
    rate = phases.make_optimizer(TrainingConfig(min_steps=100), Phase(5, 0.5, "cosine"), 10)._learning_rate
    assert float(rate(50)) == pytest.approx(0.2525, rel=1e-3)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
def test_the_rate_rises_before_the_schedule_begins(schedule: str) -> None:
    rate = phases.learning_rate(Phase(1, 0.5, schedule), 24, warmup=4)
    assert [float(rate(step)) for step in range(4)] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    plain = phases.learning_rate(Phase(1, 0.5, schedule), 20)
    for step in (0, 7, 20):
        assert float(rate(4 + step)) == pytest.approx(float(plain(step)) if callable(plain) else plain, rel=1e-5)
    short = phases.learning_rate(Phase(1, 0.5, schedule), 6, warmup=100)
    assert float(short(2)) == pytest.approx(0.5), "half of a phase at most"


def test_a_later_phase_thaws_what_an_earlier_one_froze() -> None:
    model = normalised()
    everything = phases.apply_trainable(model, "all")
    head = phases.apply_trainable(model, "head")
    assert head.parameters == 4 * 5 + 5 + 5 * 2 + 2 < everything.parameters
    assert phases.apply_trainable(model, "all") == everything
    assert everything.parameters == sum(np.asarray(w).size for w in model.trainable_weights)


@pytest.mark.parametrize("name", ["cnn_105k", "mobilenet_v2", "pcam_cnn"])
def test_every_model_has_a_head_and_a_body(name: str) -> None:
    entry = models.info(name)
    model = models.build(name, (*entry.input_size, 3), 2, {"weights": "none"})
    body, head = phases.split_layers(model)
    assert body and head and head[-1].name in ("logits", "head_logits")
    assert sum(layer.count_params() for layer in body + head) == model.count_params()
    if entry.backbone_parameters:
        assert (body[0].name, body[-1].name) == ("Conv1", "Conv_1_bn")
        assert sum(layer.count_params() for layer in body) == entry.backbone_parameters


def test_schedules_start_at_the_rate_and_end_at_a_hundredth_of_it() -> None:
    assert phases.learning_rate(Phase(2, 0.5), 20) == 0.5
    for name in ("cosine", "exponential"):
        rate = phases.learning_rate(Phase(2, 0.5, name), 20)
        assert float(rate(0)) == pytest.approx(0.5)
        assert float(rate(20)) == pytest.approx(0.005, rel=1e-4)
        assert 0.005 < float(rate(10)) < 0.5
        assert float(phases.learning_rate(Phase(2, 0.0, name), 20)(7)) == 0


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_and_their_weight_decay(name: str) -> None:
    decay = 0.0 if name == "adam" else 0.01
    config = TrainingConfig(optimizer=name, weight_decay=decay, phases=(Phase(1, 0.1),))
    made = phases.make_optimizer(config, config.phases[0], 5)
    assert type(made).__name__.lower() == name
    assert float(np.asarray(made.learning_rate)) == pytest.approx(0.1)
    if decay:
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        made.build(layer.trainable_weights)
        layer.bias.assign([1.0, 1.0])
        kernel = np.array(layer.kernel)
        made.apply([np.zeros((3, 2), "float32"), np.zeros(2, "float32")])
        np.testing.assert_allclose(np.array(layer.kernel), kernel * (1 - 0.1 * 0.01), rtol=1e-5)
        np.testing.assert_array_equal(np.array(layer.bias), [1.0, 1.0])


def test_a_rate_of_zero_leaves_the_weights_alone() -> None:
    model = models.build("cnn_105k", (50, 50, 3), 2)
    config = presets.from_preset(str(PRESETS_FOLDER.parents[1] / "infra" / "crippled.yaml"), folder=PRESETS_FOLDER)
    before = model.get_weights()
    phases.compile_phase(model, model, config, 0, steps_per_epoch=1)
    model.fit(np.zeros((4, 50, 50, 3), "uint8"), np.array([0, 1, 0, 1]), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))


def test_label_smoothing_is_that_of_one_hot_labels() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], "float32")
    y = np.array([0, 1])
    target = np.eye(3)[y] * 0.9 + 0.1 / 3
    wanted = -(target * np.log(p)).sum(axis=1).mean()
    config = TrainingConfig(label_smoothing=0.1)
    for labels in (y, y[:, None]):
        assert float(objectives.make_loss(config)(labels, p)) == pytest.approx(wanted, rel=1e-4)
    plain = objectives.make_loss(TrainingConfig())(y, p)
    assert float(plain) == pytest.approx(-np.log([0.7, 0.1]).mean(), rel=1e-4)


def test_focal_loss_is_that_of_its_formula() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], "float32")
    y = np.array([0, 1])
    wanted = [-((1 - 0.7) ** 2) * np.log(0.7), -((1 - 0.1) ** 2) * np.log(0.1)]
    loss = objectives.make_loss(TrainingConfig(focal=2.0))
    assert loss.call(y, keras.ops.convert_to_tensor(p)).numpy() == pytest.approx(wanted, rel=1e-4)
    both = objectives.make_loss(TrainingConfig(focal=2.0, label_smoothing=0.1))
    keras_own = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0, label_smoothing=0.1)
    assert float(both(y, p)) == pytest.approx(float(keras_own(np.eye(3)[y], p)), rel=1e-4)
    binary = np.array([[0.9, 0.1], [0.4, 0.6]], "float32")
    assert float(loss(np.array([1, 1]), binary)) == pytest.approx(
        -(0.81 * np.log(0.1) + 0.16 * np.log(0.6)) / 2, rel=1e-4
    )


def test_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 500)
    positive = np.clip(rng.random(500) * 0.7 + 0.3 * y, 0, 1).astype("float32")
    auc = objectives.PositiveAUC()
    auc.update_state(y, np.stack([1 - positive, positive], axis=1))
    assert float(auc.result()) == pytest.approx(roc_auc_score(y, positive), abs=2e-3)
    y, p = rng.integers(0, 4, 300), rng.random((300, 4)).astype("float32")
    p[np.arange(300), y] += 0.3
    f1 = objectives.MacroF1(4)
    f1.update_state(y[:100], p[:100])
    f1.update_state(y[100:, None], p[100:])
    assert float(f1.result()) == pytest.approx(f1_score(y, p.argmax(axis=1), average="macro"), abs=1e-5)


def test_subtype_trains_and_its_history_has_what_early_stopping_watches() -> None:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Softmax(name="probabilities")(x))
    config = TrainingConfig(task="subtype", label_smoothing=0.1, floors={})
    phases.compile_phase(model, model, config, 0, steps_per_epoch=2)
    x, y = np.random.default_rng(0).random((12, 4, 4, 3)), np.arange(12) % 3
    history = model.fit(x, y, validation_data=(x, y), batch_size=6, verbose=0).history
    assert {"val_macro_f1", "val_loss", "val_accuracy"} <= set(history)


def test_mixed_precision_and_class_weights() -> None:
    assert [phases.dtype_policy(m, g) for m in ("auto", "on", "off") for g in (True, False)] == [
        *("mixed_float16", "float32"),
        *("mixed_float16", "mixed_float16"),
        *("float32", "float32"),
    ]
    config = TrainingConfig()
    assert objectives.class_weights(config, [30, 10]) is None
    weights = objectives.class_weights(dataclasses.replace(config, class_weights="balanced"), [30, 10, 0])
    assert weights == {0: 40 / 60, 1: 2.0, 2: 0.0}
    assert weights[0] * 30 + weights[1] * 10 == pytest.approx(40)


def test_calibration_learns_what_moved_the_prior() -> None:
    config, split = TrainingConfig(), [300, 100]
    assert objectives.moved_prior(config, split, split) is None
    even = {0: 400 / 600, 1: 2.0}
    for given in ({"class_weights": "balanced"}, {"sampling": "balanced"}):
        assert objectives.moved_prior(dataclasses.replace(config, **given), split, [90, 80]) == even
    assert objectives.moved_prior(config, split, [50, 50]) == even, "a cap makes classes equal too"
    assert objectives.moved_prior(config, split, [150, 50]) == {0: 1.0, 1: 1.0}
