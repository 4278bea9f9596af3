"""JSON documents that follow a schema of `schemas/`: plain values out, checked values in."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from components.errors import DataError, UsageError
from schemas import load_json


def now() -> str:
    """The present moment, ISO 8601, UTC, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """Turns dataclasses, NumPy values, paths and sets into plain JSON values; what is not finite becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def canonical(value: Any) -> bytes:
    """JSON bytes that are equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@functools.cache
def _validator(schema: str) -> Callable[[Any], Any]:
    import fastjsonschema

    validate: Callable[[Any], Any] = fastjsonschema.compile(load_json(schema))
    return validate


def problem(document: Any, schema: str) -> str:
    """What breaks the schema, in a clause; empty where nothing does.

    Args:
        document: Plain JSON values.
        schema: File name in `schemas/`.
    """
    import fastjsonschema

    try:
        _validator(schema)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        return str(error.message)[:200]
    return ""


def dump(document: Mapping[str, Any], schema: str) -> bytes:
    """The file's bytes.

    Raises:
        ValueError: The document does not follow its schema: a bug, found before anything is written.
    """
    told = plain(document)
    wrong = problem(told, schema)
    if wrong:
        raise ValueError(f"the document breaks {schema}: {wrong}")
    return (json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse(data: bytes, schema: str, where: str, fix: str) -> dict[str, Any]:
    """Reads and checks a document.

    Args:
        data: The file's bytes.
        schema: File name in `schemas/`.
        where: Full name of the file, for messages.
        fix: What to do where it is damaged.

    Raises:
        UsageError: It is of a newer format.
        DataError: It is damaged or was edited.
    """
    try:
        document = json.loads(data)
        version = document["format"]
        if not isinstance(version, int):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{where} is damaged: it is not what its name says.", fix) from None
    known = load_json(schema)["properties"]["format"]["const"]
    if version > known:
        raise UsageError(
            f"{where} has format {version}; this histoline reads up to {known}.",
            "Upgrade histoline to read it.",
        )
    wrong = problem(document, schema)
    if wrong:
        raise DataError(f"{where} breaks its schema: {wrong}.", fix)
    return dict(document)
