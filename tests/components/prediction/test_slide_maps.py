"""Slide maps: every patch at its place, in the colour of its side of the threshold."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.prediction import slide_maps


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_patches_stand_where_they_lie_and_the_rest_is_transparent() -> None:
    png = slide_maps.slide_png([101, 151, 101, -1], [51, 51, 151, -1], [1.0, 0.0, np.nan, 0.5], scale=1)
    image = decoded(png)
    assert image.shape == (3, 2, 4)
    assert tuple(image[0, 0]) == (*slide_maps.POSITIVE, 255)
    assert tuple(image[0, 1]) == (*slide_maps.NEGATIVE, 255)
    assert tuple(image[2, 0]) == (*slide_maps.UNKNOWN, 255)
    assert (image[[1, 1, 2], [0, 1, 1], 3] == 0).all()


@given(st.floats(0.01, 0.99), st.floats(0, 1))
def test_what_is_called_positive_is_never_blue_and_the_other_way_round(threshold: float, value: float) -> None:
    red, _, blue = slide_maps.palette()[slide_maps.levels(np.array([[value]], np.float32), np.float32(threshold))[0, 0]]
    if np.float32(value) >= np.float32(threshold):
        assert int(red) + 2 >= blue
    else:
        assert blue >= int(red) - 2


def test_several_patches_of_a_cell_are_averaged() -> None:
    cells = slide_maps.grid([0, 10, 100], [0, 0, 0], step=100)
    assert slide_maps.fill(cells, [0.2, 0.4, 0.9])[0] == pytest.approx([0.3, 0.9], abs=1e-6)


def test_a_large_slide_is_drawn_coarser() -> None:
    cells = slide_maps.grid([0, 1, 1_000_000], [0, 1, 3], max_cells=100)
    assert max(cells.width, cells.height) <= 100


def test_no_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="coordinates"):
        slide_maps.slide_png([-1], [-1], [0.5])
