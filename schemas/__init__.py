"""The contracts as data: classes, JSON schemas, TFDV schemas. Imports nothing of ours."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@functools.cache
def load_json(name: str) -> Any:
    """Reads a JSON document of this folder.

    Args:
        name: File name, such as `classes.json`.
    """
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def classes(dataset: str, task: str) -> tuple[str, ...]:
    """Class names of a task in label order.

    Raises:
        KeyError: No such data set or task.
    """
    return tuple(load_json("classes.json")[dataset][task])
