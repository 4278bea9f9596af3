"""Draws H&E-like tissue: densities of haematoxylin and eosin first, colour last.

Nuclei of every kind cover the same fraction of the tissue and hold the same mean haematoxylin, so what tells
two kinds apart is size, shape and arrangement, never the amount of dye.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipelines.synthetic.stain import Field, Signature, stained
from pipelines.synthetic.textures import FIBRE_ANGLES, Textures, cut


@dataclasses.dataclass(frozen=True)
class Pattern:
    """How nuclei of one kind of tissue look and lie.

    Attributes:
        size: Factor on the nuclear radius.
        spread: Coefficient of variation of the radius (anisokaryosis).
        elongation: Ratio of the long to the short axis.
        irregularity: Amplitude of the outline's waves, as a fraction of the radius.
        aligned: 0 for nuclei in any direction, 1 for nuclei along the fibres.
        vesicular: 0 for dense chromatin, 1 for a pale centre with a dark rim.
        uniform: Weight of nuclei that lie anywhere.
        islands: Weight of nuclei in nests.
        rings: Weight of nuclei that line lumina.
        files: Weight of nuclei in rows between fibres.
        lumen: Shape of lumina: `cells` (round), `clefts` (long), `pools` (irregular).
    """

    size: float = 1.0
    spread: float = 0.1
    elongation: float = 1.2
    irregularity: float = 0.02
    aligned: float = 0.0
    vesicular: float = 0.2
    uniform: float = 1.0
    islands: float = 0.0
    rings: float = 0.0
    files: float = 0.0
    lumen: str = "cells"


def _lumen_distance(score: Field, fraction: float, length: float) -> Field:
    """Distance in pixels to the border, negative inside, of the lumen that fills `fraction` of the patch."""
    thinned = score[::2, ::2].ravel()  # a quantile of every fourth pixel is near enough
    k = min(len(thinned) - 1, int((1.0 - fraction) * len(thinned)))
    distance: Field = (np.partition(thinned, k)[k] - score) * np.float32(length)
    return distance


@dataclasses.dataclass(frozen=True)
class _Nuclei:
    """Nuclei as columns of equal length; all lengths in pixels."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    long: NDArray[np.float64]
    short: NDArray[np.float64]
    angle: NDArray[np.float64]


