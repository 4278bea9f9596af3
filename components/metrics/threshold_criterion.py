"""`sensitivity=X`, the threshold criterion that carries a number; loads nothing, so that recipes can read it."""

from __future__ import annotations

import re

_SENSITIVITY = re.compile(r"sensitivity\s*=\s*([0-9]+\.?[0-9]*|\.[0-9]+)")


def sensitivity_target(text: str) -> float | None:
    """The X of `sensitivity=X` with 0 < X <= 1; None for every other text."""
    found = _SENSITIVITY.fullmatch(text.strip())
    target = float(found.group(1)) if found else 0.0
    return target if 0 < target <= 1 else None
