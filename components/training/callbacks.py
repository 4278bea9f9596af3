"""Keras callbacks: stop on a loss that is no number, a line per epoch, random streams that survive a restart."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.core.array_types import Array
from components.errors import DataError
from components.training.augmentation_layers import InputStatistics
from components.training.epoch_line import EpochFacts
from components.training.phases import leaf_layers

CHECK_EVERY = 50
"""Batches between two looks of the NaN guard."""


class NanGuard(keras.callbacks.Callback):
    """Ends training with `DataError` (exit 65) where a batch had a loss or pixels that are not finite.

    The device notes which batch that was (`StepWatch`) and is asked now and then only: whoever asks waits for it. The
    loss alone does not tell: oneDNN's fused kernels for AVX-512 answer relu(NaN) with 0, so a network whose weights
    are lost goes on with a finite loss there. So weights are looked at too.

    The message says what the batch looked like (from the `InputStatistics` layer of the training model), what in it
    looks wrong, and which layers hold weights that are not finite.

    Args:
        first_epoch: Number of epochs of earlier phases, for the message.
        every: Batches from one look to the next; the first look is after the first batch.
    """

    def __init__(self, first_epoch: int = 0, every: int = CHECK_EVERY) -> None:
        super().__init__()
        self._first = first_epoch
        self._every = every
        self._epoch = 0
        self._looked = 0
        self._next = 1

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch
        self._looked, self._next = 0, 1
        self.model.watch.start()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at what the batches before this one left, where it is time to.

        Not at a batch's end: Keras fetches the logs of every batch for a callback that wants to see its end.

        Raises:
            DataError: A loss or a weight is not finite.
        """
        if batch >= self._next:
            self._look(batch)
            self._looked, self._next = batch, batch + self._every

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the validation loss too.

        Raises:
            DataError: It, a loss or a weight is not finite.
        """
        self._look(None)
        value = (logs or {}).get("val_loss")
        if value is not None and not math.isfinite(value):
            raise DataError(f"val_loss became {value} after epoch {self._number}: {explain(self.model)}", FIX)

    @property
    def _number(self) -> int:
        return self._first + self._epoch + 1

    def _look(self, batch: int | None) -> None:
        """Looks at the losses and weights that `batch` batches of the epoch, or all of them, left."""
        found = self.model.watch.first_bad()
        if found is not None:
            number, images = found
            what = "loss became nan" if np.isfinite(images).all() else "images were not finite"
            raise DataError(f"{what} in epoch {self._number}, batch {number}: {explain(self.model, images)}", FIX)
        if lost_layers(self.model):
            where = f"after epoch {self._number}"
            if batch is not None:
                first = self._looked + 1
                where = f"in epoch {self._number}, batch {first if first == batch else f'{first} to {batch}'}"
            raise DataError(f"weights became nan {where}: {explain(self.model)}", FIX)


class EpochCallbacks(keras.callbacks.CallbackList):
    """A list of callbacks, for `fit`, that fetches the logs of a batch for those only who want to see its end.

    Keras' own fetches them in any case, by a thread for each batch where nobody looks.

    Args:
        callbacks: In the order in which they are called.
        model: What is fitted.
    """

    def __init__(self, callbacks: list[keras.callbacks.Callback], model: keras.Model) -> None:
        super().__init__(callbacks, add_history=True, model=model)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Passes a batch's end on to whoever overrides the method."""
        wanted = keras.callbacks.Callback.on_train_batch_end
        if any(type(callback).on_train_batch_end is not wanted for callback in self.callbacks):
            super().on_train_batch_end(batch, logs)


FIX = "Lower the learning rate, check the images of the training split, or set mixed_precision to off."


def explain(model: keras.Model, images: Array | None = None) -> str:
    """What a training batch looked like, what in it looks wrong, and where weights are not finite.

    Args:
        model: The training model.
        images: Statistics of the batch that was bad; those of the last one where it is not known.
    """
    which = "last" if images is None else "bad"
    statistics = model.layer_of(InputStatistics).last if images is None else images
    values = dict(zip(InputStatistics.NAMES, np.asarray(statistics), strict=True))
    findings = [
        f"the {which} batch had pixels from {values['min']:.4g} to {values['max']:.4g}, mean {values['mean']:.4g}, "
        f"standard deviation {values['std']:.4g}, {values['constant']:.0%} constant images",
        judge(values),
    ]
    # The step of the bad batch has been taken by now, so weights that it reached are lost too.
    broken = lost_layers(model)
    if broken:
        more = f" and {len(broken) - 3} more layers" if len(broken) > 3 else ""
        findings.append(f"weights that are not finite are in {', '.join(broken[:3])}{more}")
    rate = float(np.asarray(model.optimizer.learning_rate)) if model.optimizer is not None else math.nan
    return "; ".join([*findings, f"the learning rate is {rate:.3g}."])


