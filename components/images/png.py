"""PNG to RGB8.

Plain patches (8-bit RGB, not interlaced) go to pyspng, the fastest decoder measured. It checks no CRC and
ignores tRNS, so the chunks are walked here first: that walk proves the file whole and tells plain images from
odd ones.

Format: W3C Portable Network Graphics (PNG) Specification, third edition, 2025.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pyspng

from components.core.array_types import Array, Pixels
from components.core.native_output import caught_output
from components.core.rejects import Rejected
from components.images.formats import PNG_SIGNATURE, check_orientation, check_pixels, to_rgb8, unrecognised
from components.images.tiff import exif_orientation

METADATA_LIMIT = 1 << 20
"""Bytes that text and colour profile of one image may inflate to; what Pillow allows a single chunk too."""

_HEADER = struct.Struct(">II5B")
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_FIRST_CHUNK = b"\0\0\0\rIHDR"
_PLAIN = (8, 2, 0, 0, 0)  # depth, colour type RGB, deflate, adaptive filters, not interlaced
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_PALETTE = 3
_COMPRESSED_METADATA = frozenset((b"iCCP", b"zTXt", b"iTXt"))
_ODD = frozenset((b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")) | _COMPRESSED_METADATA
_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
# zlib's CRC costs less to call, libdeflate's is six times faster on long input.
_LONG = 1 << 13


def decode_png(data: bytes, max_pixels: int) -> Pixels:
    """Decodes a PNG file.

    Args:
        data: The whole file, not empty.
        max_pixels: Largest image that may be decoded.

    Returns:
        uint8 array (H, W, 3), C-contiguous.

    Raises:
        Rejected: See docs/decisions/0003-image-formats.md.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise unrecognised(data, "PNG", (PNG_SIGNATURE,))
    kinds = _walk(data)
    width, height, *layout = _HEADER.unpack_from(data, 16)
    check_pixels(width, height, max_pixels)
    if tuple(layout) != _PLAIN or not _ODD.isdisjoint(kinds):
        return _decode_odd(data, layout, kinds)
    return _run(pyspng.load, data)


def _walk(data: bytes) -> list[bytes]:
    """Walks all chunks up to IEND and checks each CRC; returns their types in file order.

    What follows IEND is ignored: it is no part of the image (section 5.6), and no decoder reads it.
    """
    if data[8:16] != _FIRST_CHUNK:
        code = "truncated" if len(data) < 16 else "not_an_image"
        raise Rejected(code, "the first chunk is not an IHDR of 13 bytes")
    kinds = []
    position, size, kind = 8, len(data), b""
    while kind != b"IEND":
        if position + 12 > size:
            raise Rejected("truncated", f"the file ends after {size} bytes without an IEND chunk")
        length, kind = _CHUNK.unpack_from(data, position)
        end = position + 8 + length
        if end + 4 > size:
            raise Rejected("truncated", f"the file ends after {size} bytes, inside the chunk {kind!r}")
        checksum = zlib.crc32 if length < _LONG else imagecodecs.deflate_crc32
        if checksum(data[position + 4 : end]) != _CRC.unpack_from(data, end)[0]:
            raise Rejected("truncated", f"damaged: wrong CRC of the chunk {kind!r} at byte {position}")
        kinds.append(kind)
        position = end + 4
    return kinds


def _decode_odd(data: bytes, layout: list[int], kinds: list[bytes]) -> Pixels:
    """Decodes what is not plain RGB8, or says why not."""
    depth, colour, compression, filtering, interlace = layout
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise Rejected("not_an_image", f"impossible PNG header {layout}")
    if not {b"acTL", b"fcTL", b"fdAT"}.isdisjoint(kinds):
        raise Rejected("unsupported", "animated PNG: holds more than one image")
    pixel_chunks = [PNG_SIGNATURE]
    budget, position = METADATA_LIMIT, 8
    palette_size = 0
    for kind in kinds:
        (length,) = _CRC.unpack_from(data, position)
        body = data[position + 8 : position + 8 + length]
        if kind in _COMPRESSED_METADATA:
            budget -= _inflated_size(kind, body, budget)
        elif kind == b"eXIf":
            check_orientation(exif_orientation(body))
        elif kind == b"PLTE":
            palette_size = length // 3
        if kind in _PIXEL_CHUNKS:
            pixel_chunks.append(data[position : position + 12 + length])
        position += 12 + length
    # Without metadata nothing but pixels is left for a decoder to inflate or to stumble over.
    bare = b"".join(pixel_chunks)
    if colour == _PALETTE and _largest_index(bare) >= palette_size:
        raise Rejected("truncated", "damaged: a pixel's index lies outside the palette")
    # pyspng is wrong on 16 bits and ignores tRNS; libpng (imagecodecs) warns on stderr about interlacing.
    decoder = imagecodecs.png_decode if depth == 16 or b"tRNS" in kinds else pyspng.load
    with caught_output() as complaints:
        pixels, problem = _tried(decoder, bare)
    if problem is not None:
        raise Rejected(problem.code, "; ".join([problem.detail, *complaints]))
    return to_rgb8(pixels)


def _tried(decoder: Callable[[bytes], Array], data: bytes) -> tuple[Array, Rejected | None]:
    try:
        return _run(decoder, data), None
    except Rejected as problem:
        return np.empty(0, np.uint8), problem


def _inflated_size(kind: bytes, body: bytes, budget: int) -> int:
    """Bytes that a compressed metadata chunk inflates to.

    Raises:
        Rejected: `bomb` where they are more than `budget`, found out without inflating more than that.
    """
    _, _, rest = body.partition(b"\0")
    if kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:]
        text = rest.split(b"\0", 2)[-1]  # after the language and the translated keyword
        if not compressed:
            return 0
    else:
        text = rest[1:]  # after the compression method
    try:
        size = len(zlib.decompressobj().decompress(text, budget + 1))
    except zlib.error:
        return 0  # says nothing about the pixels, and is handed to no decoder
    if size > budget:
        raise Rejected("bomb", f"metadata chunk {kind!r} inflates to more than {METADATA_LIMIT} bytes")
    return size


def _largest_index(data: bytes) -> int:
    """Largest palette index in use. All decoders here paint one outside the palette black, without a word."""
    import io

    from PIL import Image

    def indices(data: bytes) -> Array:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)

    return int(_run(indices, data).max())


def _run(decoder: Callable[[bytes], Array], data: bytes) -> Array:
    try:
        return decoder(data)
    except MemoryError:
        raise
    except Exception as error:  # every decoder has errors of its own, down to UnicodeDecodeError
        raise Rejected("truncated", f"cut or damaged pixel data: {error}") from None
