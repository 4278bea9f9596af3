"""Colour features and perceptual hashes of whole blocks of patches at once.

Written once into every Example at ingest; drift checks and the trivial colour baseline read them.
All sums are sums of integers that float32 holds exactly, in whatever order a CPU adds them, so that equal pixels
give equal bytes on every machine.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np
import numpy.typing as npt

from components.images.stain_vectors import STAIN_MATRIX
from schemas.tables import COLOUR_FEATURES

cv2.setNumThreads(0)  # parallelism is by shard; nested threads would only take turns

TISSUE_LUMA = 220
"""A pixel darker than this luma counts as tissue; glass in bright-field scans lies above it."""

OD_TICKS = 4096
"""Optical densities are summed in units of 1/4096."""

_MAX_SIDE = 1024  # above it, sums of squares over one column of pixels could leave float32's exact integers


@dataclasses.dataclass(frozen=True)
class BlockFeatures:
    """What is measured of N patches.

    Attributes:
        colour: float32[N, 10], columns as `COLOUR_FEATURES`. Means and deviations in grey levels 0-255, stain
            optical densities without unit (log10), tissue fraction 0-1, sharpness in grey levels.
        perceptual_hash: uint64[N], 64-bit difference hash.
        constant: bool[N], True where all pixels are the same (blank glass, padding).
    """

    colour: npt.NDArray[np.float32]
    perceptual_hash: npt.NDArray[np.uint64]
    constant: npt.NDArray[np.bool_]


@functools.cache
def _od_table() -> npt.NDArray[np.float32]:
    """Optical density -log10((v + 1) / 256) of each grey level, in ticks (whole numbers held as float32)."""
    return np.array([round(-math.log10((v + 1) / 256) * OD_TICKS) for v in range(256)], np.float32)


@functools.cache
def _unmix() -> npt.NDArray[np.float64]:
    """float64[3, 3]: optical densities (R, G, B) @ this = amounts of haematoxylin, eosin, DAB."""
    return np.linalg.inv(np.array(STAIN_MATRIX))


@functools.cache
def _bins(size: int, n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """float32[size, n] of zeros and ones that adds pixels up into n bins, and the pixels per bin."""
    edges = [i * size // n for i in range(n + 1)]
    matrix = np.zeros((size, n), np.float32)
    for i in range(n):
        matrix[edges[i] : edges[i + 1], i] = 1
    return matrix, matrix.sum(0, dtype=np.float64)


def _channel_sums(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Sums float32[N, H, W*3] of whole numbers over pixels -> float64[N, 3]."""
    n, height, _ = plane.shape
    rows = np.matmul(np.ones((1, height), np.float32), plane)  # exact: each sum stays below 2**24
    sums: npt.NDArray[np.float64] = rows.reshape(n, -1, 3).sum(1, dtype=np.float64)
    return sums


def block_features(block: npt.NDArray[np.uint8]) -> BlockFeatures:
    """Measures N patches of one size.

    Haematoxylin and eosin densities are the mean optical densities of R, G, B, unmixed by the inverse of
    `STAIN_MATRIX` (unmixing is linear, so the mean may be taken first). Sharpness is the mean absolute 4-neighbour
    Laplacian of luma (after the sum-modified-Laplacian of Nayar and Nakagawa, IEEE TPAMI 16:824, 1994). The
    difference hash compares neighbours on an 8 x 9 grid of mean lumas.

    Args:
        block: uint8[N, H, W, 3], C-contiguous, sides 3 to 1024 pixels.

    Raises:
        ValueError: Shape or type is another.
    """
    if block.dtype != np.uint8 or block.ndim != 4 or block.shape[3] != 3:
        raise ValueError(f"expected uint8[N, H, W, 3], got {block.dtype}{list(block.shape)}")
    n, height, width, _ = block.shape
    if not (3 <= height <= _MAX_SIDE and 3 <= width <= _MAX_SIDE):
        raise ValueError(f"sides must be 3 to {_MAX_SIDE} pixels, got {width}x{height}")
    pixels = height * width

    levels = block.reshape(n, height, width * 3).astype(np.float32)
    mean = _channel_sums(levels) / pixels
    levels -= 128  # keeps the sums of squares small enough to be exact
    np.square(levels, out=levels)
    variance = _channel_sums(levels) / pixels - np.square(mean - 128)
    std = np.sqrt(np.maximum(variance, 0))
    density = cv2.LUT(block.reshape(n * height, width * 3), _od_table())
    stains = (_channel_sums(np.asarray(density, np.float32).reshape(n, height, width * 3)) / (pixels * OD_TICKS))[
        :, None, :
    ]
    stains = (stains @ _unmix())[:, 0, :]

    grey = cv2.cvtColor(block.reshape(n * height, width, 3), cv2.COLOR_RGB2GRAY)
    luma = np.asarray(grey, np.uint8).reshape(n, height, width)
    tissue = np.count_nonzero(luma.reshape(n, -1) < TISSUE_LUMA, axis=1) / pixels
    wide = luma.astype(np.int16)
    laplacian = 4 * wide[:, 1:-1, 1:-1]
    laplacian -= wide[:, :-2, 1:-1]
    laplacian -= wide[:, 2:, 1:-1]
    laplacian -= wide[:, 1:-1, :-2]
    laplacian -= wide[:, 1:-1, 2:]
    np.abs(laplacian, out=laplacian)
    inner = np.matmul(np.ones((1, height - 2), np.float32), laplacian.astype(np.float32))
    sharpness = inner.reshape(n, -1).sum(1, dtype=np.float64) / ((height - 2) * (width - 2))

    colour = np.empty((n, len(COLOUR_FEATURES)), np.float32)
    for name, column in (
        ("color/red_mean", mean[:, 0]),
        ("color/green_mean", mean[:, 1]),
        ("color/blue_mean", mean[:, 2]),
        ("color/red_std", std[:, 0]),
        ("color/green_std", std[:, 1]),
        ("color/blue_std", std[:, 2]),
        ("color/hematoxylin_od", stains[:, 0]),
        ("color/eosin_od", stains[:, 1]),
        ("color/tissue_fraction", tissue),
        ("color/sharpness", sharpness),
    ):
        colour[:, COLOUR_FEATURES.index(name)] = column

    flat = block.reshape(n, pixels, 3)
    constant = (std.sum(1) == 0) & (flat[:, 0] == flat[:, -1]).all(1)
    return BlockFeatures(colour, _difference_hash(luma), constant)


def _difference_hash(luma: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """64-bit difference hash of uint8[N, H, W]: bit set where a cell is brighter than its right neighbour."""
    _, height, width = luma.shape
    down, _ = _bins(height, 8)
    across, columns = _bins(width, 9)
    cells = np.matmul(np.matmul(down.T, luma.astype(np.float32)), across)  # whole numbers, exact
    weighted = cells.astype(np.float64)
    brighter = weighted[:, :, :-1] * columns[1:] > weighted[:, :, 1:] * columns[:-1]
    return np.packbits(brighter.reshape(len(luma), 64), axis=1).view(">u8")[:, 0].astype(np.uint64)
