"""Figures, counts and names as people read and type them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def number(value: Any, digits: int = 3, *, sign: bool = False, absent: str = "–") -> str:
    """A figure with a fixed number of decimals.

    Args:
        value: A number, or None.
        digits: Decimals.
        sign: Whether positive figures carry a plus.
        absent: What stands for None, NaN and infinities.
    """
    if value is None or not math.isfinite(value):
        return absent
    value = round(value, digits) + 0.0  # what rounds to nothing is not below it: no -0.000
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def spaced(name: Any) -> str:
    """A name from the code as people write it: `too_few_groups` is `too few groups`."""
    return str(name).replace("_", " ")


def plural(number: int, unit: str) -> str:
    """`1 patient`, `2 patients`, `1,000 patients`."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like a mistyped one, empty where none is.

    Args:
        name: What was typed.
        known: Names that would do.
        cutoff: Likeness that is asked for, 0 to 1.
    """
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return near[0] if near else ""
