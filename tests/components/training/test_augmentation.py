from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UsageError
from components.images.stain_vectors import STAIN_MATRIX
from components.training import augmentation_layers as al
from components.training import colour_spaces, models
from components.training.augmentation import LIMITS, PRESETS, Augmentation, check_label_region, from_value
from components.training.fitted_model import training_model
from components.training.stain_targets import StainSpread

PCAM = (32, 32, 32, 32)
SPREADS = (
    StainSpread("lab", (60.0, 20.0, -10.0), (8.0, 4.0, 4.0), (20.0, 20.0, 20.0), (2.0, 2.0, 2.0)),
    StainSpread("hed", (0.2, 0.2, 0.0), (0.05, 0.05, 0.02), (0.2, 0.2, 0.1), (0.02, 0.02, 0.02)),
)
LAYERS = {
    "dihedral": lambda seed: al.RandomDihedral(seed=seed),
    "turn": lambda seed: al.RandomShiftAndTurn(20.0, 0.1, seed=seed),
    "contrast": lambda seed: al.RandomContrastBrightness(0.3, 0.2, seed=seed),
    "stain": lambda seed: al.StainJitter(0.2, seed=seed),
    "random_stain": lambda seed: al.RandomStain(SPREADS, seed=seed),
}
IDENTITIES = {
    "dihedral": lambda: al.RandomDihedral(False, False),
    "turn": lambda: al.RandomShiftAndTurn(0.0, 0.0),
    "contrast": lambda: al.RandomContrastBrightness(0.0, 0.0),
    "stain": lambda: al.StainJitter(0.0),
}


def images(count: int = 6, height: int = 12, width: int = 12, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, height, width, 3)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("name", LAYERS)
def test_shape_dtype_range_and_only_in_training(name: str, dtype: str) -> None:
    x = images(dtype=dtype)
    layer = LAYERS[name](3)
    out = np.asarray(layer(x, training=True))
    assert out.shape == x.shape and out.dtype == x.dtype
    assert out.min() >= 0 and out.max() <= 255
    assert not np.array_equal(out, x)
    np.testing.assert_array_equal(np.asarray(layer(x, training=False)), x)
    np.testing.assert_array_equal(np.asarray(layer(x)), x)


@pytest.mark.parametrize("name", LAYERS)
def test_same_seed_same_images_and_images_differ_among_themselves(name: str) -> None:
    x = np.repeat(images(1, 12, 12), 16, axis=0)
    first, again, other = (np.asarray(LAYERS[name](seed)(x, training=True)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({image.tobytes() for image in first}) > 4
    layer = LAYERS[name](5)
    layer(x, training=True)
    assert not np.array_equal(np.asarray(layer(x, training=True)), first)


@pytest.mark.parametrize("name", IDENTITIES)
def test_zero_strength_is_the_identity(name: str) -> None:
    x = images()
    np.testing.assert_array_equal(np.asarray(IDENTITIES[name]()(x, training=True)), x)


@pytest.mark.parametrize("name", IDENTITIES)
def test_zero_strength_is_the_identity_in_the_formula_too(name: str) -> None:
    x = images()
    layer = IDENTITIES[name]()
    np.testing.assert_allclose(np.asarray(layer.augment(keras.ops.convert_to_tensor(x), len(x))), x, atol=0.01)


def test_dihedral_gives_each_of_the_eight_symmetries_about_equally() -> None:
    one = images(1)
    out = np.asarray(al.RandomDihedral(seed=1)(np.repeat(one, 800, axis=0), training=True))
    turned = [np.rot90(one[0], k) for k in range(4)]
    wanted = {v.tobytes() for t in turned for v in (t, t[:, ::-1])}
    counts = {key: sum(image.tobytes() == key for image in out) for key in wanted}
    assert len(wanted) == 8 and sum(counts.values()) == 800
    assert min(counts.values()) > 60


@pytest.mark.parametrize(("flip", "turn", "size", "n"), [(0, 1, 12, 4), (1, 0, 12, 4), (1, 1, 9, 4), (0, 1, 9, 2)])
def test_dihedral_subgroups(flip: int, turn: int, size: int, n: int) -> None:
    one = images(1, 12, size)
    out = np.asarray(al.RandomDihedral(bool(flip), bool(turn), seed=1)(np.repeat(one, 100, axis=0), training=True))
    seen = {image.tobytes() for image in out}
    assert len(seen) == n and one[0].tobytes() in seen and one[0][::-1, ::-1].tobytes() in seen
    assert (one[0][:, ::-1].tobytes() in seen) == bool(flip)


def test_turn_by_a_right_angle_and_shift_by_whole_pixels_are_exact() -> None:
    x = images(2, 8, 8)
    y, c = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    places = [np.repeat(a[None].astype("float32"), 2, axis=0) for a in (c, 7 - y)]
    np.testing.assert_allclose(
        np.asarray(al.bilinear(x, *places)), np.rot90(x, -1, axes=(1, 2))[:, ::-1, ::-1], atol=1e-3
    )
    shifted = np.asarray(al.bilinear(x, places[1] * 0 + y.astype("float32"), places[0] * 0 + (c + 3).astype("float32")))
    np.testing.assert_allclose(shifted[:, :, :5], x[:, :, 3:], atol=1e-3)
    np.testing.assert_allclose(shifted[:, :, 5:], x[:, :, 6:3:-1], atol=1e-3)


def test_small_turn_leaves_the_centre_where_it_is() -> None:
    x = np.zeros((40, 33, 33, 3), "float32")
    x[:, 16, 16] = 255
    out = np.asarray(al.RandomShiftAndTurn(30.0, seed=2)(x, training=True))
    np.testing.assert_allclose(out[:, 16, 16], 255, atol=0.5)


def rgb_to_hed(levels: np.ndarray) -> np.ndarray:
    """Densities of haematoxylin, eosin and DAB, [..., 3], of RGB grey levels 0-255."""
    return np.asarray(colour_spaces.optical_density(levels)) @ np.linalg.inv(np.array(STAIN_MATRIX, "float32"))


def hed_to_rgb(stains: np.ndarray) -> np.ndarray:
    """The inverse of `rgb_to_hed`."""
    return np.asarray(colour_spaces.grey_levels(stains @ np.array(STAIN_MATRIX, "float32")))


def test_hed_round_trip() -> None:
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3, indexing="ij"), axis=-1).astype("float32")
    np.testing.assert_allclose(np.asarray(hed_to_rgb(rgb_to_hed(levels))), levels, atol=0.05)


