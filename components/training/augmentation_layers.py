"""Augmentation as Keras layers: pure Keras 3, so they run in the training graph of any backend and under XLA.

Every layer takes grey levels 0-255, float or integer, gives the dtype that it took, keeps values in 0-255, changes
nothing outside training and nothing at strength zero, and draws from its own seed for every image on its own.
Sampling is written with gathers: Keras' own RandomRotation uses an op that XLA can't compile.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from components.core.array_types import Array
from components.images.stain_vectors import STAIN_MATRIX
from components.training.augment import Augment
from components.training.augmentation import Augmentation
from components.training.colour_spaces import grey_levels, optical_density
from components.training.stain_augmentation import RandomStain
from components.training.stain_targets import StainSpread


def layers(augmentation: Augmentation, seed: int, stains: tuple[StainSpread, ...] = ()) -> list[keras.Layer]:
    """The layers that carry out a recipe's augmentation, in order; empty for none.

    Args:
        augmentation: Strengths.
        seed: Each layer draws from its own seed made of this one.
        stains: What random stains are drawn from, empty for none.
    """
    a = augmentation
    made: list[keras.Layer] = []
    if a.flip or a.rotate90:
        made.append(RandomDihedral(a.flip, a.rotate90, seed=seed * 8 + 1, name="augment_dihedral"))
    if a.rotation or a.translation:
        made.append(RandomShiftAndTurn(a.rotation, a.translation, seed=seed * 8 + 2, name="augment_turn"))
    if stains:
        made.append(RandomStain(stains, seed=seed * 8 + 6, name="augment_random_stain"))
    if a.stain:
        made.append(StainJitter(a.stain, seed=seed * 8 + 3, name="augment_stain"))
    if a.contrast or a.brightness:
        made.append(RandomContrastBrightness(a.contrast, a.brightness, seed=seed * 8 + 4, name="augment_contrast"))
    return made


class RandomDihedral(Augment):
    """Flips and quarter turns; with both, each of the eight symmetries of the square is equally likely.

    Args:
        flip: Mirror on both axes with probability 1/2 each.
        rotate90: Turn by 0, 90, 180, 270 degrees; by 0 or 180 where height and width differ.
        seed: Of the draws.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, flip: bool = True, rotate90: bool = True, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.flip = flip
        self.rotate90 = rotate90

    @property
    def identity(self) -> bool:
        """Neither flips nor turns."""
        return not (self.flip or self.rotate90)

    def symmetries(self, height: int, width: int) -> Array:
        """Where each output pixel comes from, int32[K, H * W], for the K symmetries that are drawn from."""
        pixels = np.arange(height * width, dtype="int32").reshape(height, width)
        turns = (0, 1, 2, 3) if height == width else (0, 2)
        turned = [np.rot90(pixels, k) for k in (turns if self.rotate90 else (0,))]
        if self.flip:
            turned += [view[:, ::-1] for view in turned]
            if not self.rotate90:  # mirrors on both axes make a half turn as well
                turned += [view[::-1] for view in turned]
        return np.stack([view.reshape(-1) for view in turned])

    def augment(self, images: Any, count: Any) -> Any:
        """One gather for all: on CPUs three selects between mirror images took five times as long."""
        _, height, width, channels = images.shape
        table = self.symmetries(height, width)
        drawn = ops.cast(ops.floor(self.draw((count,)) * len(table)), "int32")
        first = ops.reshape(ops.arange(count, dtype="int32") * (height * width), (-1, 1))
        places = ops.take(ops.convert_to_tensor(table), drawn, axis=0) + first
        pixels = ops.take(ops.reshape(images, (-1, channels)), places, axis=0)
        return ops.reshape(pixels, (-1, height, width, channels))


class RandomShiftAndTurn(Augment):
    """Turns about the centre and shifts in one bilinear resampling; mirrors what comes in from outside.

    Args:
        rotation: Largest turn in degrees.
        translation: Largest shift as a fraction of the side.
        seed: Of the draws.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, rotation: float = 0.0, translation: float = 0.0, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.rotation = rotation
        self.translation = translation

    @property
    def identity(self) -> bool:
        """Neither turns nor shifts."""
        return self.rotation == 0 and self.translation == 0

    def augment(self, images: Any, count: Any) -> Any:
        """Samples every output pixel from where it came from."""
        height, width = images.shape[1], images.shape[2]
        angle = self.draw((count, 1, 1), -1.0, 1.0) * (self.rotation * math.pi / 180)
        shift_y = self.draw((count, 1, 1), -1.0, 1.0) * (self.translation * height)
        shift_x = self.draw((count, 1, 1), -1.0, 1.0) * (self.translation * width)
        y = ops.reshape(ops.arange(height, dtype="float32") - (height - 1) / 2, (1, height, 1)) - shift_y
        x = ops.reshape(ops.arange(width, dtype="float32") - (width - 1) / 2, (1, 1, width)) - shift_x
        cos, sin = ops.cos(angle), ops.sin(angle)
        return bilinear(images, cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2)


class RandomContrastBrightness(Augment):
    """Scales each image about its own channel means, then shifts all channels alike.

    Args:
        contrast: Factor from 1 - contrast to 1 + contrast.
        brightness: Shift from -brightness to brightness, as a fraction of 255.
        seed: Of the draws.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, contrast: float = 0.0, brightness: float = 0.0, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.contrast = contrast
        self.brightness = brightness

    @property
    def identity(self) -> bool:
        """Neither contrast nor brightness changes."""
        return self.contrast == 0 and self.brightness == 0

    def augment(self, images: Any, count: Any) -> Any:
        """(x - mean) * factor + mean + shift."""
        factor = self.draw((count, 1, 1, 1), 1 - self.contrast, 1 + self.contrast)
        shift = self.draw((count, 1, 1, 1), -self.brightness, self.brightness) * 255.0
        mean = ops.mean(images, axis=(1, 2), keepdims=True)
        return images * factor + (mean * (1.0 - factor) + shift)


