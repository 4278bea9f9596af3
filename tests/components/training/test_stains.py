from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.datasets.committed import Split
from components.errors import DataError
from components.training import colour_spaces, stain_statistics
from components.training.image_graph import ImageSize
from components.training.stain_augmentation import RandomStain
from components.training.stain_normalisation import layer, percentiles, stains_of
from components.training.stain_targets import StainSpread, StainTarget

GOLDEN = json.loads((Path(__file__).parent / "golden" / "stains.json").read_text())
"""What torchstain, a library of others, makes of three images; how, is said in the file."""

TARGETS = {
    "reinhard": StainTarget("reinhard", (tuple(GOLDEN["lab_mean"]), tuple(GOLDEN["lab_std"]))),
    "macenko": StainTarget("macenko", tuple(map(tuple, GOLDEN["stains"])), tuple(GOLDEN["percentile_99"])),
}


def golden(name: str) -> np.ndarray:
    rows = GOLDEN[name] if isinstance(GOLDEN[name], list) else [GOLDEN[name]]
    return np.stack([np.frombuffer(bytes.fromhex(row), np.uint8).reshape(GOLDEN["shape"]) for row in rows])


@pytest.mark.parametrize("method", TARGETS)
def test_normalises_as_torchstain_does(method: str) -> None:
    images, wanted = golden("images").astype("float32"), golden(method).astype(float)
    out = np.asarray(layer(TARGETS[method])(images))
    # That library cuts decimals off, so its levels lie up to 1 below ours.
    assert (out - wanted).min() > -0.01 and (out - wanted).max() < 1.01
    assert np.abs(wanted - images).max() > 40
    one = np.asarray(layer(TARGETS[method])(images[1:2]))
    np.testing.assert_allclose(one[0], out[1], atol=1e-2)


@pytest.mark.parametrize("method", TARGETS)
def test_what_says_nothing_of_its_stains_stays_as_it_is(method: str) -> None:
    images = np.stack([np.full((12, 12, 3), level) for level in ([255] * 3, [0] * 3, [180, 90, 150], [240] * 3)])
    corner = images[:1].copy()
    corner[:, 0, :6] = [150, 60, 140]  # tissue, but under a twentieth of the image
    images = np.concatenate([images, corner]).astype("float32")
    out = np.asarray(layer(TARGETS[method])(np.concatenate([images, golden("images")]).astype("float32")))
    np.testing.assert_array_equal(out[: len(images)], images)
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 255
    assert not np.array_equal(out[len(images) :], golden("images"))


@pytest.mark.parametrize("method", TARGETS)
def test_any_pixels_give_grey_levels_compiled_or_not(method: str) -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (4, 12, 12, 3)).astype("float32")
    images[0] = rng.choice([0.0, 255.0], (12, 12, 3))
    images[1, 3:] = 255
    normal = layer(TARGETS[method])
    out = np.asarray(normal(images))
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 255
    fast = tf.function(lambda v: normal(v), jit_compile=True)(tf.constant(golden("images"), tf.float32))
    np.testing.assert_allclose(np.asarray(fast), np.asarray(normal(golden("images").astype("float32"))), atol=0.05)


def test_glass_takes_no_part_in_reinhards_statistics() -> None:
    image = golden("images")[:1].astype("float32")
    beside = np.concatenate([image, np.full_like(image, 255)], axis=2)
    normal = layer(TARGETS["reinhard"])
    np.testing.assert_allclose(np.asarray(normal(beside))[:, :, :12], np.asarray(normal(image)), atol=0.05)


def test_lab_goes_there_and_back() -> None:
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 17)] * 3, indexing="ij"), axis=-1).astype("float32")
    lab = np.asarray(colour_spaces.rgb_to_lab(levels))
    np.testing.assert_allclose(np.asarray(colour_spaces.lab_to_rgb(lab)), levels, atol=0.05)
    # White and the primaries of sRGB, from B. Lindbloom's CIE calculator (D65).
    for rgb, wanted in (((255, 255, 255), (100, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20))):
        np.testing.assert_allclose(np.asarray(colour_spaces.rgb_to_lab(np.float32(rgb))), wanted, atol=0.1)


def test_percentiles_are_numpys() -> None:
    rng = np.random.default_rng(0)
    values, where = rng.normal(size=(3, 40)).astype("float32"), rng.random((3, 40)) < 0.6
    where[2] = False
    out = np.asarray(percentiles(values, where, (0.01, 0.5, 0.99)))
    for row in (0, 1):
        np.testing.assert_allclose(out[row], np.percentile(values[row][where[row]], (1, 50, 99)), rtol=1e-5)
    assert (out[2] == 0).all()


def shards(folder: Path, images: np.ndarray, count: int = 4) -> tuple[Split, str, ImageSize]:
    paths = []
    for number, part in enumerate(np.array_split(images, count)):
        paths.append(folder / f"{number}.tfrecord")
        with tf.io.TFRecordWriter(str(paths[-1])) as writer:
            for image in part:
                raw = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[0]))
                features = tf.train.Features(feature={"image/raw": raw, "label": label})
                writer.write(tf.train.Example(features=features).SerializeToString())
    side = images.shape[1]
    return Split("train", tuple(paths), (len(images), 0)), "raw", ImageSize((side, side), (side, side))