def test_hed_tells_the_stains_apart_and_white_has_none() -> None:
    np.testing.assert_allclose(np.asarray(rgb_to_hed(np.array([255.0, 255.0, 255.0], "float32"))), 0, atol=1e-5)
    for stain in range(3):
        pure = colour_spaces.grey_levels(np.float32(0.8) * np.float32(STAIN_MATRIX[stain]))
        np.testing.assert_allclose(np.asarray(rgb_to_hed(pure)), np.eye(3)[stain] * 0.8, atol=1e-3)


def test_stain_jitter_keeps_to_its_strength() -> None:
    x = images(200, 2, 2) * 0.5 + 60
    before = np.asarray(rgb_to_hed(x))
    layer = al.StainJitter(0.1, seed=4)
    after = np.asarray(rgb_to_hed(layer.augment(keras.ops.convert_to_tensor(x.astype("float32")), 200)))
    change = np.abs(after - before)
    assert (change <= 0.1 * np.abs(before) + 0.1 + 1e-3).all()
    assert change.max() > 0.09
    # One factor and one shift for each image and stain: four pixels lie on one line.
    slope = (after[:, 0, 0] - after[:, 1, 1]) / (before[:, 0, 0] - before[:, 1, 1])
    assert 0.899 < np.median(slope) < 1.101


@pytest.mark.parametrize("name", LAYERS)
def test_runs_in_a_graph_in_tf_data_and_under_xla(name: str) -> None:
    import tensorflow as tf

    x = images()
    wanted = np.asarray(LAYERS[name](9)(x, training=True))

    def compiled(jit: bool) -> np.ndarray:
        layer = LAYERS[name](9)
        return np.asarray(tf.function(lambda v: layer(v, training=True), jit_compile=jit)(tf.constant(x)))

    layer = LAYERS[name](9)
    data = tf.data.Dataset.from_tensor_slices(x).batch(6).map(lambda v: layer(v, training=True))
    np.testing.assert_allclose(compiled(False), wanted, atol=0.02)
    np.testing.assert_allclose(next(iter(data)).numpy(), wanted, atol=0.02)
    # XLA has random numbers of its own: other draws, but the same ones for the same seed.
    under_xla = compiled(True)
    np.testing.assert_array_equal(under_xla, compiled(True))
    assert under_xla.shape == x.shape and under_xla.min() >= 0 and under_xla.max() <= 255
    assert not np.array_equal(under_xla, x)


