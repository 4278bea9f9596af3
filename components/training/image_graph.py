"""Records and image files to pixels inside a TensorFlow graph: the input of training and of the exported model.

What `components.images.decode` does to a source file at ingest (reflection up to the regular size, mean over whole
blocks) is repeated here in the same integers, so that a patch looks the same to a model wherever it comes from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from components.images.decode import SMALLEST_SHARE, shrink_factor

PNG_COLOUR_TYPE = 25
"""Byte of a PNG file that holds its colour type (IHDR comes first, PNG specification, section 11.2.1)."""


@dataclasses.dataclass(frozen=True)
class ImageSize:
    """Sizes of a data set's images.

    Attributes:
        source: (width, height) in pixels of a regular source image.
        stored: (width, height) in pixels of a record's image; `source` divided by a whole number.
    """

    source: tuple[int, int]
    stored: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of stored images."""
        return self.stored[1], self.stored[0], 3

    @property
    def bytes(self) -> int:
        """Of one stored image."""
        return self.stored[0] * self.stored[1] * 3


def decode_file(data: tf.Tensor) -> tf.Tensor:
    """Decodes one PNG, JPEG or 24-bit BMP file.

    Args:
        data: string[], the whole file.

    Returns:
        uint8[H, W, 3]; grey repeated, an opaque alpha channel dropped, as at ingest. Anything else ends in
        InvalidArgumentError.
    """
    is_png = tf.equal(tf.strings.substr(data, 0, 4), b"\x89PNG")
    start = tf.strings.substr(data, 0, 2)
    known = is_png | tf.equal(start, b"\xff\xd8") | tf.equal(start, b"BM")
    check = tf.debugging.Assert(known, ["an image must be a PNG, JPEG or BMP file; this one begins with", start])
    with tf.control_dependencies([check]):
        return tf.cond(is_png, lambda: _decode_png(data), lambda: _rgb(tf.io.decode_image, data))


def _rgb(decode: Callable[..., tf.Tensor], data: tf.Tensor) -> tf.Tensor:
    more = {"expand_animations": False} if decode is tf.io.decode_image else {}
    return tf.ensure_shape(decode(data, channels=3, **more), [None, None, 3])


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    colour_type = tf.strings.substr(data, PNG_COLOUR_TYPE, 1)
    has_alpha = tf.equal(colour_type, b"\x04") | tf.equal(colour_type, b"\x06")
    return tf.cond(has_alpha, lambda: _without_alpha(data), lambda: _rgb(tf.io.decode_png, data))


def _without_alpha(data: tf.Tensor) -> tf.Tensor:
    pixels = tf.ensure_shape(tf.io.decode_png(data, channels=4), [None, None, 4])
    opaque = tf.reduce_all(tf.equal(pixels[..., 3], 255))
    with tf.control_dependencies([tf.debugging.Assert(opaque, ["an image has pixels that are not opaque"])]):
        return pixels[..., :3]


def pad(image: tf.Tensor, size: ImageSize) -> tf.Tensor:
    """Reflects an edge patch at the bottom and right up to the regular size.

    Args:
        image: uint8[H, W, 3] of any size.
        size: Of the data set.

    Returns:
        uint8 of the regular source size; InvalidArgumentError where a side is longer, or below 80 % of it.
    """
    width, height = size.source
    share, whole = SMALLEST_SHARE
    sides = tf.shape(image)[:2]
    full = tf.constant([height, width])
    fits = tf.reduce_all((sides <= full) & (sides * whole >= full * share))
    message = f"images must be {width}x{height}, or at least {100 * share // whole} % of it on both sides; got [H W]"
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, sides])]):
        missing = tf.reshape(full - sides, (2, 1))
    paddings = tf.pad(missing, [[0, 1], [1, 0]])  # nothing before, nothing on the channels
    return tf.ensure_shape(tf.pad(image, paddings, mode="REFLECT"), [height, width, 3])


