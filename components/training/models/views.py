"""Several views of one image, averaged in evaluation: crops and turns. One view per image in training.

The views lie behind each other in the batch, so the layers between see an ordinary batch.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


def crop_offsets(length: int, crop: int) -> list[int]:
    """Where fixed crops start along one side, from edge to edge.

    Neighbours lie at most half a crop apart. Where what is left over is less than an eighth of the crop, one crop in
    the middle stands for all.

    Args:
        length: Of the side in pixels, at least `crop`.
        crop: Side of the crops.
    """
    slack = length - crop
    if slack < crop / 8:
        return [slack // 2]
    steps = math.ceil(slack / (crop / 2))
    return [round(i * slack / steps) for i in range(steps + 1)]


class CropViews(keras.Layer):
    """Square crops: a random one for each image in training, every fixed one (`crop_offsets`) otherwise.

    Args:
        size: Side of the crops; a side of the image that is shorter is taken whole.
        seed: Of the random places.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, size: int, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size = size
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def _sides(self, shape: tuple[Any, ...]) -> tuple[int, int]:
        return min(self.size, shape[1]), min(self.size, shape[2])

    def _corners(self, shape: tuple[Any, ...]) -> list[tuple[int, int]]:
        high, wide = self._sides(shape)
        return [(y, x) for y in crop_offsets(shape[1], high) for x in crop_offsets(shape[2], wide)]

    def count(self, shape: tuple[Any, ...]) -> int:
        """Number of views outside training of images of a shape [N, H, W, C]."""
        return len(self._corners(shape))

    def call(self, images: Any, training: bool = False) -> Any:
        """[N, H, W, C] to [N, size, size, C] in training, [count * N, size, size, C] otherwise."""
        high, wide = self._sides(images.shape)
        if not training:
            views = [images[:, y : y + high, x : x + wide] for y, x in self._corners(images.shape)]
            return ops.concatenate(views, axis=0) if len(views) > 1 else views[0]
        images = self._random(images, images.shape[1] - high, high, axis=1)
        return self._random(images, images.shape[2] - wide, wide, axis=2)

    def _random(self, images: Any, slack: int, size: int, axis: int) -> Any:
        if slack == 0:
            return images
        start = keras.random.randint((ops.shape(images)[0], 1), 0, slack + 1, seed=self.seed_generator)
        places = start + ops.arange(size, dtype="int32")
        places = ops.expand_dims(places, (2, 3) if axis == 1 else (1, 3))
        return ops.take_along_axis(images, places, axis=axis)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """The batch grows by an unknown factor."""
        return (None, *self._sides(input_shape), input_shape[3])


class TurnedViews(keras.Layer):
    """The image itself in training; several of its symmetries otherwise.

    Two are the image and its mirror image, four its quarter turns, eight those and their mirror images. An image that
    is not square has four symmetries at most: itself, a half turn and two mirror images.

    Args:
        views: 1, 2, 4 or 8.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, views: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.views = views

    def count(self, shape: tuple[Any, ...]) -> int:
        """Number of views outside training of images of a shape [N, H, W, C]."""
        return self.views if shape[1] == shape[2] else min(4, self.views)

    def call(self, images: Any, training: bool = False) -> Any:
        """[N, H, W, C] to [N, H, W, C] in training, [count * N, H, W, C] otherwise."""
        count = self.count(images.shape)
        if training or count == 1:
            return images
        views = [images]
        if count > 2:
            views.append(_half_turn(images))
            if images.shape[1] == images.shape[2]:
                turned = ops.flip(ops.transpose(images, (0, 2, 1, 3)), axis=1)
                views += [turned, _half_turn(turned)]
        if len(views) < count:
            views += [ops.flip(view, axis=2) for view in views]
        return ops.concatenate(views, axis=0)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """The batch grows by an unknown factor."""
        return (None, *input_shape[1:])


def _half_turn(images: Any) -> Any:
    return ops.flip(ops.flip(images, axis=1), axis=2)


class MeanOverViews(keras.Layer):
    """Averages logits over the views of each image outside training.

    The mean of logits is the (normalised) geometric mean of the views' probabilities; it stays a logit, so one
    temperature fits it like any other.

    Args:
        count: Number of views.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.count = count

    def call(self, logits: Any, training: bool = False) -> Any:
        """[count * N, C] to [N, C]; as it is in training."""
        if training or self.count == 1:
            return logits
        return ops.mean(ops.reshape(logits, (self.count, -1, logits.shape[-1])), axis=0)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """The batch shrinks back to the images."""
        return (None, *input_shape[1:])
