"""Stain normalisation as Keras layers: every image is brought to one target, in training and in the exported graph.

An image that says too little of its stains (blank, almost no tissue, a single colour) is left as it is: there is
nothing to estimate, and dividing by nothing gives no number.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from components.training.colour_spaces import (
    LIGHT,
    TISSUE_DENSITY,
    TISSUE_SHARE,
    lab_to_rgb,
    moments,
    rgb_to_lab,
    tissue,
)
from components.training.stain_targets import StainTarget

SMALLEST_STD = 0.5
"""Standard deviation of L* below which an image is of a single colour."""

LARGEST_GAIN = 5.0
"""Contrast and amounts of stain grow by this factor at most: what is almost absent would become noise."""

LEAST_PLANE = 1e-3
"""Sine squared of the angle between two stains below which they are the same one."""


def layer(target: StainTarget, **kwargs: Any) -> keras.Layer:
    """The layer that normalises to a target."""
    kinds = {"reinhard": Reinhard, "macenko": Macenko}
    return kinds[target.method](target, **kwargs)


class _Normalisation(keras.Layer):
    """What both share: pixels in one row, images that say nothing left alone, grey levels kept in 0-255."""

    def __init__(self, target: StainTarget, **kwargs: Any) -> None:
        # Statistics of colours need float32 whatever the precision of the model behind.
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.target = target

    def normalise(self, levels: Any) -> tuple[Any, Any]:
        """(normalised float32[N, P, 3], bool[N] of images that could be) of grey levels [N, P, 3]."""
        raise NotImplementedError

    def call(self, images: Any) -> Any:
        """[N, H, W, 3] to [N, H, W, 3], the same with and without training."""
        _, height, width, channels = images.shape
        levels = ops.reshape(images, (-1, height * width, channels))
        changed, able = self.normalise(levels)
        levels = ops.where(able[:, None, None], ops.clip(changed, 0.0, 255.0), levels)
        return ops.reshape(levels, (-1, height, width, channels))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Nothing changes but colours."""
        return input_shape


class Reinhard(_Normalisation):
    """Mean and standard deviation of L*, a*, b* over the tissue of an image are made those of the target.

    Reinhard et al., "Color transfer between images", IEEE CG&A 21(5):34-41 (2001), doi 10.1109/38.946629; in CIELAB, as
    usual for histology, in place of their l-alpha-beta. Glass takes no part in the statistics, or an edge patch would
    be coloured by its share of it, but goes the same way as the tissue.
    """

    def normalise(self, levels: Any) -> tuple[Any, Any]:
        """(x - mean) * wanted std / std + wanted mean, per channel."""
        weights = tissue(levels)
        lab = rgb_to_lab(levels)
        mean, std = moments(lab, weights)
        able = (ops.mean(weights, axis=1) >= TISSUE_SHARE) & (std[:, 0, 0] >= SMALLEST_STD)
        return lab_to_rgb(transfer(lab, mean, std, *(np.array(row, "float32") for row in self.target.rows))), able


def transfer(values: Any, mean: Any, std: Any, wanted_mean: Any, wanted_std: Any) -> Any:
    """Gives values of a mean and a standard deviation other ones; contrast grows by `LARGEST_GAIN` at most."""
    gain = ops.minimum(wanted_std / ops.maximum(std, 1e-6), LARGEST_GAIN)
    return (values - mean) * gain + wanted_mean


class Macenko(_Normalisation):
    """The two stains of an image are found, and their amounts painted with the stains of the target.

    Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009:1107-1110,
    doi 10.1109/ISBI.2009.5193250.
    """

    def normalise(self, levels: Any) -> tuple[Any, Any]:
        """Amounts, scaled so that their 99th percentiles are the target's, times the target's stains."""
        _, amounts, highest, able = stains_of(levels)
        gain = ops.minimum(np.array(self.target.amounts, "float32") / ops.maximum(highest, 1e-6), LARGEST_GAIN)
        density = ops.matmul(amounts * gain[:, None, :], np.array(self.target.rows, "float32"))
        # An amount far below 0 would be brighter than any light, to the point of overflow.
        return ops.exp(ops.minimum(-density, 1.0)) * LIGHT, able


