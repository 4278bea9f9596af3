"""Counted nouns and the nearest name."""

from __future__ import annotations

import pytest

from components.core import text
from components.core.text import nearest, plural


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 slides"), (1, "1 slide"), (2, "2 slides"), (1234, "1,234 slides")]
)
def test_plural(number: int, words: str) -> None:
    assert plural(number, "slide") == words


def test_nearest() -> None:
    assert nearest("tarin", ["train", "predict"]) == "train"
    assert nearest("tarin", ["train"], cutoff=0.9) == ""
    assert nearest("x", []) == ""


@pytest.mark.parametrize("value", [-0.0004, -0.0, 0.0, 0.0004])
def test_what_rounds_to_nothing_is_not_below_it(value: float) -> None:
    assert text.number(value) == "0.000"
    assert text.number(value, sign=True) == "+0.000"
