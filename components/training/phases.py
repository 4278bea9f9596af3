"""What a phase of a recipe means for a Keras model: which layers learn, with which optimizer and rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from components.training.objectives import make_loss, make_metrics
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import BatchNorm, Phase

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


def apply_trainable(model: keras.Model, trainable: str | int, batchnorm: BatchNorm | None = None) -> Trainable:
    """Freezes and thaws a model's layers for a phase.

    A frozen BatchNormalization runs in inference mode (Keras 3 ties both together), so its moving statistics stay.
    Compile after this.

    Args:
        model: From the registry (not the training model around it).
        trainable: `all`, `head`, or N: the head and the last N layers of the body that hold weights.
        batchnorm: What thawed BatchNormalization layers of the body do; None: they follow, as they were built.
    """
    body, head = split_layers(model)
    # Set on the model alone (Keras 3.12), it did not reach layers that an earlier phase had frozen one by one.
    for layer in model._flatten_layers():
        layer.trainable = True
    thawed = len(body) if trainable == "all" else 0 if trainable == "head" else min(int(trainable), len(body))
    for layer in body[: len(body) - thawed]:
        layer.trainable = False
    for layer in body[len(body) - thawed :]:
        if isinstance(layer, keras.layers.BatchNormalization) and batchnorm is not None:
            _normalise(layer, batchnorm)
    parameters = sum(int(ops.size(w)) for w in model.trainable_weights)
    return Trainable(thawed + len(head), len(body) - thawed, parameters)


def _normalise(layer: keras.layers.BatchNormalization, batchnorm: BatchNorm) -> None:
    """Sets what a thawed layer does with its statistics."""
    if batchnorm.mode == "frozen":
        # Inference mode hangs on the layer's flag, what the optimizer moves on those of its variables.
        layer.trainable = False
        for variable in layer._trainable_variables:
            variable.trainable = True
    elif batchnorm.momentum is not None:
        layer.momentum = batchnorm.momentum


def phase_epochs(config: TrainingConfig, phase: Phase, steps_per_epoch: int) -> int:
    """Epochs of a phase: the recipe's, or as many as `min_steps` needs where the data set is small."""
    return max(phase.epochs, -(-config.min_steps // max(1, steps_per_epoch)))


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to a rate, then follows a schedule from its beginning.

    Args:
        steps: Of the rise; its last one has the full rate.
        rate: At its end.
        after: A schedule, or a constant rate.
    """

    def __init__(self, steps: int, rate: float, after: Any) -> None:
        self.steps = steps
        self.rate = rate
        self.after = after

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step, counted from 0."""
        place = ops.cast(step, "float32")
        left = ops.maximum(place - self.steps, 0.0)
        after = self.after(left) if callable(self.after) else ops.cast(self.after, "float32")
        return ops.where(place < self.steps, self.rate * (place + 1.0) / self.steps, after)

    def get_config(self) -> dict[str, Any]:
        """For Keras, which asks every schedule for it."""
        return {"steps": self.steps, "rate": self.rate, "after": self.after}


def learning_rate(phase: Phase, steps: int, warmup: int = 0) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of a phase: after the warm-up constant, or falling to `FINAL_RATE` of it until the end.

    Args:
        phase: With rate and schedule.
        steps: Of the whole phase.
        warmup: Steps of the rise before; at most half of the phase.
    """
    warmup = min(warmup, steps // 2)
    left = max(1, steps - warmup)
    rate: Any = phase.learning_rate
    if phase.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(phase.learning_rate, left, alpha=FINAL_RATE)
    if phase.schedule == "exponential":
        rate = keras.optimizers.schedules.ExponentialDecay(phase.learning_rate, left, FINAL_RATE)
    return WarmUp(warmup, phase.learning_rate, rate) if warmup else rate


def make_optimizer(config: TrainingConfig, phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """A fresh optimizer for a phase; weight decay leaves biases and normalisation alone."""
    steps = max(1, phase_epochs(config, phase, steps_per_epoch) * steps_per_epoch)
    rate = learning_rate(phase, steps, config.warmup_steps)
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


def compile_phase(
    model: keras.Model,
    training: keras.Model,
    config: TrainingConfig,
    index: int,
    *,
    steps_per_epoch: int,
    jit_compile: bool = False,
    steps_per_execution: int = 1,
    scaled: Callable[[keras.optimizers.Optimizer], keras.optimizers.Optimizer] = lambda optimizer: optimizer,
) -> Trainable:
    """Makes both models ready for a phase.

    Args:
        model: From the registry.
        training: What is fitted: `fitted_model.training_model(model, ...)`, or `model` itself.
        config: The recipe.
        index: Of the phase.
        steps_per_epoch: Batches per epoch.
        jit_compile: XLA; pays on GPUs only.
        steps_per_execution: Steps that are handed to the device at once.
        scaled: Adds loss scaling to the optimizer where the hardware asks for a special one.

    Returns:
        What learns in this phase.
    """
    phase = config.phases[index]
    trainable = apply_trainable(model, phase.trainable, config.batchnorm)
    training.compile(
        optimizer=scaled(make_optimizer(config, phase, steps_per_epoch)),
        loss=make_loss(config),
        metrics=make_metrics(config, model.output_shape[-1]),
        jit_compile=jit_compile,
        steps_per_execution=min(steps_per_execution, steps_per_epoch),
    )
    return trainable


def dtype_policy(mixed_precision: str, gpu: bool) -> str:
    """Keras' policy for a recipe's `mixed_precision`; to be set before the model is built.

    Args:
        mixed_precision: `auto`, `on` or `off`.
        gpu: Whether training runs on a GPU; float16 is slow on CPUs.
    """
    return "mixed_float16" if mixed_precision == "on" or (mixed_precision == "auto" and gpu) else "float32"
