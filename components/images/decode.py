"""From the bytes of one source file to RGB8 pixels at the data set's stored size.

Ingest and `predict` both go this way, so a patch looks the same to a model wherever it comes from. Decoding
is `decode_rgb8`, padding and scaling is `fit`; a serving graph repeats `fit` with the formula given there.
"""

from __future__ import annotations

import cv2
import numpy as np

from components.core.array_types import Pixels
from components.core.rejects import Rejected
from components.errors import UsageError
from components.images.formats import MAX_PIXELS
from components.images.png import decode_png
from components.images.tiff import decode_tiff

cv2.setNumThreads(0)  # one image is too small to share, and shards are written in parallel already

SMALLEST_SHARE = (4, 5)
"""An image is padded where each side is at least this share (numerator, denominator) of the regular one."""


def decode_rgb8(data: bytes, extension: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decodes one source file, whole and exactly, or refuses it.

    Pixel values are taken as they are stored: gamma and ICC profiles are not applied.

    Args:
        data: The whole file.
        extension: The file name's extension with its dot, in any case: `.png`, `.tif` or `.tiff`.
        max_pixels: Largest width * height that is decoded.

    Returns:
        uint8 array (H, W, 3), RGB, C-contiguous.

    Raises:
        Rejected: The file is no image that can be converted to RGB8 exactly;
            docs/decisions/0003-image-formats.md lists the codes.
    """
    if not data:
        raise Rejected("empty_file", "0 bytes")
    extension = extension.lower()
    if extension in (".tif", ".tiff"):
        return decode_tiff(data, max_pixels)
    if extension == ".png":
        return decode_png(data, max_pixels)
    raise Rejected("unsupported", f"extension {extension!r} is not one of .png, .tif, .tiff")


def shrink_factor(source_size: tuple[int, int], stored_size: tuple[int, int]) -> int:
    """Integer factor by which a regular source image is averaged down.

    Args:
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels as stored.

    Raises:
        UsageError: Not the same whole number on both axes.
    """
    (source_width, source_height), (width, height) = source_size, stored_size
    if width > 0 and height > 0:
        factor = source_width // width
        if factor >= 1 and (width * factor, height * factor) == (source_width, source_height):
            return factor
    sizes = [
        f"{source_width // k}x{source_height // k}"
        for k in range(1, 9)
        if source_width % k == 0 and source_height % k == 0 and min(source_size) >= k
    ]
    raise UsageError(
        f"Images of {source_width}x{source_height} cannot be stored as {width}x{height}: "
        "both sides must be divided by the same whole number.",
        f"Choose one of {', '.join(sizes)}.",
    )


def fit(image: Pixels, source_size: tuple[int, int], stored_size: tuple[int, int]) -> Pixels:
    """Pads an edge patch to the regular size, then averages down to the stored size.

    Padding is by reflection at the bottom and right, the edge pixel not repeated (numpy's `reflect`, OpenCV's
    REFLECT_101). With k = source / stored, each stored value is (sum over its k*k block + k*k // 2) // (k*k),
    the mean with halves rounded up, in integers, so that a serving graph can repeat it bit by bit.

    Args:
        image: uint8 array (H, W, 3).
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels as stored.

    Returns:
        uint8 array (stored height, stored width, 3), C-contiguous; `image` itself if all is well.

    Raises:
        Rejected: `wrong_size` where a side is longer than the regular one, `too_narrow` where one is shorter
            than 80 % of it.
        UsageError: The sizes are not a whole number apart.
    """
    height, width = image.shape[:2]
    if (width, height) != source_size:
        image = _pad(image, source_size)
    if source_size == stored_size:
        return image
    return _shrink(image, shrink_factor(source_size, stored_size))


def _pad(image: Pixels, source_size: tuple[int, int]) -> Pixels:
    height, width = image.shape[:2]
    full_width, full_height = source_size
    sizes = f"{width}x{height} where {full_width}x{full_height} is regular"
    if width > full_width or height > full_height:
        raise Rejected("wrong_size", sizes)
    share, whole = SMALLEST_SHARE
    if width * whole < full_width * share or height * whole < full_height * share:
        raise Rejected("too_narrow", f"{sizes}; at least {100 * share // whole} % of each side are needed")
    # At most a fifth of a side is missing, so there is always enough to reflect.
    if height < full_height:
        image = np.concatenate([image, image[2 * height - full_height - 1 : height - 1][::-1]])
    if width < full_width:
        image = np.concatenate([image, image[:, 2 * width - full_width - 1 : width - 1][:, ::-1]], axis=1)
    return image


def _shrink(image: Pixels, factor: int) -> Pixels:
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if factor == 2:
        # OpenCV has a kernel of its own for halving, in the same integers (a test compares every bit) and 15
        # times as fast; for other factors it averages in float and rounds halves to even.
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    area = factor * factor
    total = np.full((height, width, image.shape[2]), area // 2, np.uint32)
    for row in range(factor):
        for column in range(factor):
            total += image[row::factor, column::factor]
    return (total // area).astype(np.uint8)
