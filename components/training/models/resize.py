"""Bilinear resizing as a layer, and as what small images need before a backbone."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Resize(keras.Layer):
    """Resizes images bilinearly, half-pixel centres, no antialiasing.

    In place of `keras.layers.Resizing`: that one's `call` has `training=True` as its default, which Keras 3.12 hands
    on to all layers behind it when a model is called without `training`; batch normalisation would then learn from
    what it serves.

    Args:
        height: Of the result, in pixels.
        width: Likewise.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, height: int, width: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.height = height
        self.width = width

    def call(self, images: Any) -> Any:
        """[N, H, W, C] to [N, height, width, C]."""
        return ops.image.resize(images, (self.height, self.width), interpolation="bilinear")

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Only height and width change."""
        return (input_shape[0], self.height, self.width, input_shape[3])


def enlarged(images: Any, shorter_side: int) -> Any:
    """Resizes images whose shorter side is below a length, in proportion, by a layer `resize`; others stay as they are.

    Args:
        images: KerasTensor [N, H, W, C].
        shorter_side: In pixels.
    """
    height, width = images.shape[1:3]
    scale = shorter_side / min(height, width)
    return images if scale <= 1 else Resize(round(height * scale), round(width * scale), name="resize")(images)
