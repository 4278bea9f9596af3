"""What stains are brought to, as plain numbers: read without Keras, kept with the exported model."""

from __future__ import annotations

import dataclasses
from typing import Any

NORMALISATIONS = ("none", "reinhard", "macenko")
"""What a recipe's `stain_normalisation` may say."""

AUGMENTATIONS = ("none", "lab", "hed", "both")
"""What a recipe's `stain_augmentation` may say."""

SPACES = ("lab", "hed")
"""Colour spaces whose statistics `stain_augmentation` draws."""

Vector = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class StainTarget:
    """What every image is normalised to.

    Attributes:
        method: `reinhard` or `macenko`.
        rows: For reinhard the mean and the standard deviation of L*, a*, b*; for macenko the unit optical densities
            (R, G, B) of haematoxylin and of eosin.
        amounts: For macenko the 99th percentiles of the amounts of haematoxylin and eosin; empty for reinhard.
    """

    method: str
    rows: tuple[Vector, Vector]
    amounts: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values under the names that the numbers have in their papers."""
        if self.method == "reinhard":
            return {"method": self.method, "lab_mean": list(self.rows[0]), "lab_std": list(self.rows[1])}
        return {
            "method": self.method,
            "haematoxylin": list(self.rows[0]),
            "eosin": list(self.rows[1]),
            "percentile_99": list(self.amounts),
        }


@dataclasses.dataclass(frozen=True)
class StainSpread:
    """How the patches of a training split differ in one colour space.

    Over the patches, of each patch's own mean and standard deviation per channel:

    Attributes:
        space: One of `SPACES`.
        mean: Mean of the means.
        mean_spread: Standard deviation of the means.
        std: Mean of the standard deviations.
        std_spread: Standard deviation of the standard deviations.
    """

    space: str
    mean: Vector
    mean_spread: Vector
    std: Vector
    std_spread: Vector
