"""Random stains: each training patch is given the colour statistics of a patch that the training set could hold."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from components.training.augment import Augment
from components.training.colour_spaces import FROM_SPACE, TISSUE_SHARE, TO_SPACE, moments, rgb_to_lab, tissue
from components.training.stain_normalisation import SMALLEST_STD, transfer
from components.training.stain_targets import StainSpread

LEAST_STD = 0.2
"""A drawn standard deviation is at least this share of the usual one, so that no patch loses its contrast."""


class RandomStain(Augment):
    """Brings each patch to a mean and a standard deviation per channel that are drawn for it alone.

    After Shen et al., "RandStainNA: Learning Stain-Agnostic Features from Histology Slides by Bridging Stain
    Augmentation and Normalization", MICCAI 2022, doi 10.1007/978-3-031-16434-7_21: normal distributions over the
    training set's patches, one colour space of several drawn for each patch, Reinhard's transfer to what was drawn.
    Ours: statistics are over the tissue of a patch, and a patch without tissue stays as it is.

    Args:
        spreads: Of each colour space that may be drawn; none leaves images as they are.
        seed: Of the draws.
        **kwargs: To `keras.Layer`.
    """

    def __init__(self, spreads: tuple[StainSpread, ...], *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.spreads = spreads

    @property
    def identity(self) -> bool:
        """Nothing was measured."""
        return not self.spreads

    def augment(self, images: Any, count: Any) -> Any:
        """Every colour space is computed for every patch, and one result taken: a batch is one graph."""
        _, height, width, channels = images.shape
        levels = ops.reshape(images, (-1, height * width, channels))
        weights = tissue(levels)
        lightness = moments(rgb_to_lab(levels), weights)[1][:, 0, 0]
        able = (ops.mean(weights, axis=1) >= TISSUE_SHARE) & (lightness >= SMALLEST_STD)
        drawn = ops.floor(self.draw((count, 1, 1)) * len(self.spreads))
        changed = levels
        for number, spread in enumerate(self.spreads):
            mean, std = moments(TO_SPACE[spread.space](levels), weights)
            wanted_mean = self._normal(count, spread.mean, spread.mean_spread)
            wanted_std = self._normal(count, spread.std, spread.std_spread)
            wanted_std = ops.maximum(wanted_std, LEAST_STD * np.array(spread.std, "float32"))
            new = FROM_SPACE[spread.space](
                transfer(TO_SPACE[spread.space](levels), mean, std, wanted_mean, wanted_std)
            )
            changed = ops.where(drawn == number, new, changed)
        return ops.reshape(ops.where(able[:, None, None], changed, levels), (-1, height, width, channels))

    def _normal(self, count: Any, mean: Any, spread: Any) -> Any:
        noise = keras.random.normal((count, 1, 3), dtype="float32", seed=self.seed_generator)
        return noise * np.array(spread, "float32") + np.array(mean, "float32")
