"""TIFF to RGB8.

A plain patch (classic little-endian TIFF, one uncompressed strip of 8-bit RGB) needs no decoder: its pixels
lie in the file as they are wanted. Decoders fill in some of what is missing without a word (a cut JPEG strip
turns grey), so the bounds of the pixel data are checked here for every layout; only then tifffile decodes
what is not plain.

Format: Adobe, TIFF Revision 6.0, 1992; Technical Note 2 (JPEG), 1995.
"""

from __future__ import annotations

import io
import logging
import math
import struct
from typing import Any, NamedTuple

import numpy as np

from components.core.array_types import Array, Pixels
from components.core.native_output import caught_output
from components.core.rejects import Rejected
from components.images.formats import TIFF_SIGNATURES, check_orientation, check_pixels, to_rgb8, unrecognised

_ENTRY = {"<": struct.Struct("<HHII"), ">": struct.Struct(">HHII")}
_SHORT, _LONG = 3, 4
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # in bytes
_FILE_HEADER = 8  # bytes; no pixel can lie before
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 317, 322, 323, 324, 325
_SUB_IFDS, _SAMPLE_FORMAT = 330, 339
# One whole number each.
_SINGLE = frozenset(
    {_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _ROWS, _PLANAR}
    | {_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT}
)
_WHOLE = _SINGLE | {_BITS, _OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _SAMPLE_FORMAT}
# Tags that say nothing of how pixels are stored: document name, description, make, model, min and max sample,
# resolution, page name, resolution unit, software, date, artist, host, copyright, XMP, ICC profile.
_HARMLESS = {269, 270, 271, 272, 280, 281, 282, 283, 285, 296, 305, 306, 315, 316, 700, 33432, 34675}
_PLAIN_TAGS = frozenset(
    {_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _ORIENTATION}
    | {_SAMPLES, _ROWS, _COUNTS, _PLANAR, _SAMPLE_FORMAT}
    | _HARMLESS
)
_RGB8 = b"\x08\0\x08\0\x08\0"

_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_COMPRESSIONS = frozenset((_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS))
_PREDICTED = frozenset((_LZW, _DEFLATE, _OLD_DEFLATE))
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _COLOUR_MAP, _YCBCR = 0, 1, 2, 3, 6


class _Directory(NamedTuple):
    order: str  # "<" or ">"
    entries: dict[int, tuple[int, int, int]]  # tag -> type, count, the four value bytes as one number
    next: int  # offset of the next directory, 0 for none
    repeated: frozenset[int]  # tags that occur more than once

    def number(self, tag: int, default: int) -> int:
        """First value of a SHORT or LONG tag that is stored in its entry."""
        kind, _, value = self.entries.get(tag, (0, 1, default))
        if kind != _SHORT:
            return value
        return value & 0xFFFF if self.order == "<" else value >> 16


def decode_tiff(data: bytes, max_pixels: int) -> Pixels:
    """Decodes a TIFF file that holds one image.

    Args:
        data: The whole file, not empty.
        max_pixels: Largest image that may be decoded.

    Returns:
        uint8 array (H, W, 3), C-contiguous, writable.

    Raises:
        Rejected: See docs/decisions/0003-image-formats.md.
    """
    if not data.startswith(TIFF_SIGNATURES):
        raise unrecognised(data, "TIFF", TIFF_SIGNATURES)
    if data[2:4] in (b"+\0", b"\0+"):
        raise Rejected("unsupported", "BigTIFF")
    try:
        directory = _read_directory(data)
    except struct.error:
        raise Rejected(
            "truncated", f"the image directory lies outside the file of {len(data)} bytes"
        ) from None
    _check_tags(directory)
    check_pixels(directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0), max_pixels)
    if directory.next or _SUB_IFDS in directory.entries:
        raise Rejected("unsupported", "holds more than one image (pages or pyramid levels)")
    if directory.number(_SUBFILE, 0):
        raise Rejected("unsupported", "marked as a reduced image, a page of several or a mask")
    check_orientation(directory.number(_ORIENTATION, 1))
    pixels = _read_plain(data, directory)
    if pixels is None:
        _check_values(data, directory)
        pixels = _decode_odd(data, max_pixels)
    return pixels


def exif_orientation(exif: bytes) -> int:
    """Orientation that an EXIF block states (1 to 8), 1 where it states none.

    Args:
        exif: Body of a PNG eXIf chunk: a TIFF file without pixels.

    Raises:
        Rejected: `unsupported` where the block cannot be read, since the image could then be a rotated one.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    if not exif.startswith(TIFF_SIGNATURES[:2]):
        raise Rejected("unsupported", "an EXIF block that cannot be read: the orientation is not known")
    try:
        return _read_directory(exif).number(_ORIENTATION, 1)
    except struct.error:
        raise Rejected("unsupported", "an EXIF block that is cut: the orientation is not known") from None


def _read_directory(data: bytes) -> _Directory:
    """Reads the first image directory; raises struct.error where the file ends too early."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + 12 * count
    (following,) = struct.unpack_from(order + "I", data, end)
    entries: dict[int, tuple[int, int, int]] = {}
    repeated = set()
    for tag, kind, length, value in _ENTRY[order].iter_unpack(memoryview(data)[start + 2 : end]):
        if tag in entries:
            repeated.add(tag)
        entries[tag] = (kind, length, value)
    return _Directory(order, entries, following, frozenset(repeated))


