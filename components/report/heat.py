"""A map of where a model looked, drawn over the patch in grey."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from components.report.pixels import Picture, data_uri

MAX_SIDE = 112
"""Pixels a side, at most: the cells of a map are coarser by far."""

RAMP = np.array([[70, 20, 110], [225, 95, 40], [255, 245, 130]], np.float32)
"""Colours of a low, a middle and the highest value; brighter is more, for whoever sees no hue."""

OPACITY = 0.75
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def heat_picture(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.uint8]) -> Picture:
    """The patch in grey; over it violet, orange and yellow, the more and the denser the higher the map.

    Args:
        pixels: uint8[H, W, 3].
        heat: uint8[h, w] of any size; 255 is the highest.
    """
    from PIL import Image

    image = Image.fromarray(pixels).convert("L")
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    share = np.asarray(Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR), np.float32) / 255
    steps = np.linspace(0, 1, len(RAMP))
    colour = np.stack([np.interp(share, steps, channel) for channel in RAMP.T], axis=-1)
    # Nothing hides the tissue where nothing spoke for the call.
    cover = (OPACITY * np.minimum(1, 2 * share))[..., None]
    mixed = (1 - cover) * np.asarray(image, np.float32)[..., None] + cover * colour
    out = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).quantize(64).save(out, "PNG", optimize=True)
    return Picture(data_uri(out.getvalue()), *image.size)


def strongest(heat: npt.NDArray[np.uint8]) -> str:
    """Where a map is strongest, in words.

    Args:
        heat: uint8[h, w].
    """
    if not heat.any():
        return "nothing in the patch spoke for it"
    rows, columns = np.nonzero(heat == heat.max())
    vertical = _ROWS[min(2, int(3 * rows.mean() / heat.shape[0]))]
    horizontal = _COLUMNS[min(2, int(3 * columns.mean() / heat.shape[1]))]
    place = "in the centre" if (vertical, horizontal) == ("middle", "centre") else f"at the {vertical} {horizontal}"
    return f"strongest {place}"
