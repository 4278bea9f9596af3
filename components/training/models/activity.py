"""Regularisation of what a layer gives."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class MeanSquaredActivity(keras.regularizers.Regularizer):
    """L2 on a layer's activity: strength times the sum of squares of each image, averaged over the batch.

    In place of `keras.regularizers.L2`, which Keras 3 sums over the batch, so that its weight in the loss would grow
    with the batch size.

    Args:
        strength: Factor of the penalty.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, activity: Any) -> Any:
        """The penalty, a float32 scalar, of [N, ...]."""
        squares = ops.square(ops.cast(activity, "float32"))
        return self.strength * ops.sum(squares) / ops.cast(ops.shape(activity)[0], "float32")