def _check_tags(directory: _Directory) -> None:
    """Refuses tags of the layout that readers understand in different ways, so that nobody knows the pixels."""
    entries = directory.entries
    twice = directory.repeated - _HARMLESS
    if twice:
        raise Rejected("truncated", f"damaged: tag {min(twice)} occurs twice")
    for tag in _WHOLE & entries.keys():
        kind, count, _ = entries[tag]
        if kind not in (_SHORT, _LONG) or (count != 1 if tag in _SINGLE else count < 1):
            raise Rejected("truncated", f"damaged: tag {tag} has {count} values of type {kind}")
    samples = directory.number(_SAMPLES, 1)
    if _PHOTOMETRIC not in entries:
        raise Rejected("truncated", f"damaged: without tag {_PHOTOMETRIC}, which says what the samples are")
    if entries.get(_BITS, (0, 1, 0))[1] not in (1, samples):
        raise Rejected("truncated", f"damaged: bits of {entries[_BITS][1]} samples where there are {samples}")
    if entries.keys() & {_OFFSETS, _COUNTS} and entries.keys() & {_TILE_OFFSETS, _TILE_COUNTS}:
        raise Rejected("truncated", "damaged: has strips and tiles")
    if directory.number(_PREDICTOR, 1) != 1 and directory.number(_COMPRESSION, _NONE) not in _PREDICTED:
        raise Rejected("truncated", f"damaged: predictor {directory.number(_PREDICTOR, 1)} without LZW or deflate")
    if directory.number(_PLANAR, 1) not in (1, 2):
        raise Rejected("truncated", f"damaged: planar configuration {directory.number(_PLANAR, 1)}")


def _read_plain(data: bytes, directory: _Directory) -> Pixels | None:
    """Pixels of one uncompressed RGB8 strip; None where the layout is any other."""
    order, entries = directory.order, directory.entries
    if order != "<" or not entries.keys() <= _PLAIN_TAGS:
        return None
    number = directory.number
    if not (
        number(_COMPRESSION, _NONE) == _NONE
        and number(_PHOTOMETRIC, -1) == _RGB
        and number(_SAMPLES, 1) == 3
        and number(_PLANAR, 1) == 1
    ):
        return None
    if any(tag not in entries or entries[tag][1] != 1 for tag in (_OFFSETS, _COUNTS)):
        return None
    if _SAMPLE_FORMAT in entries and (entries[_SAMPLE_FORMAT][1] != 1 or number(_SAMPLE_FORMAT, 1) != 1):
        return None
    kind, count, where = entries.get(_BITS, (0, 0, 0))
    if kind != _SHORT or count != 3 or data[where : where + 6] != _RGB8:
        return None
    width, height = number(_WIDTH, 0), number(_HEIGHT, 0)
    if number(_ROWS, height) < height:
        return None
    offset, size, needed = number(_OFFSETS, 0), number(_COUNTS, 0), width * height * 3
    if offset < _FILE_HEADER or size < needed or offset + needed > len(data):
        raise Rejected("truncated", f"needs {needed} bytes at byte {offset}, the file has {len(data)}")
    # A copy, because a view would be read-only and keep the whole file alive.
    return np.frombuffer(data, np.uint8, needed, offset).reshape(height, width, 3).copy()


def _check_values(data: bytes, directory: _Directory) -> None:
    """Refuses a file whose tags point behind its end; tifffile would take such a tag for absent."""
    for tag, (kind, count, where) in directory.entries.items():
        size = _TYPE_SIZES.get(kind, 1) * count
        if size > 4 and where + size > len(data):
            raise Rejected("truncated", f"tag {tag} lies outside the file of {len(data)} bytes")


def _decode_odd(data: bytes, max_pixels: int) -> Pixels:
    """Decodes by tifffile what is not plain, or says why not."""
    import tifffile

    # Each complaint becomes a reject or does not matter; stderr is not the place for it.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page: Any = tiff.pages[0]
            _check_layout(page)
            # tifffile must see the size that was checked, and a tile may be far larger than its image.
            width, height = max(page.imagewidth, page.tilewidth), max(page.imagelength, page.tilelength)
            check_pixels(width, height, max_pixels)
            _check_segments(page, data)
            pixels = _by_libtiff(page, data) if page.compression == _LZW else page.asarray(maxworkers=1)
            if page.photometric == _COLOUR_MAP:
                return _apply_colour_map(pixels, page.colormap)
            if page.photometric == _WHITE_IS_ZERO:
                pixels = ~pixels
            if page.samplesperpixel > 1 and page.planarconfig == 2:
                pixels = np.moveaxis(pixels, 0, -1)
    except (Rejected, MemoryError):
        raise
    except Exception as error:  # tifffile and its codecs raise a dozen kinds of errors on damaged files
        raise Rejected("truncated", f"cut or damaged: {error}") from None
    return to_rgb8(pixels)


