"""The second decoder agrees with the first on everything that ingest accepts."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from components.images.decode import decode_rgb8
from components.images.independent import decode_independent, fit_independent

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **{"photometric": "rgb", "metadata": None} | options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_png_agrees(mode):
    if mode == "I;16":
        image = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(PIXELS).convert(mode)
    data = png(image)
    np.testing.assert_array_equal(decode_independent(data, ".png"), decode_rgb8(data, ".png"))


def test_damaged_png_is_an_error():
    with pytest.raises(ValueError, match="Pillow"):
        decode_independent(b"hello", ".png")


@pytest.mark.integration
def test_tiff_agrees():
    grey = PIXELS[..., 0]
    files = [
        tiff(PIXELS),
        tiff(PIXELS, compression="lzw", predictor=True),
        tiff(PIXELS, tile=(16, 16), compression="zlib"),
        tiff(PIXELS, compression="jpeg", subsampling=(2, 2)),
        tiff(np.ascontiguousarray(np.moveaxis(PIXELS, -1, 0)), planarconfig="separate"),
        tiff(grey, photometric="minisblack"),
        tiff(grey, photometric="miniswhite"),
        tiff(np.dstack([PIXELS, np.full(grey.shape, 255, np.uint8)]), extrasamples=["unassalpha"]),
        tiff(PIXELS.astype(np.uint16) * 257),
    ]
    for data in files:
        np.testing.assert_array_equal(decode_independent(data, ".TIF"), decode_rgb8(data, ".TIF"))
    with pytest.raises(ValueError, match="TensorFlow I/O"):
        decode_independent(b"hello", ".tif")


def test_fit_independent_pads_and_rounds_halves_up():
    image = np.zeros((2, 4, 3), np.uint8)
    image[0, 0] = 2  # mean 0.5
    image[0, 2] = 1  # mean 0.25
    np.testing.assert_array_equal(fit_independent(image, (4, 2), (2, 1))[0, :, 0], [1, 0])
    assert fit_independent(image[:, :3], (4, 2), (4, 2))[0, 3, 0] == image[0, 1, 0]
