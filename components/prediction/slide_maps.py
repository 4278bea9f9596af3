"""Slide maps: patches at their place in the slide, coloured by P(positive) or by label, as small PNG images.

Colours run from blue through pale grey to red (ColorBrewer RdBu, safe for colour-blind readers). The pale middle is the
model's threshold, so what is red was called positive. Where there is no patch, the image is transparent.
"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

NEGATIVE, MIDDLE, POSITIVE = (33, 102, 172), (240, 240, 238), (178, 24, 43)
UNKNOWN = (150, 150, 150)
"""Of patches that have a place but no value."""

MAX_CELLS = 512
"""Longest side of a grid; larger slides are drawn coarser, several patches to a cell."""

_LEVELS = 127  # on each side of the middle, so that a palette of 256 holds them, the unknown and the transparent
_TRANSPARENT, _UNKNOWN = 255, 254


@dataclasses.dataclass(frozen=True)
class Grid:
    """Patches of one slide as cells.

    Attributes:
        column: Cell of each patch from the left, int [N].
        row: Cell of each patch from the top, int [N].
        width: Number of columns.
        height: Number of rows.
        step: Pixels of the slide between two neighbouring cells.
    """

    column: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    width: int
    height: int
    step: int


def has_place(x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which patches have coordinates, [N]; absent ones are -1."""
    return (np.asarray(x) >= 0) & (np.asarray(y) >= 0)


def grid(x: npt.ArrayLike, y: npt.ArrayLike, step: int | None = None, max_cells: int = MAX_CELLS) -> Grid:
    """Cells of the patches of one slide.

    Args:
        x: Pixels from the left, int [N], none absent, N > 0.
        y: Pixels from the top, int [N].
        step: Distance of neighbouring patches in pixels; by default the commonest one between the coordinates.
        max_cells: Longest side that the grid may have.

    Raises:
        ValueError: There is no patch, or one without coordinates.
    """
    across, down = np.asarray(x, np.int64), np.asarray(y, np.int64)
    if across.size == 0 or not has_place(across, down).all():
        raise ValueError("a grid needs patches, each with coordinates")
    across, down = across - across.min(), down - down.min()
    step = step or commonest_step(across, down)
    longest = int(max(across.max(), down.max()))
    step = max(step, -(-(longest + 1) // max_cells))
    column, row = across // step, down // step
    return Grid(column, row, int(column.max()) + 1, int(row.max()) + 1, step)


def commonest_step(x: npt.ArrayLike, y: npt.ArrayLike) -> int:
    """The commonest distance between neighbouring distinct coordinates; 1 where all patches lie on one point."""
    gaps = np.concatenate([np.diff(np.unique(np.asarray(axis, np.int64))) for axis in (x, y)])
    if gaps.size == 0:
        return 1
    sizes, counts = np.unique(gaps, return_counts=True)
    return int(sizes[counts.argmax()])


def fill(cells: Grid, values: npt.ArrayLike) -> Array:
    """Values at their cells.

    Args:
        cells: As `grid` gives it.
        values: One per patch, [N]; NaN where unknown.

    Returns:
        float32 [height, width]: the mean of each cell's patches; NaN where none has a value and -1 where there is no
        patch.
    """
    given = np.asarray(values, float)
    place = cells.row * cells.width + cells.column
    size = cells.width * cells.height
    known = ~np.isnan(given)
    count = np.bincount(place[known], minlength=size)
    total = np.bincount(place[known], weights=given[known], minlength=size)
    mean = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    mean[np.bincount(place, minlength=size) == 0] = -1.0
    return mean.reshape(cells.height, cells.width).astype(np.float32)


def levels(values: Array, middle: float) -> npt.NDArray[np.uint8]:
    """Palette numbers of values in [0, 1].

    Args:
        values: As `fill` gives them.
        middle: The value that is drawn pale, such as the threshold.
    """
    centre = min(max(middle, 1e-6), 1 - 1e-6)
    with np.errstate(invalid="ignore"):
        below = np.rint(values / centre * _LEVELS) - _LEVELS
        above = np.ceil((values - centre) / (1 - centre) * (_LEVELS - 1))
        signed = np.where(values >= centre, above, np.minimum(below, -1))
    number = np.clip(signed + _LEVELS, 0, 2 * _LEVELS - 1)
    number = np.where(np.isnan(values), _UNKNOWN, number)
    return np.where(values < 0, _TRANSPARENT, number).astype(np.uint8)


def palette() -> npt.NDArray[np.uint8]:
    """The 256 colours, [256, 3]."""
    colours = np.zeros((256, 3), np.uint8)
    part = np.linspace(0, 1, _LEVELS + 1)[:, None]
    low, middle, high = (np.array(colour, float) for colour in (NEGATIVE, MIDDLE, POSITIVE))
    colours[: _LEVELS + 1] = np.rint(low + (middle - low) * part)
    part = np.linspace(0, 1, _LEVELS)[:, None]
    colours[_LEVELS : 2 * _LEVELS] = np.rint(middle + (high - middle) * part)
    colours[_UNKNOWN] = UNKNOWN
    return colours


def to_png(values: Array, *, middle: float = 0.5, scale: int = 1) -> bytes:
    """A PNG of a filled grid.

    Args:
        values: As `fill` gives them, [H, W].
        middle: The value that is drawn pale.
        scale: Pixels a cell; pages enlarge small images themselves without blurring them.
    """
    from PIL import Image

    numbers = levels(values, middle).repeat(scale, axis=0).repeat(scale, axis=1)
    image = Image.fromarray(numbers)
    image.putpalette(palette().tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True, transparency=_TRANSPARENT)
    return out.getvalue()


def slide_png(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    probability: npt.ArrayLike,
    *,
    threshold: float = 0.5,
    step: int | None = None,
    scale: int = 4,
) -> bytes:
    """One slide's probabilities as a PNG file of its own.

    Args:
        x: Pixels from the left, int [N]; patches without coordinates (-1) are left out.
        y: Pixels from the top, int [N].
        probability: P(positive), [N]; NaN where unknown.
        threshold: Of the model, drawn pale.
        step: Distance of neighbouring patches; found by itself where not given.
        scale: Pixels a patch.

    Raises:
        ValueError: No patch has coordinates.
    """
    placed = has_place(x, y)
    cells = grid(np.asarray(x)[placed], np.asarray(y)[placed], step)
    return to_png(fill(cells, np.asarray(probability, float)[placed]), middle=threshold, scale=scale)
