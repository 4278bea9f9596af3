"""An exponential moving average of a model's weights, kept on the devices; what is evaluated and exported.

Keras' optimizers have one too. It leaves out the moving statistics of BatchNormalization, starts from the weights of
the first step with all of its decay (so that a short phase is mostly its beginning), and ends with each optimizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.core.array_types import Array


def replica_variable(value: Any, dtype: Any) -> tf.Variable:
    """A variable of which each replica has its own; read from outside it is the first one's.

    Args:
        value: At the start.
        dtype: Not int32, which TensorFlow keeps on the host.
    """
    return tf.Variable(
        value,
        dtype=dtype,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def each_replica(variable: tf.Variable) -> list[Array]:
    """The values of such a variable in the replicas of this machine."""
    return [np.asarray(part) for part in getattr(variable, "values", (variable,))]


class WeightAverage:
    """The averages of all weights of a model; to be made inside the strategy's scope.

    Every replica averages for itself: weights are the same in all of them, so nothing is sent. Random streams and what
    else is no floating-point number are left out.

    Args:
        model: Whose weights; in the order of its variables.
        decay: Share of the average that a step keeps, less in the first steps: (1 + t) / (10 + t) at most, as in
            TensorFlow's `ExponentialMovingAverage(num_updates)`.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        self.decay = decay
        self.variables = [v for v in model.variables if "float" in keras.backend.standardize_dtype(v.dtype)]
        self.averages = [replica_variable(np.asarray(v), "float32") for v in self.variables]
        self.steps = replica_variable(0, "int64")

    def start(self) -> None:
        """Begins anew with the weights as they are."""
        self.assign([np.asarray(v) for v in self.variables] + [np.zeros((), np.int64)])

    def update(self) -> None:
        """Takes the weights after a step; part of the training graph."""
        step = tf.cast(self.steps.assign_add(1, read_value=True), tf.float32)
        keep = tf.minimum(self.decay, step / (9.0 + step))
        for variable, average in zip(self.variables, self.averages, strict=True):
            # As a difference: where a weight does not move, neither does its average.
            average.assign_add((tf.cast(tf.convert_to_tensor(variable.value), tf.float32) - average) * (1.0 - keep))

    def arrays(self) -> list[Array]:
        """The averages and the number of steps, for a checkpoint."""
        return [each_replica(v)[0] for v in (*self.averages, self.steps)]

    def assign(self, arrays: Sequence[Array]) -> None:
        """Takes what `arrays` gave.

        Raises:
            ValueError: They are of another model.
        """
        for variable, value in zip((*self.averages, self.steps), arrays, strict=True):
            variable.assign(value)

    def keep(self) -> None:
        """Puts the averages into the model for good."""
        for variable, average in zip(self.variables, self.averages, strict=True):
            variable.assign(each_replica(average)[0])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the averages into the model for a while."""
        weights = [np.asarray(v) for v in self.variables]
        self.keep()
        try:
            yield
        finally:
            for variable, value in zip(self.variables, weights, strict=True):
                variable.assign(value)


class EvaluateAverage(keras.callbacks.Callback):
    """Has validation see the averages.

    Args:
        average: Of the model's weights.
    """

    def __init__(self, average: WeightAverage) -> None:
        super().__init__()
        self._average = average
        self._swap = contextlib.ExitStack()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Swaps them in."""
        self._swap.enter_context(self._average.in_place())

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Swaps the weights back."""
        self._swap.close()