@settings(max_examples=20, deadline=None)
@given(st.fixed_dictionaries({name: st.floats(0, high) for name, high in LIMITS.items()}), st.booleans())
def test_any_allowed_strength_gives_grey_levels(strengths: dict[str, float], flip: bool) -> None:
    x = images(2, 7, 9)
    for layer in al.layers(Augmentation(flip=flip, **strengths), seed=1):
        x = np.asarray(layer(x, training=True))
        assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 255


def test_training_model_shares_weights_and_is_the_model_outside_training() -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    training = training_model(model, PRESETS["strong"], seed=3)
    x = images(4, 8, 8)
    np.testing.assert_allclose(np.asarray(training(x)), np.asarray(model(x)))
    assert not np.allclose(np.asarray(training(x, training=True)), np.asarray(model(x)))
    assert [w.path for w in training.trainable_weights] == [w.path for w in model.trainable_weights]
    statistics = np.asarray(training.get_layer("input_statistics").last)
    assert 0 <= statistics[0] < statistics[2] < statistics[1] <= 255 and statistics[3] > 10 and statistics[4] == 0


def test_resnet50_is_trained_on_all_eight_symmetries_of_images_that_are_not_square() -> None:
    model = models.build("resnet50", (46, 70, 3), 2, {"weights": "none", "crop": 32})
    y, x = np.meshgrid(np.arange(46.0), np.arange(70.0), indexing="ij")
    batch = np.repeat(np.stack([y, x, 0 * x], axis=-1)[None], 96, axis=0).astype("float32")
    training = training_model(model, dataclasses.replace(PRESETS["breakhis"], rotation=0, contrast=0), seed=3)
    seen = keras.Model(training.input, training.get_layer("augment_dihedral").output)
    crops = np.asarray(seen(batch, training=True))
    assert crops.shape == (96, 32, 32, 3)
    # Rows and columns of the source tell each crop's symmetry by the way in which they grow, and its place.
    ways = {tuple(np.concatenate([c[1, 0, :2] - c[0, 0, :2], c[0, 1, :2] - c[0, 0, :2]]).astype(int)) for c in crops}
    assert len(ways) == 8
    assert len({(c[..., 0].min(), c[..., 1].min()) for c in crops}) > 40
    assert np.asarray(seen(batch[:2])).shape == (2 * 8, 32, 32, 3)  # every fixed crop, as it is
    np.testing.assert_allclose(np.asarray(training(batch[:2])), np.asarray(model(batch[:2])), atol=1e-6)


def test_fields_are_read_and_checked() -> None:
    assert from_value("none") == from_value(None) == Augmentation() and not from_value("none").active
    assert from_value({"preset": "light", "stain": "1e-1"}) == dataclasses.replace(PRESETS["light"], stain=0.1)
    for given_, said in [
        ("lihgt", "light"),
        ({"stian": 0.1}, "stain"),
        ({"stain": 0.5}, "0.3"),
        ({"flip": 1}, "true"),
    ]:
        with pytest.raises(UsageError, match=said):
            from_value(given_)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_leaves_the_label_of_pcam_in_the_image(name: str) -> None:
    check_label_region(PRESETS[name], 96, 96, PCAM)


@pytest.mark.parametrize(
    ("fields", "region", "crop", "said"),
    [
        ({"translation": 0.34}, PCAM, None, "augmentation.translation.*0.333 or less"),
        ({"translation": 0.3, "rotation": 10}, PCAM, None, "0.264 or less"),
        ({}, PCAM, 63, "options.crop.*64 or more"),
        ({"rotation": 5}, PCAM, 64, "augmentation.rotation.*options.crop.*to 0"),
        ({"translation": 0.1}, PCAM, 64, "augmentation.translation.*options.crop.*to 0"),
        ({"flip": True}, (0, 32, 32, 32), None, "augmentation.flip"),
        ({"rotation": 5}, (32, 0, 32, 32), None, "augmentation.rotation"),
        ({"rotation": 5}, (1, 1, 94, 94), None, "corner"),
        ({}, (80, 32, 32, 32), None, "inside the image"),
    ],
)
def test_what_could_lose_the_labels_region_is_refused(fields: dict, region: tuple, crop: int | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_label_region(Augmentation(**fields), 96, 96, region, crop=crop)


def test_what_keeps_the_labels_region_is_allowed() -> None:
    check_label_region(Augmentation(translation=0.333), 96, 96, PCAM, crop=96)
    check_label_region(Augmentation(flip=True, rotate90=True), 96, 96, PCAM, crop=64)
    check_label_region(Augmentation(translation=0.264, rotation=180), 96, 96, PCAM)
    check_label_region(Augmentation(flip=True, translation=0.5), 96, 96, None, crop=10)
