from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from components.storage.open import open_storage
from components.training.feature_cache import FeatureCache, image_keys

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
FEATURES = RNG.normal(size=(6, 7)).astype(np.float32)


@pytest.fixture
def filled(tmp_path: Path) -> FeatureCache:
    cache = FeatureCache(tmp_path, 7)
    keys = image_keys(IMAGES)
    cache.add(keys[:4], FEATURES[:4])
    cache.add(keys[4:], FEATURES[4:])
    return cache


def test_features_are_found_by_the_pixels_alone(filled: FeatureCache) -> None:
    order = [5, 0, 0, 3]
    features, known = filled.read(image_keys(IMAGES[order].copy()))
    np.testing.assert_array_equal(features, FEATURES[order])
    assert known.all()
    changed = IMAGES.copy()
    changed[2, 1, 1, 1] ^= 1
    features, known = filled.read(image_keys(changed))
    assert known.tolist() == [True, True, False, True, True, True] and not features[2].any()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_part_is_thrown_away_and_the_others_stay(filled: FeatureCache, tmp_path: Path, damage: str) -> None:
    part = next(
        p for p in tmp_path.glob("*.parquet") if FeatureCache(tmp_path, 7)._part(p)[0] == image_keys(IMAGES[:4])
    )  # type: ignore[index]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes({"cut": bytes(data[:-9]), "flipped": bytes(data), "empty": b""}[damage])
    _, known = filled.read(image_keys(IMAGES))
    assert known.tolist() == [False] * 4 + [True] * 2 and not part.exists()
    filled.add(image_keys(IMAGES[:4]), FEATURES[:4])
    assert filled.read(image_keys(IMAGES))[1].all()


def test_two_processes_that_add_the_same_leave_it_once(filled: FeatureCache, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.glob("*.parquet")}
    FeatureCache(tmp_path, 7).add(image_keys(IMAGES)[:4], FEATURES[:4])
    FeatureCache(tmp_path, 7).add(image_keys(IMAGES)[2:5], FEATURES[2:5])
    assert before < {path.name for path in tmp_path.glob("*.parquet")} and len(before) == 2
    np.testing.assert_array_equal(filled.read(image_keys(IMAGES))[0], FEATURES)
    assert not list((tmp_path / ".tmp").iterdir())


def test_reading_tells_that_the_cache_is_in_use(filled: FeatureCache, tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    for path in tmp_path.glob("*.parquet"):
        os.utime(path, (1, 1))
    assert storage.modified("") == 1
    filled.read(image_keys(IMAGES))
    assert storage.modified("") > 1
