"""The way from a source file to stored pixels: choice of format, padding, scaling, the real files."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.core.rejects import Rejected
from components.errors import UsageError
from components.images.decode import decode_rgb8, fit, shrink_factor
from components.images.independent import fit_independent

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)


def encoded(form: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, **options)
    return file.getvalue()


def code_of(data: bytes, extension: str) -> str:
    with pytest.raises(Rejected) as caught:
        decode_rgb8(data, extension)
    assert caught.value.detail
    return caught.value.code


@pytest.mark.parametrize(
    "form, extension", [("PNG", ".png"), ("PNG", ".PNG"), ("TIFF", ".tif"), ("TIFF", ".TIFF")]
)
def test_decodes_by_extension(form, extension):
    np.testing.assert_array_equal(decode_rgb8(encoded(form), extension), PIXELS)


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_what_is_no_image(extension):
    assert code_of(b"", extension) == "empty_file"
    assert code_of(b"Dear reader, this is no image.\n", extension) == "not_an_image"
    assert code_of(bytes(1000), extension) == "not_an_image"
    assert code_of(b"\0", extension) == "not_an_image"
    assert code_of(b"PK\3\4" + bytes(100), extension) == "not_an_image"


@pytest.mark.parametrize("form", ["JPEG", "GIF", "BMP", "WEBP", "PNG", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_content_that_contradicts_the_extension(form, extension):
    if (form, extension) in (("PNG", ".png"), ("TIFF", ".tif")):
        return
    assert code_of(encoded(form), extension) == "wrong_format"


def test_damaged_signature_is_told_from_no_image():
    data = encoded("PNG")
    assert code_of(data[:1], ".png") == "truncated"
    assert code_of(data.replace(b"\r\n", b"\n"), ".png") == "truncated"  # sent as text
    assert code_of(encoded("TIFF")[:3], ".tif") == "truncated"


def test_other_extensions_are_unsupported():
    assert code_of(encoded("JPEG"), ".jpg") == "unsupported"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"II*\0", b"MM\0*"]))
def test_any_bytes_are_decoded_or_refused(rest, beginning):
    for extension in (".png", ".tif"):
        with pytest.raises(Rejected):
            decode_rgb8(beginning + rest, extension)


@pytest.mark.parametrize(
    "source, stored, factor",
    [
        ((50, 50), (50, 50), 1),
        ((700, 460), (350, 230), 2),
        ((700, 460), (175, 115), 4),
        ((96, 96), (32, 32), 3),
    ],
)
def test_shrink_factor(source, stored, factor):
    assert shrink_factor(source, stored) == factor


@pytest.mark.parametrize(
    "stored", [(350, 460), (700, 230), (351, 230), (0, 0), (1400, 920), (224, 224), (-350, -230)]
)
def test_shrink_factor_refuses_what_is_not_a_whole_number(stored):
    with pytest.raises(UsageError, match="350x230") as caught:
        shrink_factor((700, 460), stored)
    assert caught.value.exit_code == 64


def test_regular_image_is_returned_as_it_is():
    assert fit(PIXELS, (12, 10), (12, 10)) is PIXELS


def test_reflection_leaves_the_edge_pixel_single():
    row = np.arange(8, dtype=np.uint8)
    image = np.repeat(np.tile(row, (10, 1))[..., None], 3, axis=2)
    padded = fit(image, (10, 10), (10, 10))
    assert padded.shape == (10, 10, 3)
    assert padded[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 6, 5]


@pytest.mark.parametrize(
    "size, code",
    [
        ((51, 50), "wrong_size"),
        ((50, 51), "wrong_size"),
        ((51, 20), "wrong_size"),
        ((39, 50), "too_narrow"),
        ((50, 39), "too_narrow"),
        ((50, 1), "too_narrow"),
    ],
)
def test_sizes_that_are_refused(size, code):
    with pytest.raises(Rejected) as caught:
        fit(np.zeros((size[1], size[0], 3), np.uint8), (50, 50), (50, 50))
    assert caught.value.code == code
    assert f"{size[0]}x{size[1]}" in caught.value.detail


def test_eighty_percent_is_enough():
    assert fit(np.zeros((40, 40, 3), np.uint8), (50, 50), (50, 50)).shape == (50, 50, 3)
    assert fit(np.zeros((456, 700, 3), np.uint8), (700, 460), (350, 230)).shape == (230, 350, 3)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 24), st.integers(1, 24), st.floats(0.8, 1), st.floats(0.8, 1), st.data()
)
def test_fit_agrees_with_numpy(factor, width, height, share_x, share_y, data):
    source = (width * factor, height * factor)
    shape = (int(np.ceil(source[1] * share_y)), int(np.ceil(source[0] * share_x)), 3)
    seed = data.draw(st.integers(0, 2**32 - 1))
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    fitted = fit(image, source, (width, height))
    assert fitted.shape == (height, width, 3) and fitted.dtype == np.uint8 and fitted.flags.c_contiguous
    np.testing.assert_array_equal(fitted, fit_independent(image, source, (width, height)))


def test_halving_rounds_halves_up_for_every_sum():
    """All 1,021 possible sums of four bytes; OpenCV's kernel must give the integer formula for each."""
    total = np.arange(1021)
    blocks = np.stack([np.minimum(np.maximum(total - 255 * i, 0), 255) for i in range(4)])  # (4, 1021)
    image = np.repeat(blocks.reshape(2, 2, -1).transpose(0, 2, 1).reshape(2, -1, 1), 3, axis=2).astype(
        np.uint8
    )
    halved = fit(image, (2042, 2), (1021, 1))
    np.testing.assert_array_equal(halved[0, :, 1], (total + 2) // 4)


def test_opencv_starts_no_threads():
    assert cv2.getNumThreads() <= 1


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, components.images.decode, components.images.independent; "
        "print({'tensorflow', 'tensorflow_io', 'apache_beam', 'tifffile', 'PIL.Image'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[3]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.realdata
@pytest.mark.parametrize(
    "pattern, source, stored, count",
    [
        ("idc/*/*/*.png", (50, 50), (50, 50), 5771),
        ("breakhis/**/*.png", (700, 460), (350, 230), 80),
        ("pcam/*/*.tif", (96, 96), (96, 96), 1600),
    ],
)
def test_real_files_decode_as_in_pillow(shared_data, pattern, source, stored, count):
    files = sorted(shared_data.glob(pattern))
    assert len(files) >= count
    for file in files:
        data = file.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
        pixels = decode_rgb8(data, file.suffix)
        assert np.array_equal(pixels, expected), file
        if pixels.shape[0] * 5 >= source[1] * 4 and pixels.shape[1] * 5 >= source[0] * 4:
            assert np.array_equal(fit(pixels, source, stored), fit_independent(expected, source, stored)), (
                file
            )
        else:
            with pytest.raises(Rejected, match="too_narrow"):
                fit(pixels, source, stored)
