"""The Example codec: patches to serialised `tf.train.Example` and back, without TensorFlow.

Written by hand because it is the hot part of the ingest: most of a record (keys, lengths, repeated strings) is the
same for thousands of patches and is encoded once. The bytes are those of
`tf.train.Example.SerializeToString(deterministic=True)`: features in the order of their keys; a test compares.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.tables import COLOUR_FEATURES

FeatureValue = bytes | int | float


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative int64 as its two's complement, as protobuf does
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [_varint(i) for i in range(1 << 15)]


def _length(n: int) -> bytes:
    return _SMALL[n] if n < 1 << 15 else _varint(n)


def _field(tag: bytes, body: bytes) -> bytes:
    return tag + _length(len(body)) + body


def encode_feature(key: str, value: FeatureValue) -> bytes:
    """One entry of `Features.feature`, for a single bytes, int64 or float32 value."""
    if isinstance(value, bytes):
        feature = _field(b"\x0a", _field(b"\x0a", value))
    elif isinstance(value, int):
        feature = _field(b"\x1a", _field(b"\x0a", _varint(value)))
    else:
        feature = _field(b"\x12", _field(b"\x0a", struct.pack("<f", value)))
    return _field(b"\x0a", _field(b"\x0a", key.encode()) + _field(b"\x12", feature))


@functools.lru_cache(maxsize=1 << 16)
def _text(key: str, value: str) -> bytes:
    return encode_feature(key, value.encode())


@functools.lru_cache(maxsize=1 << 16)
def _number(key: str, value: int) -> bytes:
    return encode_feature(key, value)


@functools.cache
def _colour_template() -> tuple[npt.NDArray[np.uint8], list[int]]:
    """The ten colour features with zeros as values, and where each float begins."""
    entries = [encode_feature(name, 0.0) for name in COLOUR_FEATURES]
    ends = np.cumsum([len(e) for e in entries])
    return np.frombuffer(b"".join(entries), np.uint8), [int(end) - 4 for end in ends]


def encode_colour(colour: npt.NDArray[np.float32]) -> list[bytes]:
    """Encodes float32[N, 10] (columns as `COLOUR_FEATURES`) into the leading part of N Examples."""
    template, starts = _colour_template()
    table = np.repeat(template[None], len(colour), axis=0)
    raw = np.ascontiguousarray(colour, "<f4").view(np.uint8).reshape(len(colour), -1, 4)
    for column, start in enumerate(starts):
        table[:, start : start + 4] = raw[:, column]
    width = table.shape[1]
    joined = table.tobytes()
    return [joined[i : i + width] for i in range(0, len(joined), width)]


class ImageEncoder:
    """Encodes the image part of Examples of one data set.

    Args:
        image_format: `raw` (row-major uint8 RGB) or `encoded` (the PNG file untouched).
        width: Stored width in pixels.
        height: Stored height in pixels.
    """

    def __init__(self, image_format: str, width: int, height: int) -> None:
        if image_format not in ("raw", "encoded"):
            raise ValueError(f"image_format must be raw or encoded, not {image_format!r}")
        self._key = f"image/{image_format}"
        self._height = _number("image/height", height)
        self._width = _number("image/width", width)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - one encoder lives as long as its worker
    def _frame(self, size: int) -> bytes:
        """Everything before the payload of `size` bytes; what follows depends on nothing."""
        whole = encode_feature(self._key, bytes(size))
        return whole[: len(whole) - size]

    def encode(self, payload: bytes) -> tuple[bytes, bytes, bytes]:
        """Returns the parts before, of and after the payload; keys: image/height < image/{encoded,raw} < image/width.

        `image/encoded` sorts before `image/height`, `image/raw` after it.
        """
        frame = self._frame(len(payload))
        if self._key == "image/raw":
            return self._height + frame, payload, self._width
        return frame, payload, self._height + self._width


def encode_example(
    colour: bytes,
    image: tuple[bytes, bytes, bytes],
    *,
    patch_id: str,
    group_id: str,
    slide_id: str,
    label: int,
    label_name: str,
    x: int,
    y: int,
    magnification: int,
    tumor_type: str,
) -> bytes:
    """Serialises one Example. Every feature is always written: absent numbers -1, absent strings empty.

    Args:
        colour: One element of `encode_colour`.
        image: Result of `ImageEncoder.encode`.
        patch_id: As in `Patch`; likewise the rest.
        group_id: Patient or slide.
        slide_id: Slide.
        label: Class index.
        label_name: Class name.
        x: Pixels.
        y: Pixels.
        magnification: Objective magnification.
        tumor_type: Tumour type code.
    """
    before, payload, after = image
    parts = [
        colour,
        _text("group_id", group_id),
        before,
        payload,
        after,
        _number("label", label),
        _text("label/name", label_name),
        _number("magnification", magnification),
        encode_feature("patch_id", patch_id.encode()),
        _text("slide_id", slide_id),
        _text("tumor_type", tumor_type),
        _number("x", x),
        _number("y", y),
    ]
    body = b"".join(parts)
    return b"\x0a" + _length(len(body)) + body


class RawRecords:
    """Finds pixels and label in a data set's own records without parsing them all: what lies between is known.

    Args:
        width: Stored width in pixels.
        height: Stored height in pixels.
        n_classes: Labels are 0 to n_classes - 1; at most 128.
    """

    def __init__(self, width: int, height: int, n_classes: int) -> None:
        self.size = width * height * 3
        self._before, _, self._after = ImageEncoder("raw", width, height).encode(bytes(self.size))
        self._labels = {_number("label", label): label for label in range(n_classes)}
        self._label_bytes = len(_number("label", 0))
        self._colour_bytes = len(_colour_template()[0])

    def find(self, record: bytes) -> tuple[int, int]:
        """Returns (where the `size` bytes of pixels begin, label).

        Raises:
            ValueError: No raw image of this size, or no label of these, where they ought to be.
        """
        try:
            _, at = _read_varint(record, 1)
            length, at = _read_varint(record, at + self._colour_bytes + 1)  # of the entry group_id, which comes next
        except IndexError:
            length, at = 0, len(record)
        start = at + length + len(self._before)
        end = start + self.size
        then = end + len(self._after)
        label = self._labels.get(record[then : then + self._label_bytes])
        if label is None or not record.startswith(self._before, at + length) or record[end:then] != self._after:
            raise ValueError(f"holds no raw image of {self.size} bytes with a label below {len(self._labels)}")
        return start, label


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
        elif wire == 2:
            size, at = _read_varint(data, at)
            if at + size > len(data):
                raise ValueError("field runs past the end")
            yield tag >> 3, data[at : at + size]
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def decode_example(data: bytes) -> dict[str, FeatureValue]:
    """Parses one Example whose features hold a single value each (all that histoline writes do).

    Returns:
        Feature name -> bytes, int or float.

    Raises:
        ValueError: The bytes are not such an Example.
    """
    out: dict[str, FeatureValue] = {}
    try:
        for number, features in _fields(data):
            if number != 1:
                raise ValueError(f"unknown field {number}")
            for _, entry in _fields(features):
                parts = dict(_fields(entry))
                key = parts[1].decode()
                ((kind, body),) = _fields(parts[2])
                ((_, value),) = _fields(body)
                if kind == 1:
                    out[key] = value
                elif kind == 2:
                    (out[key],) = struct.unpack("<f", value)
                else:
                    number, _ = _read_varint(value, 0) if isinstance(value, bytes) else (value, 0)
                    out[key] = number - (1 << 64) if number >> 63 else number
    except (IndexError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"not an Example of single values: {error!r}") from error
    return out


def decode_pixels(features: dict[str, FeatureValue]) -> npt.NDArray[np.uint8]:
    """uint8[H, W, 3] pixels of a parsed Example, raw or encoded; an encoded edge patch is padded, as models do it.

    Raises:
        ValueError: Sizes contradict each other.
    """
    height, width = int(features["image/height"]), int(features["image/width"])
    raw = features.get("image/raw")
    if raw is None:
        from components.core.rejects import Rejected
        from components.images.decode import decode_rgb8, fit

        encoded = features["image/encoded"]
        assert isinstance(encoded, bytes)
        pixels = decode_rgb8(encoded, ".png")
        try:
            return fit(pixels, (width, height), (width, height))
        except Rejected:
            found = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise ValueError(f"image is {found}, the record says {width}x{height}") from None
    assert isinstance(raw, bytes)
    if len(raw) != height * width * 3:
        raise ValueError(f"{len(raw)} bytes for {width}x{height} RGB")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)
