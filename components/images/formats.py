"""What every source format has in common: recognising it, its limits, and the way to RGB8.

The policy (what is converted, what is rejected and why) is the table of docs/decisions/0003-image-formats.md.
"""

from __future__ import annotations

import numpy as np

from components.core.array_types import Array
from components.core.rejects import Rejected

MAX_PIXELS = 1 << 24
"""Largest image that is decoded, in pixels: 4096x4096, 48 MiB as RGB8; anything above is a `bomb`."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF

_SIGNATURES = (
    (b"\x89PNG", "PNG"),
    *((signature, "TIFF") for signature in TIFF_SIGNATURES),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
)


def sniff(data: bytes) -> str:
    """Name of the image format that the first bytes announce, empty where they announce none."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "BMP"
    return ""


def unrecognised(data: bytes, expected: str, signatures: tuple[bytes, ...]) -> Rejected:
    """The reject for a file that does not begin as its extension says.

    Args:
        data: The whole file, not empty.
        expected: Name of the format that the extension promises, as `sniff` gives it.
        signatures: What such a file begins with.
    """
    found = sniff(data)
    if found == expected or any(signature.startswith(data) for signature in signatures):
        return Rejected("truncated", f"the {expected} signature is cut or damaged")
    if found:
        return Rejected("wrong_format", f"the content is {found}, the extension says {expected}")
    return Rejected("not_an_image", f"begins with {data[:8]!r}, which no known image format does")


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuses an image by its declared size, before anything is decoded.

    Args:
        width: Declared width in pixels.
        height: Declared height in pixels.
        max_pixels: Largest width * height that may be decoded.

    Raises:
        Rejected: `not_an_image` for an empty image, `bomb` for a huge one.
    """
    if width < 1 or height < 1:
        raise Rejected("not_an_image", f"the header declares {width}x{height} pixels")
    if width * height > max_pixels:
        raise Rejected("bomb", f"declares {width}x{height} pixels, more than the {max_pixels} allowed")


def check_orientation(orientation: int) -> None:
    """Refuses a rotated or mirrored image.

    Whether such a tag is to be applied cannot be known: decoders in training and serving ignore it, viewers
    apply it, and coordinates and label regions speak of the pixels as they are stored.

    Args:
        orientation: EXIF / TIFF tag 274; 1 is upright, 0 is written by some tools for "not set".

    Raises:
        Rejected: `unsupported`.
    """
    if orientation not in (0, 1):
        raise Rejected("unsupported", f"orientation tag {orientation}: pixels are stored rotated or mirrored")


def to_rgb8(pixels: Array) -> Array:
    """Turns grey, grey + alpha, RGB or RGBA samples into RGB8, where that loses nothing.

    Args:
        pixels: uint8 or uint16, shape (H, W) or (H, W, C) with C = 1 (grey), 2 (grey + alpha), 3 (RGB) or
            4 (RGB + alpha).

    Returns:
        uint8 array (H, W, 3), C-contiguous. Grey is repeated; alpha is dropped where every pixel is opaque;
        16-bit samples become 8-bit ones where each is an 8-bit sample times 257.

    Raises:
        Rejected: `unsupported` where information would be lost.
    """
    if pixels.dtype == np.uint16:
        high = (pixels >> 8).astype(np.uint8)
        if not np.array_equal(high.astype(np.uint16) * 257, pixels):
            raise Rejected("unsupported", "16-bit samples that 8 bits cannot hold exactly")
        pixels = high
    if pixels.dtype != np.uint8:
        raise Rejected("unsupported", f"samples of type {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise Rejected("unsupported", f"pixel array of shape {pixels.shape}")
    channels = pixels.shape[2]
    if channels in (2, 4):
        if (pixels[..., -1] != 255).any():
            raise Rejected("unsupported", "has pixels that are not opaque, and no background to put them on")
        pixels = pixels[..., : channels - 1]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)