def _by_libtiff(page: Any, data: bytes) -> Array:
    """Pixels as `page.asarray` gives them: the LZW decoder that tifffile takes crashes on damaged data."""
    import imagecodecs

    with caught_output():
        pixels: Array = imagecodecs.tiff_decode(data)
    if pixels.shape != page.shape or pixels.dtype != page.dtype:
        raise ValueError(f"{pixels.shape} {pixels.dtype} where {page.shape} {page.dtype} is declared")
    return pixels


def _check_layout(page: Any) -> None:
    """Refuses what is not exactly convertible, before anything is decoded."""
    compression, photometric = int(page.compression), int(page.photometric)
    if compression not in _COMPRESSIONS:
        raise Rejected("unsupported", f"TIFF compression {compression}")
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _COLOUR_MAP, _YCBCR):
        raise Rejected(
            "unsupported", f"TIFF photometric interpretation {photometric}, such as CMYK or CIELab"
        )
    if photometric == _YCBCR and compression != _JPEG:
        raise Rejected("unsupported", "YCbCr that is not JPEG-compressed")
    if page.bitspersample not in (8, 16) or page.sampleformat != 1:
        raise Rejected("unsupported", f"{page.bitspersample} bits per sample, format {page.sampleformat}")
    if photometric == _COLOUR_MAP and (page.bitspersample != 8 or page.samplesperpixel != 1):
        raise Rejected("unsupported", "a palette image whose indices are not 8-bit")
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    extra = page.samplesperpixel - colours
    if extra not in (0, 1) or extra != len(page.extrasamples):
        raise Rejected("unsupported", f"{page.samplesperpixel} samples per pixel")
    if photometric == _WHITE_IS_ZERO and page.samplesperpixel != 1:
        raise Rejected("unsupported", "white-is-zero with alpha")
    if page.fillorder != 1 or page.imagedepth != 1 or page.tiledepth > 1:
        raise Rejected("unsupported", "reversed bit order, or a volume")


def _check_segments(page: Any, data: bytes) -> None:
    """Refuses a file that does not hold all its strips or tiles; tifffile would fill some of them."""
    offsets, counts = page.dataoffsets, page.databytecounts
    # tifffile leaves out offsets that it does not need, and Pillow does not.
    declared = {page.tags[tag].count for tag in (_OFFSETS, _TILE_OFFSETS) if tag in page.tags} or {0}
    needed = math.prod(page.chunked)
    if declared != {needed} or len(offsets) != needed or len(counts) != needed:
        raise Rejected("truncated", f"{max(declared)} strips or tiles instead of {needed}")
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        if offset < _FILE_HEADER or count < 1 or offset + count > len(data):
            raise Rejected("truncated", f"pixel data at byte {offset} outside the file of {len(data)} bytes")
        # libjpeg paints what is missing grey and only warns.
        segment = data[offset : offset + count]
        if page.compression == _JPEG:
            if not segment.rstrip(b"\0").endswith(b"\xff\xd9"):
                raise Rejected("truncated", f"JPEG data at byte {offset} has no end marker")
            width, height = page.tilewidth or page.imagewidth, page.tilelength
            if not page.is_tiled:
                strips = -(-page.imagelength // page.rowsperstrip)  # of a plane
                height = min(page.rowsperstrip, page.imagelength - number % strips * page.rowsperstrip)
            # tifffile leaves to chance what a smaller one does not cover.
            if _jpeg_size(segment) != (width, height):
                raise Rejected("truncated", f"JPEG data at byte {offset} is not of {width}x{height} pixels")
    if page.compression == _NONE and sum(counts) < page.nbytes:
        raise Rejected("truncated", f"{sum(counts)} bytes of pixels where {page.nbytes} are needed")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a JPEG frame; (0, 0) where none is found."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0


def _apply_colour_map(indices: Array, colour_map: Array) -> Array:
    """Looks indices (H, W) up in a TIFF colour map of shape (3, 256), uint16.

    Writers store an 8-bit colour v as 256 v or 257 v; both are exact.
    """
    high = colour_map >> 8
    low = colour_map & 0xFF
    if colour_map.shape != (3, 256) or not ((low == 0) | (low == high)).all():
        raise Rejected("unsupported", "a palette whose colours 8 bits cannot hold exactly")
    return np.ascontiguousarray(high.astype(np.uint8).T[indices])
