"""A patient's stain, and how densities of dye become colour.

Two density maps, haematoxylin and eosin, become RGB by the law of Lambert and Beer:
`I = I0 * 10 ** -(h * H + e * E)` with stain vectors H and E in optical density. The vectors are those of
A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical staining by color deconvolution",
Anal Quant Cytol Histol 23:291-299 (2001); eosin varies between theirs, which is magenta, and the default
of QuPath (P. Bankhead et al., Sci Rep 7:16878, 2017), which is nearer to what scanners see.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from components.images.stain_vectors import EOSIN, HAEMATOXYLIN

Field = NDArray[np.float32]

EOSIN_SCANNED = (0.216, 0.801, 0.558)
"""Stain vector of eosin in optical density (R, G, B), as QuPath expects it."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """What all patches of one patient have in common: the laboratory's hand, not the disease.

    Attributes:
        stains: (2, 3) unit stain vectors, haematoxylin then eosin.
        nuclear: Mean haematoxylin density inside nuclei (optical density).
        eosin: Mean eosin density of tissue (optical density).
        haze: Haematoxylin density of cytoplasm and stroma (optical density).
        light: (3,) intensity of the empty slide, 0 to 255.
        coverage: Fraction of tissue that nuclei cover.
        lumen: Mean fraction of a patch that is empty slide.
        fibrosis: Contrast of stroma fibres, 0 to 1.
        blur: Weight of each neighbour in a three-tap blur, 0 (sharp) to 0.2.
        noise: Standard deviation of camera noise, grey levels.
        nuclear_size: Factor on all nuclear radii.
    """

    stains: NDArray[np.float32]
    nuclear: float
    eosin: float
    haze: float
    light: NDArray[np.float32]
    coverage: float
    lumen: float
    fibrosis: float
    blur: float
    noise: float
    nuclear_size: float


def signature(rng: np.random.Generator) -> Signature:
    """Draws a patient's signature, independent of the patient's labels."""
    scanned = rng.uniform(0.3, 1.0)
    eosin = (1.0 - scanned) * np.array(EOSIN) + scanned * np.array(EOSIN_SCANNED)
    stains = np.array([HAEMATOXYLIN, eosin]) + rng.normal(0.0, [[0.05, 0.05, 0.06], [0.04, 0.04, 0.04]])
    stains = np.clip(stains, 0.02, None)
    return Signature(
        stains=(stains / np.linalg.norm(stains, axis=1, keepdims=True)).astype(np.float32),
        nuclear=float(0.62 * np.exp(rng.normal(0.0, 0.16))),
        eosin=float(0.25 * np.exp(rng.normal(0.0, 0.26))),
        haze=float(0.07 * np.exp(rng.normal(0.0, 0.35))),
        light=(rng.uniform(235.0, 252.0) * (1.0 - rng.uniform(0.0, 0.05, 3))).astype(np.float32),
        coverage=float(rng.uniform(0.15, 0.24)),
        lumen=float(rng.uniform(0.02, 0.2)),
        fibrosis=float(rng.uniform(0.25, 0.6)),
        blur=float(rng.uniform(0.0, 0.12)),
        noise=float(rng.uniform(1.0, 4.5)),
        nuclear_size=float(rng.uniform(0.93, 1.07)),
    )


def stained(
    haematoxylin: Field, eosin: Field, sign: Signature, blurs: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """What the camera sees of two density maps (height, width): uint8 (height, width, 3), RGB.

    Args:
        haematoxylin: Optical density of haematoxylin along its own stain vector.
        eosin: Likewise of eosin.
        sign: Stain vectors, light, blur and noise.
        blurs: How often the three-tap blur is applied.
        rng: Source of the noise.
    """
    for _ in range(blurs):
        haematoxylin, eosin = _blurred(haematoxylin, sign.blur), _blurred(eosin, sign.blur)
    # Written out: a matrix product would wake the BLAS threads, and their number could change the last bit.
    density = haematoxylin[..., None] * sign.stains[0] + eosin[..., None] * sign.stains[1]
    rgb = sign.light * np.exp(np.float32(-np.log(10.0)) * density)
    rgb += rng.standard_normal(rgb.shape, dtype=np.float32) * np.float32(sign.noise)
    levels: NDArray[np.uint8] = np.clip(rgb + 0.5, 0.0, 255.0).astype(np.uint8)
    return levels


def _blurred(field: Field, weight: float) -> Field:
    """Three-tap blur along both axes; the frame's pixels stay."""
    side, middle = np.float32(weight), np.float32(1.0 - 2.0 * weight)
    field = field.copy()
    field[1:-1] = side * (field[:-2] + field[2:]) + middle * field[1:-1]
    field[:, 1:-1] = side * (field[:, :-2] + field[:, 2:]) + middle * field[:, 1:-1]
    return field
