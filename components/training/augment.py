"""What every layer of augmentation shares."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Augment(keras.Layer):
    """What the layers share: active in training only, same dtype out as in, values kept in 0-255."""

    def __init__(self, *, seed: int = 0, **kwargs: Any) -> None:
        # Grey levels and densities need float32 whatever the precision of the model behind.
        super().__init__(dtype="float32", autocast=False, trainable=False, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed % (2**31))

    @property
    def identity(self) -> bool:
        """Whether the strengths leave every image as it is."""
        raise NotImplementedError

    def augment(self, images: Any, count: Any) -> Any:
        """Changes float32[N, H, W, 3]; `count` is N."""
        raise NotImplementedError

    def draw(self, shape: tuple[Any, ...], low: float = 0.0, high: float = 1.0) -> Any:
        """Uniform random numbers of a shape."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.seed_generator)

    def call(self, images: Any, training: bool = False) -> Any:
        """Gives back images of the same shape and dtype, [N, H, W, 3]."""
        if not training or self.identity:
            return images
        dtype = keras.backend.standardize_dtype(images.dtype)
        out = ops.clip(self.augment(ops.cast(images, "float32"), ops.shape(images)[0]), 0.0, 255.0)
        return ops.cast(ops.round(out) if "int" in dtype else out, dtype)

    def compute_output_spec(self, images: Any, training: bool = False) -> keras.KerasTensor:
        """Same shape and dtype as the input."""
        return keras.KerasTensor(images.shape, dtype=images.dtype)
