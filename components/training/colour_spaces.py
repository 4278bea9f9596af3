"""Colour spaces in which stains are compared: CIELAB, and amounts of haematoxylin, eosin and a rest.

Written with Keras' own operations, in float32, for any number of images at once; grey levels are 0-255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from components.images.stain_vectors import STAIN_MATRIX

_LN10 = math.log(10.0)

XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], "float32"
)
"""Rows X, Y, Z of linear sRGB (ITU-R BT.709 primaries, white point D65)."""

WHITE = np.array([0.95047, 1.0, 1.08883], "float32")
"""X, Y, Z of D65 for the 2 degree observer."""

TISSUE_DENSITY = 0.15
"""Optical density (natural logarithm, against `LIGHT`) above which a pixel is tissue: Macenko et al. 2009."""

LIGHT = 240.0
"""Grey level of light that no tissue holds back."""

TISSUE_SHARE = 0.05
"""Share of tissue pixels below which a patch says nothing of its stains."""


def optical_density(images: Any) -> Any:
    """Decadic optical density -log10((I + 1) / 256) of grey levels I in 0-255; 0 for 255, 2.41 for black."""
    return ops.log((images + 1.0) / 256.0) * (-1.0 / _LN10)


def grey_levels(density: Any) -> Any:
    """The inverse of `optical_density`."""
    return ops.exp(density * -_LN10) * 256.0 - 1.0


def rgb_to_hed(levels: Any) -> Any:
    """Amounts of haematoxylin, eosin and DAB, [..., 3], after Ruifrok and Johnston 2001."""
    return ops.matmul(optical_density(levels), np.linalg.inv(np.array(STAIN_MATRIX, "float32")))


def hed_to_rgb(amounts: Any) -> Any:
    """The inverse of `rgb_to_hed`; not clipped."""
    return grey_levels(ops.matmul(amounts, np.array(STAIN_MATRIX, "float32")))


def rgb_to_lab(levels: Any) -> Any:
    """CIE 1976 L* (0-100), a* and b*, [..., 3], of sRGB grey levels (CIE 15:2004; IEC 61966-2-1)."""
    share = levels / 255.0
    # Both branches of a choice are computed: the base of a power is kept above 0.
    curved = ops.power((ops.maximum(share, 0.04045) + 0.055) / 1.055, 2.4)
    linear = ops.where(share > 0.04045, curved, share / 12.92)
    xyz = ops.matmul(linear, XYZ.T) / WHITE
    root = ops.power(ops.maximum(xyz, 0.008856), 1.0 / 3.0)
    f = ops.where(xyz > 0.008856, root, 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return ops.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def lab_to_rgb(lab: Any) -> Any:
    """The inverse of `rgb_to_lab`, kept in 0-255."""
    y = (lab[..., 0] + 16.0) / 116.0
    f = ops.stack([y + lab[..., 1] / 500.0, y, y - lab[..., 2] / 200.0], axis=-1)
    xyz = ops.where(f > 0.2068966, f * f * f, (f - 16.0 / 116.0) / 7.787) * WHITE
    linear = ops.matmul(xyz, np.linalg.inv(XYZ).T)
    curved = 1.055 * ops.power(ops.maximum(linear, 0.0031308), 1.0 / 2.4) - 0.055
    return ops.clip(ops.where(linear > 0.0031308, curved, 12.92 * linear) * 255.0, 0.0, 255.0)


TO_SPACE: dict[str, Callable[[Any], Any]] = {"lab": rgb_to_lab, "hed": rgb_to_hed}
FROM_SPACE: dict[str, Callable[[Any], Any]] = {"lab": lab_to_rgb, "hed": hed_to_rgb}


def tissue(levels: Any) -> Any:
    """Where the mean optical density of the channels says tissue: float32[N, P] of 0 and 1 for [N, P, 3]."""
    density = ops.mean(ops.log((levels + 1.0) / LIGHT), axis=-1) * -1.0
    return ops.cast(density > TISSUE_DENSITY, "float32")


def moments(values: Any, weights: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of each channel over the pixels of weight 1; 0 and 0 where there is none.

    Args:
        values: float32[N, P, 3].
        weights: float32[N, P] of 0 and 1.

    Returns:
        (float32[N, 1, 3], float32[N, 1, 3]).
    """
    weights = weights[..., None]
    count = ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1.0)
    mean = ops.sum(values * weights, axis=1, keepdims=True) / count
    variance = ops.sum(ops.square(values - mean) * weights, axis=1, keepdims=True) / count
    return mean, ops.sqrt(variance)
