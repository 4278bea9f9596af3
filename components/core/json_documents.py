"""JSON documents that follow a schema of `schemas/`: plain values out, checked values in."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

from components.errors import DataError, UsageError
from schemas import load_json

T = TypeVar("T")

SEAL = "document_digest"
"""SHA-256 over the rest of a document, where its schema has this property: who edits a document by hand is noticed."""


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
    values = plain(document)
    if SEAL in load_json(schema)["properties"]:
        values[SEAL] = _seal(values)
    wrong = problem(values, schema)
    if wrong:
        raise ValueError(f"the document breaks {schema}: {wrong}")
    return (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


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
    document = decode(data, load_json(schema)["properties"]["format"]["const"], where, "what its name says", fix)
    wrong = problem(document, schema)
    if wrong:
        raise DataError(f"{where} breaks its schema: {wrong}.", fix)
    if SEAL in load_json(schema)["properties"] and document.get(SEAL) is not None:
        if document[SEAL] != _seal(document):
            raise DataError(f"{where} was edited after histoline had written it.", fix)
        del document[SEAL]
    return document


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical({key: item for key, item in values.items() if key != SEAL})).hexdigest()


def decode(
    data: bytes, newest: int, where: str, kind: str, fix: str, *, absent: int | None = None
) -> dict[str, Any]:
    """Reads a document that carries its `format`, and checks nothing else of it.

    Args:
        data: The file's bytes.
        newest: The newest format that this code reads.
        where: Full name of the file, for messages.
        kind: What it should be, such as `a manifest`.
        fix: What to do where it is damaged.
        absent: Format of a document that tells none; None where each must.

    Raises:
        UsageError: It is of a newer format.
        DataError: It is no JSON object with a format.
    """
    try:
        document = json.loads(data)
        version = document.get("format", absent)
        if not isinstance(version, int):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise DataError(f"{where} is damaged: it is not {kind}.", fix) from None
    if version > newest:
        raise UsageError(
            f"{where} has format {version}; this histoline reads up to {newest}.",
            "Upgrade histoline to read it.",
        )
    return dict(document)


def typed(kind: type[T], values: Any) -> T:
    """Puts plain JSON values that were checked against their schema into a type.

    Objects become the dataclass, or dict, that the field's annotation names; arrays become tuples.

    Args:
        kind: A dataclass, by whose annotations the values are taken.
        values: What `json.loads` gave.
    """
    made: T = _typed(kind, values)
    return made


def _typed(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if dataclasses.is_dataclass(kind):
        annotations = _annotations(kind)  # type: ignore[arg-type]
        return kind(**{name: _typed(annotations[name], item) for name, item in value.items()})  # type: ignore[operator]
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # X | None, or one value | several | None
        given = [part for part in parts if part is not type(None)]
        fits = [part for part in given if (typing.get_origin(part) is tuple) == isinstance(value, list)]
        return _typed((fits or given)[0], value)
    if origin is tuple:
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(_typed(part, item) for part, item in zip(kinds, value, strict=True))
    if origin is Mapping:
        return {name: _typed(parts[1], item) for name, item in value.items()}
    return value


@functools.cache
def _annotations(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
