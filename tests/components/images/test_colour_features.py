"""Features agree with their plain definitions and do not depend on the block they were computed in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.images.colour_features import TISSUE_LUMA, block_features
from components.images.stain_vectors import STAIN_MATRIX
from schemas.tables import COLOUR_COLUMNS, COLOUR_FEATURES


def plain(image: np.ndarray) -> dict[str, float]:
    """The definitions, one image at a time, in float64."""
    x = image.astype(float)
    od = -np.log10((x + 1) / 256).mean((0, 1)) @ np.linalg.inv(np.array(STAIN_MATRIX))
    luma = np.rint(x @ [0.299, 0.587, 0.114])
    inner = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    out = {"hematoxylin_od": od[0], "eosin_od": od[1], "tissue_fraction": (luma < TISSUE_LUMA).mean()}
    out["sharpness"] = np.abs(inner).mean()
    for i, name in enumerate(("red", "green", "blue")):
        out[f"{name}_mean"], out[f"{name}_std"] = x[..., i].mean(), x[..., i].std()
    return out


@pytest.mark.parametrize("shape", [(50, 50), (96, 96), (230, 350), (460, 700), (3, 3)])
def test_agree_with_the_definitions(shape):
    rng = np.random.default_rng(1)
    block = rng.integers(0, 256, (3, *shape, 3)).astype(np.uint8)
    block[1] = np.clip(rng.normal((200, 150, 190), 20, (*shape, 3)), 0, 255)
    got = block_features(np.ascontiguousarray(block)).colour
    for image, row in zip(block, got):
        for name, value in plain(image).items():
            tolerance = 0.02 if name == "sharpness" else 2e-3
            assert row[COLOUR_FEATURES.index(f"color/{name}")] == pytest.approx(value, rel=1e-4, abs=tolerance), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.integers(3, 60), st.integers(1, 9))
def test_equal_pixels_give_equal_bits_in_any_block(seed, height, width, n):
    block = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3)).astype(np.uint8)
    whole = block_features(block)
    for i in range(n):
        alone = block_features(block[i : i + 1].copy())
        assert alone.colour[0].tobytes() == whole.colour[i].tobytes()
        assert alone.perceptual_hash[0] == whole.perceptual_hash[i]


def test_constant_images_are_flagged():
    block = np.full((3, 20, 20, 3), 240, np.uint8)
    block[1, 0, 0, 0] = 239
    block[2, ..., 1] = 7
    assert block_features(block).constant.tolist() == [True, False, True]
    assert np.isfinite(block_features(block).colour).all()


def test_stain_densities_tell_the_stains_apart():
    amounts = {"h": (1.0, 0.2), "e": (0.2, 1.0)}
    row = {}
    for name, (h, e) in amounts.items():
        od = h * np.array(STAIN_MATRIX[0]) + e * np.array(STAIN_MATRIX[1])
        pixel = np.clip(np.rint(256 * 10.0**-od - 1), 0, 255).astype(np.uint8)
        row[name] = block_features(np.tile(pixel, (1, 8, 8, 1))).colour[0]
    h, e = COLOUR_FEATURES.index("color/hematoxylin_od"), COLOUR_FEATURES.index("color/eosin_od")
    for name, (amount_h, amount_e) in amounts.items():
        assert row[name][h] == pytest.approx(amount_h, abs=0.03)
        assert row[name][e] == pytest.approx(amount_e, abs=0.03)


def test_hash_survives_brightness_and_noise_but_not_another_picture():
    rng = np.random.default_rng(2)
    coarse = rng.uniform(60, 200, (2, 6, 6, 3))
    block = np.repeat(np.repeat(coarse, 9, 1), 9, 2)
    again = np.clip(block[:1] * 0.9 + rng.normal(0, 2, block[:1].shape), 0, 255)
    hashes = block_features(np.concatenate([block, again]).astype(np.uint8)).perceptual_hash
    distance = lambda a, b: bin(int(a) ^ int(b)).count("1")  # noqa: E731
    assert distance(hashes[0], hashes[2]) <= 2 < 12 < distance(hashes[0], hashes[1])


@pytest.mark.parametrize(
    "block", [np.zeros((1, 2, 50, 3), np.uint8), np.zeros((1, 50, 50, 3)), np.zeros((50, 50, 3), np.uint8)]
)
def test_other_shapes_are_refused(block):
    with pytest.raises(ValueError, match="expected|sides"):
        block_features(block)


def test_optical_density_of_white_is_zero():
    white = block_features(np.full((1, 5, 5, 3), 255, np.uint8)).colour[0]
    assert white[COLOUR_FEATURES.index("color/hematoxylin_od")] == 0
    assert math.isclose(white[COLOUR_FEATURES.index("color/tissue_fraction")], 0)


def test_both_orders_of_the_features_are_those_of_files_that_exist() -> None:
    """Shards and sidecars hold them sorted; statistics.json of a champion and the baseline by kind."""
    names = [name.removeprefix("color/") for name in COLOUR_FEATURES]
    assert names == [
        *("blue_mean", "blue_std", "eosin_od", "green_mean", "green_std", "hematoxylin_od"),
        *("red_mean", "red_std", "sharpness", "tissue_fraction"),
    ]
    columns = [name.removeprefix("color/") for name in COLOUR_COLUMNS]
    assert columns == [
        *("red_mean", "green_mean", "blue_mean", "red_std", "green_std", "blue_std"),
        *("hematoxylin_od", "eosin_od", "tissue_fraction", "sharpness"),
    ]