def slides(count: int = 24, seed: int = 0) -> np.ndarray:
    """Patches whose haematoxylin and eosin differ from one to the next; every eighth is glass."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(4.0, rng.uniform(0.1, 0.3, (count, 1, 1, 2)), (count, 12, 12, 2))
    density = amounts @ np.array([[0.65, 0.70, 0.29], [0.25, 0.88, 0.40]]) + 0.16
    images = np.clip(240 * np.exp(-density) - 1, 0, 255).astype(np.uint8)
    images[::8] = 250
    return images


def test_targets_are_measured_on_train_the_same_way_every_time(tmp_path: Path) -> None:
    images = slides(48)
    given = shards(tmp_path, images)
    tissue = images[[i for i in range(48) if i % 8]].reshape(-1, 144, 3).astype("float32")
    mean, std = colour_spaces.moments(colour_spaces.rgb_to_lab(tissue), np.ones((42, 144), "float32"))
    reinhard = stain_statistics.target(*given, "reinhard")
    assert reinhard is not None and reinhard == stain_statistics.target(*given, "reinhard")
    np.testing.assert_allclose(reinhard.rows[0], np.asarray(mean).mean(axis=(0, 1)), atol=1e-3)
    np.testing.assert_allclose(reinhard.rows[1], np.asarray(std).mean(axis=(0, 1)), atol=1e-3)
    macenko = stain_statistics.target(*given, "macenko")
    assert macenko is not None
    drawn = np.array([[0.65, 0.70, 0.29], [0.25, 0.88, 0.40]])
    np.testing.assert_allclose(macenko.rows, drawn / np.linalg.norm(drawn, axis=1, keepdims=True), atol=0.1)
    tops = np.asarray(stains_of(tissue)[2])
    np.testing.assert_allclose(macenko.amounts, np.median(tops, axis=0), atol=1e-3)
    # Normalised, patches lie closer together than before, and about where they lay.
    for target in (reinhard, macenko):
        after = np.asarray(layer(target)(images.astype("float32")))[np.arange(48) % 8 > 0].mean(axis=(1, 2))
        before = images[np.arange(48) % 8 > 0].mean(axis=(1, 2))
        assert (after.std(axis=0) < 0.6 * before.std(axis=0)).all(), target.method
        assert np.abs(after.mean(axis=0) - before.mean(axis=0)).max() < 25
    assert stain_statistics.target(*given, "none") is None


def test_random_stains_are_drawn_from_what_train_holds(tmp_path: Path) -> None:
    given = shards(tmp_path, slides(48))
    spreads = stain_statistics.spreads(*given, "both")
    assert [s.space for s in spreads] == ["lab", "hed"] and stain_statistics.spreads(*given, "none") == ()
    (lab,) = stain_statistics.spreads(*given, "lab")
    assert lab == spreads[0] and min(lab.std_spread) > 0
    images = np.repeat(slides(8)[1:2], 400, axis=0).astype("float32")
    out = np.asarray(RandomStain((lab,), seed=3)(images, training=True))
    mean, std = (
        np.asarray(x)[:, 0]
        for x in colour_spaces.moments(
            colour_spaces.rgb_to_lab(out.reshape(400, -1, 3)), np.ones((400, 144), "float32")
        )
    )
    np.testing.assert_allclose(mean.mean(axis=0), lab.mean, atol=2)
    np.testing.assert_allclose(mean.std(axis=0), lab.mean_spread, rtol=0.3)
    np.testing.assert_allclose(std.mean(axis=0), lab.std, rtol=0.3)
    glass = np.full((4, 12, 12, 3), 250, "float32")
    np.testing.assert_array_equal(np.asarray(RandomStain(spreads, seed=3)(glass, training=True)), glass)


def test_either_colour_space_is_drawn() -> None:
    still = StainSpread("lab", (50, 20, 5), (0, 0, 0), (10, 4, 4), (0, 0, 0))
    other = StainSpread("hed", (0.1, 0.1, 0.1), (0, 0, 0), (0.05, 0.05, 0.05), (0, 0, 0))
    images = np.repeat(golden("images")[:1].astype("float32"), 200, axis=0)
    out = np.asarray(RandomStain((still, other), seed=1)(images, training=True))
    kinds, counts = np.unique(out.round(1).reshape(200, -1), axis=0, return_counts=True)
    assert len(kinds) == 2 and min(counts) > 70


def test_glass_alone_can_not_be_measured(tmp_path: Path) -> None:
    given = shards(tmp_path, np.full((16, 12, 12, 3), 245, np.uint8))
    for measure in (
        lambda: stain_statistics.target(*given, "macenko"),
        lambda: stain_statistics.spreads(*given, "hed"),
    ):
        with pytest.raises(DataError, match="Only 0 of the sampled patches"):
            measure()


def test_normalisation_comes_before_everything_and_keeps_float32() -> None:
    from components.training import models

    with_, without = (
        models.build("simple_cnn", (24, 24, 3), 2, image_size=(16, 16), stain=target)
        for target in (TARGETS["reinhard"], None)
    )
    with_.set_weights(without.get_weights())  # a target is no weight
    images = np.random.default_rng(0).integers(60, 200, (2, 24, 24, 3)).astype("float32")
    normal = np.asarray(layer(TARGETS["reinhard"])(images))
    np.testing.assert_allclose(np.asarray(with_(images)), np.asarray(without(normal)), atol=1e-6)
    assert models.stain_target(with_) == TARGETS["reinhard"] and models.stain_target(without) is None
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = models.build("simple_cnn", (24, 24, 3), 2, stain=TARGETS["reinhard"])
    finally:
        keras.config.set_dtype_policy("float32")
    assert half.get_layer("stain_normalisation").compute_dtype == "float32"