class StainJitter(Augment):
    """Jitter of the stains in HED space: density of each stain times a factor, plus a shift.

    Tellez et al., Medical Image Analysis 58:101544 (2019), doi 10.1016/j.media.2019.101544; factor and shift are
    drawn per image and stain from U(1 - s, 1 + s) and U(-s, s), densities in decadic optical-density units.

    Args:
        strength: s.
        seed: Of the draws.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, strength: float = 0.05, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.strength = strength

    @property
    def identity(self) -> bool:
        """No jitter."""
        return self.strength == 0

    def augment(self, images: Any, count: Any) -> Any:
        """Unmixing, jitter and mixing are one 3x3 matrix and one vector per image, so they are applied at once."""
        factor = self.draw((count, 1, 3), 1 - self.strength, 1 + self.strength)
        shift = self.draw((count, 1, 3), -self.strength, self.strength)
        stains = np.array(STAIN_MATRIX, "float32")
        mix, unmix = ops.convert_to_tensor(stains), ops.convert_to_tensor(np.linalg.inv(stains))
        matrix = ops.matmul(unmix[None] * factor, mix)  # [N, 3, 3]
        density = ops.reshape(optical_density(images), (count, -1, 3))
        jittered = ops.matmul(density, matrix) + ops.matmul(shift, mix)
        return ops.reshape(grey_levels(jittered), ops.shape(images))


class InputStatistics(keras.Layer):
    """Passes images through and keeps what the last training batch looked like, for the NaN guard's message.

    The weight `last` holds minimum, maximum, mean, standard deviation and the share of constant images, of one
    replica where there are several.
    """

    NAMES = ("min", "max", "mean", "std", "constant")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.last = self.add_weight(
            shape=(5,), initializer="zeros", trainable=False, name="last", aggregation="only_first_replica"
        )

    def call(self, images: Any, training: bool = False) -> Any:
        """Gives back `images` as they are."""
        if training:
            flat = ops.reshape(ops.cast(images, "float32"), (ops.shape(images)[0], -1))
            low, high = ops.min(flat, axis=1), ops.max(flat, axis=1)
            mean = ops.mean(flat)
            std = ops.sqrt(ops.maximum(ops.mean(ops.square(flat)) - ops.square(mean), 0.0))
            constant = ops.mean(ops.cast(low == high, "float32"))
            self.last.assign(ops.stack([ops.min(low), ops.max(high), mean, std, constant]))
        return images


def bilinear(images: Any, y: Any, x: Any) -> Any:
    """Samples images at fractional places, mirrored at the edge pixels.

    Args:
        images: float32[N, H, W, C].
        y: float32[N, H, W], rows to sample at.
        x: float32[N, H, W], columns.

    Returns:
        float32[N, H, W, C].
    """
    _, height, width, channels = images.shape
    y, x = _mirror(y, height), _mirror(x, width)
    top, left = ops.floor(y), ops.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    row0, column0 = ops.cast(top, "int32"), ops.cast(left, "int32")
    row1, column1 = ops.minimum(row0 + 1, height - 1), ops.minimum(column0 + 1, width - 1)
    flat = ops.reshape(images, (-1, channels))
    first = ops.reshape(ops.arange(ops.shape(images)[0], dtype="int32") * (height * width), (-1, 1, 1))

    def pick(row: Any, column: Any) -> Any:
        return ops.take(flat, first + row * width + column, axis=0)

    upper = pick(row0, column0) * (1 - right) + pick(row0, column1) * right
    lower = pick(row1, column0) * (1 - right) + pick(row1, column1) * right
    return upper * (1 - down) + lower * down


def _mirror(place: Any, size: int) -> Any:
    """Folds places outside [0, size - 1] back in, as often as needed."""
    if size == 1:
        return ops.zeros_like(place)
    period = 2.0 * (size - 1)
    folded = ops.mod(place, period)
    return ops.minimum(folded, period - folded)
