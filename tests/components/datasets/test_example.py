"""The codec gives TensorFlow's own deterministic bytes and reads them back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets import tfrecord
from components.datasets.example import (
    ImageEncoder,
    RawRecords,
    decode_example,
    decode_pixels,
    encode_colour,
    encode_example,
    encode_feature,
)
from schemas.tables import COLOUR_FEATURES
from tests.support import trees


def encode(pixels: np.ndarray, colour: np.ndarray, **fields: object) -> bytes:
    image = ImageEncoder("raw", pixels.shape[1], pixels.shape[0]).encode(pixels.tobytes())
    row = dict(
        patch_id="p", group_id="g", slide_id="", label=1, label_name="idc", x=-1, y=3, magnification=-1, tumor_type=""
    )
    return encode_example(encode_colour(colour[None])[0], image, **{**row, **fields})  # type: ignore[arg-type]


texts = st.text(max_size=40).filter(lambda s: "\ud800" not in s).map(lambda s: s.encode("utf-8", "ignore").decode())
int32 = st.integers(-1, 2**31 - 1)


@settings(max_examples=60, deadline=None)
@given(texts, texts, int32, int32, st.integers(0, 7), st.integers(3, 12), st.integers(3, 12), st.randoms())
def test_round_trip(patch_id, group_id, x, y, label, height, width, random):
    pixels = np.frombuffer(random.randbytes(height * width * 3), np.uint8).reshape(height, width, 3)
    colour = np.array([random.uniform(-5, 300) for _ in COLOUR_FEATURES], np.float32)
    features = decode_example(encode(pixels, colour, patch_id=patch_id, group_id=group_id, x=x, y=y, label=label))
    assert features["patch_id"] == patch_id.encode() and features["group_id"] == group_id.encode()
    assert (features["x"], features["y"], features["label"]) == (x, y, label)
    assert np.array_equal(decode_pixels(features), pixels)
    assert [np.float32(features[name]) for name in COLOUR_FEATURES] == list(colour)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 7), st.integers(3, 60), st.integers(3, 60))
def test_raw_records_are_found_without_a_parse(group_id, label, height, width):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    record = encode(pixels, np.ones(len(COLOUR_FEATURES), np.float32), group_id=group_id, label=label)
    records = RawRecords(width, height, 8)
    start, found = records.find(record)
    assert (record[start : start + records.size], found) == (pixels.tobytes(), label)


def test_a_group_that_looks_like_an_image_is_none():
    pixels, colour = np.full((3, 3, 3), 65, np.uint8), np.zeros(len(COLOUR_FEATURES), np.float32)
    inner = encode(pixels, colour, label=0)
    fake = inner[inner.index(b"image/height") :].decode("ascii", "replace")
    assert "image/raw" in fake
    record = encode(np.full((3, 3, 3), 66, np.uint8), colour, group_id=fake, label=1)
    start, label = RawRecords(3, 3, 2).find(record)
    assert (record[start : start + 27], label) == (b"B" * 27, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: b"",
        lambda record: record[:40],
        lambda record: record[:-200],
        lambda record: record.replace(b"image/raw", b"image/row"),
        lambda record: record.replace(b"image/width", b"image/widt_"),
        lambda record: encode(np.zeros((5, 4, 3), np.uint8), np.zeros(len(COLOUR_FEATURES), np.float32)),
        lambda record: encode(np.zeros((4, 4, 3), np.uint8), np.zeros(len(COLOUR_FEATURES), np.float32), label=2),
    ],
)
def test_other_records_are_refused(change):
    record = encode(np.zeros((4, 4, 3), np.uint8), np.zeros(len(COLOUR_FEATURES), np.float32))
    RawRecords(4, 4, 2).find(record)
    with pytest.raises(ValueError, match="no raw image of 48 bytes"):
        RawRecords(4, 4, 2).find(change(record))


@pytest.mark.integration
def test_bytes_are_those_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 50, 3), np.uint8)
    colour = rng.normal(size=len(COLOUR_FEATURES)).astype(np.float32)
    ours = encode(pixels, colour, patch_id="8863_idx5_x51_y1251_class0", slide_id="é", x=1 << 20, magnification=400)
    theirs = tf.train.Example.FromString(ours).SerializeToString(deterministic=True)
    assert ours == theirs
    parsed = tf.train.Example.FromString(ours).features.feature
    assert parsed["image/raw"].bytes_list.value[0] == pixels.tobytes()
    assert parsed["x"].int64_list.value[0] == 1 << 20 and parsed["y"].int64_list.value[0] == 3
    assert parsed["color/red_mean"].float_list.value[0] == colour[COLOUR_FEATURES.index("color/red_mean")]


def test_encoded_images_keep_the_order_of_keys():
    tf = pytest.importorskip("tensorflow")
    image = ImageEncoder("encoded", 50, 50).encode(b"\x89PNG" * 100)
    ours = encode_example(
        encode_colour(np.zeros((1, 10), np.float32))[0], image, patch_id="p", group_id="g", slide_id="s", label=0,
        label_name="n", x=0, y=0, magnification=40, tumor_type="DC",
    )  # fmt: skip
    assert tf.train.Example.FromString(ours).SerializeToString(deterministic=True) == ours


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:10], lambda b: b"\xff" + b[1:], lambda b: b"\x0f" * 9]
)
def test_damaged_examples_are_refused(damage):
    whole = encode(np.zeros((3, 3, 3), np.uint8), np.zeros(10, np.float32))
    with pytest.raises(ValueError):
        decode_example(damage(whole))


def test_pixels_must_fill_the_stated_size():
    entries = b"".join(
        encode_feature(k, v) for k, v in (("image/height", 4), ("image/raw", bytes(27)), ("image/width", 3))
    )
    features = decode_example(b"\x0a" + bytes([len(entries)]) + entries)
    with pytest.raises(ValueError, match="27 bytes for 3x4"):
        decode_pixels(features)


def test_an_encoded_edge_patch_is_padded_as_at_ingest():
    image = trees.pixels("edge", 45, 50)
    record = {"image/height": 50, "image/width": 50, "image/encoded": trees.image_bytes("edge", 45, 50)}
    assert np.array_equal(decode_pixels(record), np.pad(image, ((0, 0), (0, 5), (0, 0)), mode="reflect"))
    with pytest.raises(ValueError, match="image is 30x50, the record says 50x50"):
        decode_pixels({**record, "image/encoded": trees.image_bytes("edge", 30, 50)})


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_framing_round_trip(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("r") / "a.tfrecord"
    path.write_bytes(b"".join(tfrecord.header(len(r)) + r + tfrecord.footer(r) for r in records))
    read = list(tfrecord.read_records(path))
    assert [r for _, r in read] == records
    assert all(tfrecord.read_at(path, offset) == r for offset, r in read)


def test_framing_is_tensorflows(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for size in (0, 1, 7000):
            writer.write(b"x" * size)
    assert [len(r) for _, r in tfrecord.read_records(path)] == [0, 1, 7000]


@pytest.mark.parametrize("at", [0, 5, 9, 13, 20, -1])
def test_every_flipped_byte_is_found(tmp_path, at):
    path = tmp_path / "a.tfrecord"
    data = bytearray(tfrecord.header(10) + b"0123456789" + tfrecord.footer(b"0123456789"))
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(tfrecord.CorruptRecord, match="byte 0"):
        list(tfrecord.read_records(path))


@pytest.mark.parametrize("length", [3, 12, 20, 25])
def test_cut_records_are_found(tmp_path, length):
    path = tmp_path / "a.tfrecord"
    path.write_bytes((tfrecord.header(10) + b"0123456789" + tfrecord.footer(b"0123456789"))[:length])
    with pytest.raises(tfrecord.CorruptRecord, match="cut off"):
        list(tfrecord.read_records(path))