def shrink(images: tf.Tensor, size: ImageSize) -> tf.Tensor:
    """Means over whole blocks, halves rounded up: (sum + k*k // 2) // (k*k), exactly as at ingest.

    Args:
        images: uint8[N, source height, source width, 3].
        size: Of the data set.

    Returns:
        uint8[N, stored height, stored width, 3].
    """
    k = shrink_factor(size.source, size.stored)
    if k == 1:
        return images
    height, width, _ = size.shape
    blocks = tf.reshape(tf.cast(images, tf.int32), (-1, height, k, width, k, 3))
    return tf.cast((tf.reduce_sum(blocks, axis=(2, 4)) + k * k // 2) // (k * k), tf.uint8)


def decode_files(files: tf.Tensor, size: ImageSize) -> tf.Tensor:
    """Decodes, pads and shrinks image files.

    Args:
        files: string[N], each a whole PNG, JPEG or BMP file.
        size: Of the data set.

    Returns:
        uint8[N, stored height, stored width, 3].
    """
    width, height = size.source
    regular = tf.TensorSpec((height, width, 3), tf.uint8)
    return shrink(tf.map_fn(lambda data: pad(decode_file(data), size), files, fn_output_signature=regular), size)


def decode_raw(raw: tf.Tensor, size: ImageSize) -> tf.Tensor:
    """Row-major RGB bytes to pixels, all at once.

    Args:
        raw: string[N], `image/raw` of N records.
        size: Of the data set.

    Returns:
        uint8[N, stored height, stored width, 3]; InvalidArgumentError where a length is wrong.
    """
    # The first dimension is told, not inferred: decode_raw of no record at all has no second one.
    return tf.reshape(tf.io.decode_raw(raw, tf.uint8), (tf.shape(raw)[0], *size.shape))


def parse_training(records: tf.Tensor, image_format: str, size: ImageSize) -> tuple[tf.Tensor, tf.Tensor]:
    """Parses a batch of a data set's own records: one vectorised parse, one vectorised decode.

    Args:
        records: string[N], serialised Examples.
        image_format: `raw` or `encoded`, of the data set.
        size: Likewise.

    Returns:
        (uint8[N, H, W, 3], int32[N] labels).
    """
    key = f"image/{image_format}"
    features = {key: tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    parsed = tf.io.parse_example(records, features)
    decode: Any = decode_raw if image_format == "raw" else decode_files
    return decode(parsed[key], size), tf.cast(parsed["label"], tf.int32)


def parse_serving(records: tf.Tensor, size: ImageSize) -> tf.Tensor:
    """Parses any Examples that the contract allows: raw or encoded images, also mixed; nothing else is looked at.

    Args:
        records: string[N], serialised Examples.
        size: Of the data set that the model was trained on.

    Returns:
        uint8[N, H, W, 3]; InvalidArgumentError where a record holds no image, or one of another size.
    """
    absent = tf.io.FixedLenFeature([], tf.string, default_value="")
    parsed = tf.io.parse_example(records, {"image/raw": absent, "image/encoded": absent})
    raw, encoded = parsed["image/raw"], parsed["image/encoded"]
    is_raw = tf.equal(tf.strings.length(raw), size.bytes)
    height, width, _ = size.shape
    message = f"every record must hold image/raw of {width}x{height} RGB ({size.bytes:,} bytes) or image/encoded"
    check = tf.debugging.Assert(tf.reduce_all(is_raw | (tf.strings.length(encoded) > 0)), [message])

    def mixed() -> tf.Tensor:
        # Records of one batch may differ in kind: each kind is decoded on its own and put back in its place.
        places = [tf.where(~is_raw)[:, 0], tf.where(is_raw)[:, 0]]
        pixels = [
            decode_files(tf.gather(encoded, places[0]), size),
            decode_raw(tf.gather(raw, places[1]), size),
        ]
        order = tf.argsort(tf.concat(places, axis=0))
        return tf.gather(tf.concat(pixels, axis=0), order)

    with tf.control_dependencies([check]):
        return tf.cond(tf.reduce_all(is_raw), lambda: decode_raw(raw, size), mixed)
