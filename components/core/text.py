"""Figures and names as people read them, in reports and model cards alike."""

from __future__ import annotations

import math
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
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def spaced(name: Any) -> str:
    """A name from the code as people write it: `too_few_groups` is `too few groups`."""
    return str(name).replace("_", " ")
