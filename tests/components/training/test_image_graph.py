from __future__ import annotations

import io
import os
import struct
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.core.rejects import Rejected
from components.images.decode import decode_rgb8, fit
from components.training.image_graph import ImageSize, decode_files, parse_serving, parse_training, shrink

IDC = ImageSize((50, 50), (50, 50))
BREAKHIS = ImageSize((700, 460), (350, 230))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def decoded(*files: bytes, size: ImageSize = IDC) -> np.ndarray:
    return tf.function(lambda x: decode_files(x, size))(tf.constant(list(files))).numpy()


@pytest.mark.parametrize(
    ("size", "shape"),
    [(IDC, (50, 50)), (IDC, (40, 41)), (IDC, (50, 47)), (BREAKHIS, (460, 700)), (BREAKHIS, (456, 700))],
)
def test_png_files_look_as_the_ingest_stores_them(size: ImageSize, shape: tuple[int, int]) -> None:
    files = [encoded(noise(*shape, seed=s)) for s in range(3)]
    stored = [fit(decode_rgb8(f, ".png"), size.source, size.stored) for f in files]
    np.testing.assert_array_equal(decoded(*files, size=size), stored)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_means_over_blocks_round_halves_up_as_the_ingest_does(k: int) -> None:
    size = ImageSize((6 * k, 4 * k), (6, 4))
    images = np.stack([noise(4 * k, 6 * k, seed=s) for s in range(4)])
    wanted = [fit(image, size.source, size.stored) for image in images]
    np.testing.assert_array_equal(shrink(tf.constant(images), size).numpy(), wanted)


def test_other_kinds_of_png_are_read_as_the_ingest_reads_them() -> None:
    opaque = np.dstack([noise(50, 50), np.full((50, 50), 255, np.uint8)])
    files = [
        encoded(noise(50, 50, 1)),
        encoded(opaque),
        encoded(Image.fromarray(noise(50, 50)).quantize(8)),
        encoded(Image.fromarray(np.dstack([noise(50, 50, 1), opaque[..., 3]]), "LA")),
    ]
    np.testing.assert_array_equal(decoded(*files), [decode_rgb8(f, ".png") for f in files])


def test_jpeg_and_bmp_are_taken() -> None:
    image = np.full((50, 50, 3), (200, 120, 160), np.uint8)
    out = decoded(encoded(image, "JPEG", quality=95), encoded(image, "BMP"))
    assert np.abs(out.astype(int) - image).max() <= 2
    np.testing.assert_array_equal(out[1], image)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (encoded(noise(50, 39)), "at least 80 %"),
        (encoded(noise(50, 51)), "images must be 50x50"),
        (encoded(noise(50, 50, 4)), "not opaque"),
        (encoded(noise(50, 50), "GIF"), "must be a PNG, JPEG or BMP"),
        (encoded(noise(50, 50), "TIFF"), "must be a PNG, JPEG or BMP"),
        (b"", "must be a PNG, JPEG or BMP"),
        (encoded(noise(50, 50))[:900], "(?i)png"),
    ],
)
def test_what_the_ingest_rejects_is_no_answer_either(file: bytes, message: str) -> None:
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError), match=message):
        decoded(file)


def test_the_ingest_rejects_the_narrow_image_too() -> None:
    with pytest.raises(Rejected):
        fit(noise(50, 39), IDC.source, IDC.stored)


def record(**features: bytes | int) -> bytes:
    made = {
        k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v]))
        if isinstance(v, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[v]))
        for k, v in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def test_raw_and_encoded_records_may_be_mixed_and_hold_nothing_else() -> None:
    images = [noise(50, 50, seed=s) for s in range(5)]
    records = [
        record(**{"image/encoded": encoded(image)}) if i % 2 else record(**{"image/raw": image.tobytes()})
        for i, image in enumerate(images)
    ]
    out = tf.function(lambda x: parse_serving(x, IDC))(tf.constant(records))
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("bad", [record(label=1), record(**{"image/raw": bytes(7499)}), b"no record"])
def test_a_record_without_the_image_is_an_error(bad: bytes) -> None:
    good = record(**{"image/raw": bytes(7500)})
    with pytest.raises(tf.errors.InvalidArgumentError):
        parse_serving(tf.constant([good, bad]), IDC)


def test_a_raw_image_of_another_size_is_an_error_in_training() -> None:
    # Two wrong lengths that together would make whole images again.
    records = [record(**{"image/raw": bytes(n), "label": 1}) for n in (7500, 7500)]
    images, labels = parse_training(tf.constant(records), "raw", IDC)
    assert images.shape == (2, 50, 50, 3) and labels.numpy().tolist() == [1, 1]
    wrong = ImageSize((100, 50), (100, 50))
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        parse_training(tf.constant(records), "raw", wrong)


@pytest.mark.realdata
def test_real_files_are_read_as_the_ingest_reads_them(shared_data: Path) -> None:
    idc = sorted((shared_data / "idc").glob("*/*/*.png"))
    # Narrow files are at slide edges; IHDR says so without decoding.
    wide = {p: struct.unpack(">II", p.read_bytes()[16:24]) for p in idc}
    edges = [p for p, (w, h) in wide.items() if (w, h) != (50, 50) and min(w, h) >= 40]
    breakhis = sorted((shared_data / "breakhis").rglob("*.png"))
    assert edges
    for size, files in ((IDC, idc[::80] + edges[:20]), (BREAKHIS, breakhis[::8])):
        data = [p.read_bytes() for p in files if min(wide.get(p, (50, 50))) >= 40]
        wanted = [fit(decode_rgb8(d, ".png"), size.source, size.stored) for d in data]
        np.testing.assert_array_equal(decoded(*data, size=size), wanted)
