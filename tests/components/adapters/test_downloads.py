from __future__ import annotations

import pytest

from components.adapters.downloads import IMAGES, shortfall
from components.adapters.registry import ADAPTERS
from components.core.rejects import REJECT_KINDS


def test_every_known_download_has_its_count_and_the_title_says_the_same() -> None:
    assert IMAGES.keys() == ADAPTERS.keys()
    for name, count in IMAGES.items():
        assert f"{count:,}" in ADAPTERS[name].title


@pytest.mark.parametrize(
    ("found", "rejects", "said"),
    [
        (277_524, {}, ""),
        (277_524, {"too_narrow": 5_000, "duplicate": 3}, ""),
        (5_771, {}, "5,771 of 277,524 images, 271,753 are missing"),
        (277_523, {}, "277,523 of 277,524 images"),
        (2 * 277_524, {"nested_copy": 277_524}, ""),
        (400_000, {"nested_copy": 150_000}, "250,000 of 277,524 images"),
        (277_524, {"bad_name": 4}, "277,520 of 277,524 images"),
    ],
)
def test_what_was_found_is_compared_with_the_download(found: int, rejects: dict[str, int], said: str) -> None:
    text = shortfall("idc", found, rejects)
    assert (said in text) if said else text == ""
    assert rejects.keys() <= REJECT_KINDS.keys()


def test_pcams_unlabelled_test_images_do_not_stand_in_for_missing_training_images() -> None:
    assert shortfall("pcam", 220_025 + 57_458, {"unlabelled": 57_458}) == ""
    assert "200,025 of 220,025" in shortfall("pcam", 200_025 + 57_458, {"unlabelled": 57_458})


def test_a_data_set_without_a_published_count_is_never_short() -> None:
    assert shortfall("ours", 3, {}) == ""
