"""Random fields from which synthetic tissue is cut: chromatin, stroma fibres, nests, round spaces."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

FIBRE_ANGLES = 6


@dataclasses.dataclass(frozen=True)
class Textures:
    """Periodic fields to cut patches from: zero mean, unit variance; `cells` holds distances in pixels."""

    grain: Field
    smooth: Field
    nests: Field
    fibres: tuple[Field, ...]
    cells: Field


def _tile(size: int, rng: np.random.Generator, along: float, across: float, angle: float = 0.0) -> Field:
    """White noise through a Gaussian filter of two lengths (pixels), turned by an angle (radians)."""
    from scipy import fft  # unlike numpy's it stays in single precision

    fy = fft.fftfreq(size)[:, None]
    fx = fft.rfftfreq(size)[None, :]
    u = np.cos(angle) * fx + np.sin(angle) * fy
    v = np.cos(angle) * fy - np.sin(angle) * fx
    response = np.exp(-2 * np.pi**2 * ((along * u) ** 2 + (across * v) ** 2))
    response[0, 0] = 0.0
    noise = rng.standard_normal((size, size), dtype=np.float32)
    field = fft.irfft2(fft.rfft2(noise) * response.astype(np.float32), s=(size, size))
    scaled: Field = field / field.std()
    return scaled


def _cells(size: int, rng: np.random.Generator, spacing: float) -> Field:
    """Minus the distance in pixels to the nearest of many scattered discs of several sizes, periodic."""
    from scipy.spatial import cKDTree

    steps = max(3, round(size / spacing))
    grid = np.stack(np.meshgrid(np.arange(steps), np.arange(steps)), -1).reshape(-1, 2)
    points = (grid + rng.uniform(0.0, 0.9, grid.shape)) * (size / steps) % size
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).reshape(-1, 2)
    distance, nearest = cKDTree(points, boxsize=size).query(pixels)
    reach = rng.uniform(0.0, 0.35 * spacing, len(points))
    depth: Field = (reach[nearest] - distance).reshape(size, size).astype(np.float32)
    return depth


@functools.lru_cache(maxsize=1)
def textures(size: int, radius: float, seed: int) -> Textures:
    """Fields for nuclei of a given radius; cached, for building them costs as much as hundreds of patches.

    Args:
        size: Edge of the periodic fields in pixels; larger than any patch.
        radius: Nuclear radius in pixels; all lengths follow it.
        seed: Equal seeds give equal fields.
    """
    rng = np.random.default_rng([seed, size, round(1000 * radius)])
    return Textures(
        grain=_tile(size, rng, 0.3 * radius, 0.3 * radius),
        smooth=_tile(size, rng, 1.5 * radius, 1.5 * radius),
        nests=_tile(size, rng, 3.0 * radius, 3.0 * radius),
        fibres=tuple(
            _tile(size, rng, 5.0 * radius, 0.45 * radius, np.pi * k / FIBRE_ANGLES) for k in range(FIBRE_ANGLES)
        ),
        cells=_cells(size, rng, 11.0 * radius),
    )


def cut(field: Field, height: int, width: int, rng: np.random.Generator) -> Field:
    """A random window of a texture."""
    top, left = rng.integers(0, np.array(field.shape) - (height, width) + 1)
    return field[top : top + height, left : left + width]