def lost_layers(model: keras.Model) -> list[str]:
    """Names of the layers that hold weights which are not finite."""
    held = [layer for layer in leaf_layers(model) if layer.weights and not isinstance(layer, InputStatistics)]
    # Judged where they lie: one truth value a layer comes back.
    finite = np.asarray(_finite([[tf.convert_to_tensor(w.value) for w in layer.weights] for layer in held]))
    return [layer.name for layer, whole in zip(held, finite, strict=True) if not whole]


@tf.function(autograph=False)
def _finite(weights: list[list[Any]]) -> Any:
    """bool[L]: whether all weights of each layer are finite."""
    return tf.stack([tf.reduce_all([tf.reduce_all(tf.math.is_finite(w)) for w in layer]) for layer in weights])


def judge(values: dict[str, float]) -> str:
    """Which statistics of a batch look wrong for stained tissue, in words.

    Args:
        values: By the names of `InputStatistics.NAMES`.
    """
    if not all(math.isfinite(v) for v in values.values()):
        return "some pixels are not finite, so the images are damaged"
    if values["min"] < 0 or values["max"] > 255:
        return "pixels lie outside 0-255, so the images are damaged"
    if values["max"] <= 1:
        return "no pixel is above 1, so the images seem to be scaled twice, or are black"
    if values["constant"] > 0.5 or values["std"] < 2:
        return "most images are constant, so there is next to nothing to learn from"
    return "nothing in these looks wrong, so the optimizer has probably diverged"


class EpochLine(keras.callbacks.Callback):
    """One line per epoch: where training is, loss and metrics, seconds, images per second, learning rate.

    Args:
        images_per_epoch: Training images per epoch.
        epochs: Of all phases.
        phases: Number of phases.
        phase: Index of this one.
        first_epoch: Number of epochs of earlier phases.
        emit: Takes the line.
    """

    def __init__(
        self,
        images_per_epoch: int,
        epochs: int,
        *,
        phases: int = 1,
        phase: int = 0,
        first_epoch: int = 0,
        emit: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self._images = images_per_epoch
        self._epochs = epochs
        self._phase, self._phases = phase, phases
        self._first = first_epoch
        self._emit = emit
        self._begun = 0.0
        self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._begun = time.perf_counter()
        self._trained = 0.0

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Training of the epoch is over, validation begins."""
        self._trained = time.perf_counter() - self._begun

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the line."""
        seconds = time.perf_counter() - self._begun
        facts = EpochFacts(
            epoch=self._first + epoch + 1,
            epochs=self._epochs,
            figures={name: value for name, value in (logs or {}).items() if name != "learning_rate"},
            seconds=seconds,
            images_per_second=self._images / max(self._trained or seconds, 1e-9),
            learning_rate=float(np.asarray(self.model.optimizer.learning_rate)),
            phase=self._phase + 1,
            phases=self._phases,
        )
        self._emit(facts.to_line())


class SeedPerEpoch(keras.callbacks.Callback):
    """Sets every random stream of the model (dropout, crops, augmentation) anew at each epoch from (seed, epoch).

    Checkpoints don't hold the streams' states; so a run that resumes draws what an unbroken run would have drawn.

    Args:
        seed: Of the recipe.
        first_epoch: Number of epochs of earlier phases.
    """

    def __init__(self, seed: int, first_epoch: int = 0) -> None:
        super().__init__()
        self._seed = seed
        self._first = first_epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the streams."""
        reseed(self.model, self._seed, self._first + epoch)


def reseed(model: keras.Model, seed: int, epoch: int) -> int:
    """Sets the state of every seed generator in a model from seed, epoch and place in the model.

    Returns:
        How many there are.
    """
    generators = [generator for layer in leaf_layers(model) for generator in layer._seed_generators]
    for place, generator in enumerate(generators):
        key = hashlib.sha256(f"{seed}:{epoch}:{place}".encode()).digest()
        generator.state.assign(np.array([int.from_bytes(key[:4], "big") & 0x7FFFFFFF, 0]))
    return len(generators)
