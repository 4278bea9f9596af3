"""The mark of a folder whose images were drawn by a program: it keeps them from being taken for real ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

NAME = "DRAWN-NOT-REAL.json"
"""Stands in the folder that `histoline synth` makes, and speaks of all that lies below."""

SAYS = "The images below this folder were drawn by a program. They show no tissue of anybody."


def content(facts: Mapping[str, Any]) -> str:
    """Text of the mark.

    Args:
        facts: How the images were drawn; nothing that differs between two equal folders.
    """
    return json.dumps({"says": SAYS, **facts}, indent=1) + "\n"


def above(root: str) -> bool:
    """Whether a local folder lies in a marked one: a part of a drawn tree is drawn."""
    folder = os.path.dirname(os.path.realpath(root))
    while not os.path.lexists(os.path.join(folder, NAME)):
        if folder == os.path.dirname(folder):
            return False
        folder = os.path.dirname(folder)
    return True