def stains_of(levels: Any) -> tuple[Any, Any, Any, Any]:
    """Finds haematoxylin and eosin in each image.

    Optical densities of tissue lie near a plane; within it, the directions at the 1st and 99th percentile of the angle
    are taken for the two stains, the redder density being haematoxylin's.

    Args:
        levels: Grey levels float32[N, P, 3].

    Returns:
        (stains [N, 2, 3] as unit densities, amounts [N, P, 2], their 99th percentiles [N, 2], bool[N] of images
        whose two stains could be told apart; what stands for the others is finite, and means nothing).
    """
    density = ops.log((levels + 1.0) / LIGHT) * -1.0
    pixels = levels.shape[1]
    found = ops.all(density >= TISSUE_DENSITY, axis=-1)
    weights = ops.cast(found, "float32")[..., None]
    count = ops.sum(weights, axis=1, keepdims=True)
    mean = ops.sum(density * weights, axis=1, keepdims=True) / ops.maximum(count, 1.0)
    centred = (density - mean) * weights
    covariance = ops.matmul(ops.transpose(centred, (0, 2, 1)), centred) / ops.maximum(count - 1.0, 1.0)
    axes = ops.linalg.eigh(covariance)[1][:, :, 1:]  # [N, 3, 2], the largest last
    flat = ops.matmul(density, axes)
    angle = ops.arctan2(flat[..., 1], flat[..., 0])
    ends = percentiles(angle, found, (0.01, 0.99))  # [N, 2]
    both = ops.matmul(ops.stack([ops.cos(ends), ops.sin(ends)], axis=-1), ops.transpose(axes, (0, 2, 1)))
    ordered = both[:, :1, :1] > both[:, 1:, :1]
    stains = ops.where(ordered, both, ops.flip(both, axis=1))
    cosine = ops.sum(stains[:, 0] * stains[:, 1], axis=-1)[:, None]
    plane = 1.0 - ops.square(cosine)
    shadow = ops.matmul(density, ops.transpose(stains, (0, 2, 1)))
    # Least squares in the plane, with unit vectors at this cosine.
    amounts = (shadow - cosine[..., None] * ops.flip(shadow, axis=-1)) / ops.maximum(plane, LEAST_PLANE)[..., None]
    everywhere = ops.ones_like(found)
    highest = ops.stack([percentiles(amounts[..., i], everywhere, (0.99,))[:, 0] for i in range(2)], axis=-1)
    able = (count[:, 0, 0] >= max(3.0, TISSUE_SHARE * pixels)) & (plane[:, 0] > LEAST_PLANE)
    able = able & ops.all(highest > 1e-3, axis=-1)
    return stains, amounts, highest, able


def percentiles(values: Any, where: Any, shares: tuple[float, ...]) -> Any:
    """Percentiles of the values that count, with linear interpolation, as NumPy's default.

    Args:
        values: float32[N, P].
        where: bool[N, P], what counts.
        shares: Of the values below, 0-1.

    Returns:
        float32[N, number of shares]; 0 where nothing counts.
    """
    ordered = ops.sort(ops.where(where, values, 3e38), axis=1)
    last = ops.maximum(ops.sum(ops.cast(where, "int32"), axis=1, keepdims=True) - 1, 0)
    place = ops.cast(last, "float32") * np.array([shares], "float32")
    lower = ops.cast(ops.floor(place), "int32")
    upper = ops.minimum(lower + 1, last)
    low, high = (ops.take_along_axis(ordered, i, axis=1) for i in (lower, upper))
    inner = low + (high - low) * (place - ops.cast(lower, "float32"))
    return ops.where(ops.any(where, axis=1, keepdims=True), inner, 0.0)