def _crowded(x: NDArray[np.float64], y: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether an earlier disc lies too near (Matern's second hard core): nuclei touch, they don't stack."""
    if len(r) < 300:
        near = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2 < (0.85 * (r[:, None] + r)) ** 2
        crowded: NDArray[np.bool_] = np.tril(near, -1).any(axis=1)
        return crowded
    from scipy.spatial import cKDTree

    pairs = cKDTree(np.stack([x, y], axis=1)).query_pairs(1.7 * r.max(), output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]  # first < second
    near = (x[first] - x[second]) ** 2 + (y[first] - y[second]) ** 2 < (0.85 * (r[first] + r[second])) ** 2
    crowded = np.zeros(len(r), bool)
    crowded[second[near]] = True
    return crowded


def _place(
    pattern: Pattern,
    radius: float,
    area: float,
    weight: Field,
    angle: float,
    rng: np.random.Generator,
    inside: bool,
) -> _Nuclei:
    """Scatters nuclei by a density map so that together they cover `area` pixels.

    Args:
        pattern: Kind of the nuclei.
        radius: Mean radius in pixels before the pattern's factor.
        area: Sum of the nuclear areas in square pixels.
        weight: Density map; nuclei lie where it is high.
        angle: Direction of the fibres in radians.
        rng: Source of chance.
        inside: Keep whole nuclei inside the map's frame.
    """
    mean = radius * pattern.size
    wanted = max(1, round(area / (np.pi * mean**2 * (1.0 + pattern.spread**2))))
    tries = 4 * wanted + 8
    r = mean * np.exp(rng.normal(0.0, pattern.spread, tries) - pattern.spread**2 / 2)
    axes = np.sqrt(pattern.elongation * np.exp(rng.normal(0.0, 0.08, tries)))
    heights = np.cumsum(weight.ravel(), dtype=np.float64)
    spot = np.minimum(np.searchsorted(heights, rng.random(tries) * heights[-1]), heights.size - 1)
    y, x = np.divmod(spot, weight.shape[1]) + rng.random((2, tries))
    if inside:
        margin = np.minimum(r * axes * 1.25 + 1.0, min(weight.shape) / 2)
        x, y = np.clip(x, margin, weight.shape[1] - margin), np.clip(y, margin, weight.shape[0] - margin)
    free = np.flatnonzero(~_crowded(x, y, r))[:wanted]
    r, axes = r[free], axes[free]
    r = r * np.clip(np.sqrt(area / (np.pi * (r**2).sum())), 0.8, 1.2)
    turn = rng.uniform(-np.pi / 2, np.pi / 2, len(free)) * (1.0 - pattern.aligned)
    return _Nuclei(x[free], y[free], r * axes, r / axes, angle + turn)


def _paint(nuclei: _Nuclei, pattern: Pattern, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Field, Field]:
    """Draws all nuclei at once: (cover, density), both of `shape`; cover is 0 to 1 with soft edges."""
    height, width = shape
    half = int(np.ceil(nuclei.long.max() * (1.0 + 2.5 * pattern.irregularity) + 1.0))
    offsets = np.arange(-half, half + 1)
    column = np.floor(nuclei.x).astype(np.int64)[:, None] + offsets
    row = np.floor(nuclei.y).astype(np.int64)[:, None] + offsets
    dx = (column + 0.5 - nuclei.x[:, None]).astype(np.float32)[:, None, :]
    dy = (row + 0.5 - nuclei.y[:, None]).astype(np.float32)[:, :, None]
    cos, sin = (f(nuclei.angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    long, short = (a.astype(np.float32)[:, None, None] for a in (nuclei.long, nuclei.short))
    u, v = (dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short
    rho = np.sqrt(u * u + v * v) + np.float32(1e-6)
    c, s = u / rho, v / rho
    waves = rng.normal(0.0, pattern.irregularity, (4, len(nuclei.x), 1, 1)).astype(np.float32)
    c2, s2 = c * c - s * s, 2 * c * s
    edge = 1 + waves[0] * c2 + waves[1] * s2 + waves[2] * (c * c2 - s * s2) + waves[3] * (s * c2 + c * s2)
    cover = np.clip((edge - rho) * np.sqrt(long * short) + 0.5, 0.0, 1.0)
    depth = np.minimum(rho / np.maximum(edge, 0.2), 1.0)
    tone = rng.uniform(0.8, 1.2, (len(nuclei.x), 1, 1)).astype(np.float32)
    density = cover * tone * (1.0 + pattern.vesicular * (1.3 * depth**4 - 0.45))
    seen = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    spot = (row[:, :, None] * width + column[:, None, :])[seen]
    painted = np.zeros((2, height * width), np.float32)
    np.maximum.at(painted[0], spot, cover[seen])
    np.maximum.at(painted[1], spot, density[seen])
    return painted[0].reshape(shape), painted[1].reshape(shape)


def _weight(pattern: Pattern, nests: Field, fibres: Field, tissue: Field, distance: Field, radius: float) -> Field:
    """Density map of nuclei, zero in lumina."""
    weight = np.full(tissue.shape, 0.02 + pattern.uniform, np.float32)
    if pattern.islands:
        weight += pattern.islands * 3.0 * (nests > 0.35)
    if pattern.files:
        weight += pattern.files * 4.0 * (fibres > 1.0)
    if pattern.rings:
        weight += pattern.rings * 5.0 * (np.abs(distance - 1.4 * radius) < 0.9 * radius)
    return weight * (tissue > 0.5) * (distance > 0.5 * radius) + np.float32(1e-6)


def draw(
    sign: Signature,
    pattern: Pattern,
    size: tuple[int, int],
    radius: float,
    fields: Textures,
    rng: np.random.Generator,
    centre: tuple[int, int, int, int] | None = None,
    surround: Pattern | None = None,
) -> NDArray[np.uint8]:
    """Draws one patch.

    Args:
        sign: The patient's signature.
        pattern: Kind of the nuclei; with `centre`, of those inside that box only.
        size: (width, height) in pixels.
        radius: Nuclear radius in pixels of a pattern of size 1.
        fields: Textures made for this radius.
        rng: Source of chance, used for this patch alone.
        centre: (left, top, width, height) of the box that the label speaks of; nothing outside knows `pattern`.
        surround: Kind of the nuclei outside `centre`.

    Returns:
        uint8 array (height, width, 3), RGB.
    """
    width, height = size
    outer = surround or pattern
    angle = int(rng.integers(FIBRE_ANGLES))
    fibres = cut(fields.fibres[angle], height, width, rng)
    nests = cut(fields.nests, height, width, rng)
    smooth = cut(fields.smooth, height, width, rng)
    lumen = float(np.clip(rng.exponential(sign.lumen), 0.0, 0.45))
    score, length = {
        "cells": (fields.cells, 1.0),
        "clefts": (fields.fibres[(angle + 1) % FIBRE_ANGLES], 0.8 * radius),
        "pools": (fields.nests, 3.0 * radius),
    }[outer.lumen]
    score = cut(score, height, width, rng) + 0.1 * smooth / length * radius
    distance = _lumen_distance(score, max(lumen, 0.04), length)
    tissue = np.clip(distance + 0.5, 0.0, 1.0) if lumen > 0.04 else np.ones_like(distance)

    mean_radius = radius * sign.nuclear_size
    direction = np.pi * angle / FIBRE_ANGLES
    cover_target = sign.coverage * float(np.exp(rng.normal(0.0, 0.12)))
    blurs = max(1, round(radius / 4))
    regions = [(outer, (0, 0, width, height), False)]
    chances = [rng]
    if centre is not None:
        # Kept off the rim by what blur spreads, and from chance of its own: no pixel outside knows the label.
        left, top, w, h = centre
        regions.append((pattern, (left + blurs, top + blurs, w - 2 * blurs, h - 2 * blurs), True))
        chances.append(np.random.default_rng(rng.integers(2**63)))
    cover = np.zeros((height, width), np.float32)
    density = np.zeros((height, width), np.float32)
    for (kind, (left, top, w, h), inside), chance in zip(regions, chances, strict=True):
        box = (slice(top, top + h), slice(left, left + w))
        weight = _weight(kind, nests[box], fibres[box], tissue[box], distance[box], mean_radius)
        share = tissue[box].sum()
        if centre is not None and not inside:
            hole = (slice(centre[1], centre[1] + centre[3]), slice(centre[0], centre[0] + centre[2]))
            weight[hole] = 0.0
            share -= tissue[hole].sum()
        area = float(cover_target * share)
        if area < 1.0:
            continue
        placed = _place(kind, mean_radius, area, weight, direction, chance, inside)
        painted, filled = _paint(placed, kind, (h, w), chance)
        # The same dye for every kind, whatever was lost to overlap, outline and frame.
        filled *= np.float32(np.clip(area / max(float(filled.sum()), 1.0), 0.5, 1.6))
        cover[box] = np.maximum(cover[box], painted)
        density[box] = np.maximum(density[box], filled)

    grain = cut(fields.grain, height, width, rng)
    stroma = 1.0 + sign.fibrosis * 0.5 * fibres + 0.12 * smooth + 0.1 * grain
    pink = np.clip(stroma, 0.15, None) * tissue
    pink *= np.float32(sign.eosin * np.exp(rng.normal(0.0, 0.06)) * tissue.mean() / max(float(pink.mean()), 1e-3))
    blue = sign.haze * np.clip(1.0 + 0.3 * smooth, 0.2, None) * tissue
    eosin = pink * (1.0 - 0.55 * cover)
    haematoxylin = np.asarray(blue + sign.nuclear * density * (1.0 + 0.22 * grain), dtype=np.float32)
    return stained(haematoxylin, eosin, sign, blurs, rng)
