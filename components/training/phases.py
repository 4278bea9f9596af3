"""What a phase of a recipe means for a Keras model: which layers learn, with which optimizer, loss and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from components.training.recipe import TrainingConfig
from components.training.recipe_parts import Phase

FINAL_RATE = 0.01
"""Share of a phase's learning rate that is left at its end under `cosine` and `exponential`."""


@dataclasses.dataclass(frozen=True)
class Trainable:
    """What a phase lets learn.

    Attributes:
        layers: Number of layers with weights that learn.
        frozen: Number of layers with weights that don't.
        parameters: Number of weights that learn.
    """

    layers: int
    frozen: int
    parameters: int


def leaf_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers of a model and of the models inside it, in order from the input (Keras' own walk turns it round)."""
    leaves: list[keras.Layer] = []
    for layer in model.layers:
        leaves += leaf_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return leaves


def split_layers(model: keras.Model) -> tuple[list[keras.Layer], list[keras.Layer]]:
    """Parts a model into (body, head): innermost layers that hold weights, in order from the input.

    The head is `logits` and every layer whose name starts with `head`.
    """
    body: list[keras.Layer] = []
    head: list[keras.Layer] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            body += [inner for inner in leaf_layers(layer) if inner.weights]
        elif layer.weights:
            (head if layer.name == "logits" or layer.name.startswith("head") else body).append(layer)
    return body, head


def apply_trainable(model: keras.Model, trainable: str | int) -> Trainable:
    """Freezes and thaws a model's layers for a phase.

    A frozen BatchNormalization runs in inference mode (Keras 3 ties both together), so its moving statistics stay.
    Compile after this.

    Args:
        model: From the registry (not the training model around it).
        trainable: `all`, `head`, or N: the head and the last N layers of the body that hold weights.
    """
    body, head = split_layers(model)
    # Set on the model alone (Keras 3.12), it did not reach layers that an earlier phase had frozen one by one.
    for layer in model._flatten_layers():
        layer.trainable = True
    thawed = len(body) if trainable == "all" else 0 if trainable == "head" else min(int(trainable), len(body))
    for layer in body[: len(body) - thawed]:
        layer.trainable = False
    parameters = sum(int(ops.size(w)) for w in model.trainable_weights)
    return Trainable(thawed + len(head), len(body) - thawed, parameters)


def learning_rate(phase: Phase, steps_per_epoch: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of a phase, constant or falling to `FINAL_RATE` of it over all its steps."""
    steps = max(1, phase.epochs * steps_per_epoch)
    if phase.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(phase.learning_rate, steps, alpha=FINAL_RATE)
    if phase.schedule == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(phase.learning_rate, steps, FINAL_RATE)
    return phase.learning_rate


def make_optimizer(config: TrainingConfig, phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """A fresh optimizer for a phase; weight decay leaves biases and normalisation alone."""
    rate = learning_rate(phase, steps_per_epoch)
    decay = config.weight_decay or None
    if config.optimizer == "sgd":
        made = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    elif config.optimizer == "adamw":
        made = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    else:
        made = keras.optimizers.Adam(rate)
    if decay:
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


class SmoothedCrossentropy(keras.losses.Loss):
    """Sparse categorical cross-entropy with label smoothing, which Keras offers for one-hot labels only.

    Args:
        smoothing: Share of each label that is spread evenly over all classes.
        **kwargs: To `keras.losses.Loss`.
    """

    def __init__(self, smoothing: float, **kwargs: Any) -> None:
        super().__init__(name="smoothed_crossentropy", **kwargs)
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss per image, [N], of labels [N] or [N, 1] and probabilities [N, C]."""
        classes = y_pred.shape[-1]
        target = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes, dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(target, y_pred, label_smoothing=self.smoothing)


def make_loss(config: TrainingConfig) -> keras.losses.Loss:
    """Sparse categorical cross-entropy, binary and subtype alike."""
    if config.label_smoothing:
        return SmoothedCrossentropy(config.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy()


class PositiveAUC(keras.metrics.AUC):
    """Area under the ROC curve of P(class 1) of a softmax with two outputs; 200 cuts, so only about exact."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes labels [N] and probabilities [N, 2]."""
        super().update_state(ops.reshape(y_true, (-1,)), y_pred[:, 1], sample_weight)


class MacroF1(keras.metrics.F1Score):
    """Unweighted mean of the classes' F1 at the most probable class; a class that never occurs counts as 0.

    Args:
        n_classes: Number of classes.
        **kwargs: To `keras.metrics.F1Score`.
    """

    def __init__(self, n_classes: int, **kwargs: Any) -> None:
        super().__init__(average="macro", **kwargs)
        self.n_classes = n_classes

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes labels [N] and probabilities [N, C]."""
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        super().update_state(ops.one_hot(labels, self.n_classes), y_pred, sample_weight)


def make_metrics(config: TrainingConfig, n_classes: int) -> list[keras.metrics.Metric]:
    """What the history holds beside the loss: accuracy and `auc` (binary) or `macro_f1` (subtype)."""
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    if config.task == "binary":
        return [accuracy, PositiveAUC(name="auc")]
    return [accuracy, MacroF1(n_classes, name="macro_f1")]


def compile_phase(
    model: keras.Model,
    training: keras.Model,
    config: TrainingConfig,
    index: int,
    *,
    steps_per_epoch: int,
    jit_compile: bool = False,
    scaled: Callable[[keras.optimizers.Optimizer], keras.optimizers.Optimizer] = lambda optimizer: optimizer,
) -> Trainable:
    """Makes both models ready for a phase.

    Args:
        model: From the registry.
        training: What is fitted: `augmentation.training_model(model, ...)`, or `model` itself.
        config: The recipe.
        index: Of the phase.
        steps_per_epoch: Batches per epoch.
        jit_compile: XLA; pays on GPUs only.
        scaled: Adds loss scaling to the optimizer where the hardware asks for a special one.

    Returns:
        What learns in this phase.
    """
    phase = config.phases[index]
    said = apply_trainable(model, phase.trainable)
    training.compile(
        optimizer=scaled(make_optimizer(config, phase, steps_per_epoch)),
        loss=make_loss(config),
        metrics=make_metrics(config, model.output_shape[-1]),
        jit_compile=jit_compile,
    )
    return said


def dtype_policy(mixed_precision: str, gpu: bool) -> str:
    """Keras' policy for a recipe's `mixed_precision`; to be set before the model is built.

    Args:
        mixed_precision: `auto`, `on` or `off`.
        gpu: Whether training runs on a GPU; float16 is slow on CPUs.
    """
    return "mixed_float16" if mixed_precision == "on" or (mixed_precision == "auto" and gpu) else "float32"


def class_weights(
    config: TrainingConfig, counts: list[int], *, of_sampling: bool = False
) -> dict[int, float] | None:
    """Weights for `fit`: total / (classes present * count), which leaves the mean weight of an image at 1.

    Args:
        config: The recipe.
        counts: Training patches per class in label order.
        of_sampling: Whether balanced sampling counts too, which weighs classes by drawing them more often.

    Returns:
        Class to weight; None where the recipe asks for none. A class without a patch weighs 0.
    """
    if config.class_weights != "balanced" and not (of_sampling and config.sampling == "balanced"):
        return None
    present = sum(1 for count in counts if count)
    return {i: sum(counts) / (present * count) if count else 0.0 for i, count in enumerate(counts)}
