"""The model that is fitted: augmentation, mixup and the batch's statistics before the model, and what a step notes.

Fit it, evaluate and export the model inside: an exported model then holds nothing of all this.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from components.core.array_types import Array
from components.training import models
from components.training.augmentation import Augmentation
from components.training.augmentation_layers import InputStatistics, layers
from components.training.stain_targets import StainSpread
from components.training.weight_average import WeightAverage, each_replica, replica_variable

SHARES = 4096
"""Equally likely shares that mixup draws from."""


class Mixup(keras.Layer):
    """Blends each training image with its neighbour in the batch (Zhang et al. 2018, arXiv 1710.09412).

    One share for a batch, as in the authors' program; batches are shuffled, so the neighbour is a random partner. The
    weight `share` holds what the last batch kept of itself; `FittedModel` blends the losses by it.

    Args:
        alpha: Shares are drawn from Beta(alpha, alpha).
        seed: Of the draws.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, alpha: float, *, seed: int = 0, **kwargs: Any) -> None:
        from scipy.stats import beta

        super().__init__(dtype="float32", trainable=False, **kwargs)
        # A table in place of a sampler of the gamma distribution, which XLA does not have.
        self.table = beta.ppf((np.arange(SHARES) + 0.5) / SHARES, alpha, alpha).astype("float32")
        self.seed_generator = keras.random.SeedGenerator(seed % (2**31))
        self.share = replica_variable(1.0, "float32")

    def call(self, images: Any, training: bool = False) -> Any:
        """[N, H, W, C] to the same shape; outside training as they are."""
        if not training:
            return images
        drawn = keras.random.uniform((), 0.0, 1.0, dtype="float32", seed=self.seed_generator)
        place = ops.minimum(ops.cast(drawn * SHARES, "int32"), SHARES - 1)
        share = ops.take(ops.convert_to_tensor(self.table), place)
        self.share.assign(share)
        return images * share + neighbours(images) * (1.0 - share)


def neighbours(batch: Any) -> Any:
    """What stands before each element of a batch, the last one before the first."""
    return ops.roll(batch, 1, axis=0)


class StepWatch:
    """Notes on the device which step of an epoch was the first with a loss or pixels that are not finite.

    Each replica notes for itself, so nothing waits for anything.
    """

    def __init__(self) -> None:
        self.step = replica_variable(0, "int64")
        self.bad = replica_variable(0, "int64")
        self.images = replica_variable(np.zeros(len(InputStatistics.NAMES)), "float32")

    def start(self) -> None:
        """Forgets the epoch before."""
        self.step.assign(0)
        self.bad.assign(0)

    def note(self, loss: Any, images: Any) -> None:
        """Takes the running loss of a step and the statistics of its batch; part of the training graph."""
        step = self.step.assign_add(1, read_value=True)
        before = tf.equal(self.bad, 0)
        finite = tf.reduce_all(tf.math.is_finite(tf.concat([[tf.cast(loss, tf.float32)], images], axis=0)))
        first = tf.logical_and(before, tf.logical_not(finite))
        self.bad.assign(tf.where(first, step, tf.convert_to_tensor(self.bad)))
        self.images.assign(tf.where(before, images, tf.convert_to_tensor(self.images)))

    def first_bad(self) -> tuple[int, Array] | None:
        """The number of the first such step, from 1, and the statistics of its batch; None while there is none.

        Makes the caller wait until the device has done its steps.
        """
        for bad, images in zip(each_replica(self.bad), each_replica(self.images), strict=True):
            if bad:
                return int(bad), images
        return None


class FittedModel(keras.Model):
    """A functional model whose training step watches the loss, averages the weights and blends losses.

    Attributes:
        watch: See `StepWatch`.
        average: Of the weights; None where the recipe asks for none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch = StepWatch()
        self.average: WeightAverage | None = None

    def layer_of(self, kind: type[keras.Layer]) -> Any:
        """The layer of a type in front of the model, None where there is none."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of training."""
        logs = super().train_step(data)
        self.watch.note(logs["loss"], tf.convert_to_tensor(self.layer_of(InputStatistics).last.value))
        if self.average is not None:
            self.average.update()
        return dict(logs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss; under mixup that of both labels, each with its own weight, by the images' shares."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        mixup = self.layer_of(Mixup)
        if mixup is None or not training:
            return loss
        share = tf.convert_to_tensor(mixup.share)
        weight = None if sample_weight is None else neighbours(sample_weight)
        return share * loss + (1.0 - share) * super().compute_loss(x, neighbours(y), y_pred, weight, training)


def training_model(
    model: keras.Model,
    augmentation: Augmentation,
    seed: int,
    mixup: float = 0.0,
    stains: tuple[StainSpread, ...] = (),
) -> FittedModel:
    """Puts augmentation into a model, sharing its weights.

    Images are first prepared as they always are (stains normalised, resized, cropped) and changed then: a crop that is
    square can be turned any way, where the whole image can't, and holds fewer pixels.

    Args:
        model: Takes float32[N, H, W, C] in grey levels 0-255.
        augmentation: What to change; the statistics of each batch are kept in any case (see `InputStatistics`).
        seed: Of all random changes.
        mixup: Alpha of mixup; 0 for none.
        stains: What random stains are drawn from, empty for none.

    Returns:
        A model of the same inputs and outputs, named `training`.
    """
    images = keras.Input(model.input_shape[1:], dtype="float32", name="images")
    parts = models.split_model(model)
    x, network = (images, model) if parts is None else (parts[0](images), parts[1])
    for layer in layers(augmentation, seed, stains):
        x = layer(x)
    x = InputStatistics(name="input_statistics")(x)
    if mixup:
        x = Mixup(mixup, seed=seed * 8 + 5, name="mixup")(x)
    return FittedModel(images, network(x), name="training")
