"""A second way from file to pixels, for `verify --deep`: shares no decoder and no arithmetic with `images`.

PNG goes through Pillow, TIFF through TensorFlow I/O's libtiff, scaling through plain numpy in int64.
Slow on purpose.
"""

from __future__ import annotations

import io

import numpy as np

from components.core.array_types import Pixels
from components.core.native_output import caught_output


def decode_independent(data: bytes, extension: str) -> Pixels:
    """Decodes a file that ingest has accepted.

    Neither decoder can be trusted to notice damage (TensorFlow I/O fills a cut TIFF with zeros): comparing
    with the stored pixels is the check.

    Args:
        data: The whole file.
        extension: The file name's extension with its dot, in any case.

    Returns:
        uint8 array (H, W, 3). Alpha is dropped; ingest accepts opaque images only. 16-bit samples lose their
        low byte; ingest accepts those only whose two bytes are equal.

    Raises:
        ValueError: The file cannot be decoded.
    """
    with caught_output():  # libtiff's and libpng's remarks: only the pixels count here
        return _decode(data, extension)


def _decode(data: bytes, extension: str) -> Pixels:
    if extension.lower() in (".tif", ".tiff"):
        return _decode_tiff(data)
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it at 255
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"Pillow cannot decode it: {error}") from error


def fit_independent(
    image: Pixels, source_size: tuple[int, int], stored_size: tuple[int, int]
) -> Pixels:
    """Pads and averages as `images.fit` promises, written again in plain numpy.

    Args:
        image: uint8 array (H, W, 3) that `images.fit` accepts.
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels as stored.

    Returns:
        uint8 array (stored height, stored width, 3).
    """
    missing_rows, missing_columns = source_size[1] - image.shape[0], source_size[0] - image.shape[1]
    padded = np.pad(image, ((0, missing_rows), (0, missing_columns), (0, 0)), mode="reflect")
    width, height = stored_size
    factor = source_size[0] // width
    blocks = padded.reshape(height, factor, width, factor, 3).astype(np.int64)
    scaled: Pixels = ((blocks.sum(axis=(1, 3)) + factor**2 // 2) // factor**2).astype(np.uint8)
    return scaled


def _decode_tiff(data: bytes) -> Pixels:
    import tensorflow as tf
    import tensorflow_io as tfio

    try:
        rgba = tfio.experimental.image.decode_tiff(data).numpy()
    except tf.errors.OpError as error:
        raise ValueError(f"TensorFlow I/O cannot decode it: {error}") from error
    return np.ascontiguousarray(rgba[..., :3])
