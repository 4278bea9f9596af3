"""Whether a JSON schema and the dataclass that its documents become say the same."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from schemas import load_json

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def differences(kind: Any, name: str) -> list[str]:
    """Where the schema of this name and the type differ, as sentences; empty where they agree."""
    schema = load_json(name)
    return list(_compare(kind, schema, schema, "document"))


def _compare(kind: Any, node: Mapping[str, Any], root: Mapping[str, Any], where: str) -> typing.Iterator[str]:
    while "$ref" in node:
        target = root
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    allowed = node.get("type", "string" if "enum" in node else None)
    allowed = set(allowed) if isinstance(allowed, list) else {allowed}
    optional = typing.get_origin(kind) in (types.UnionType, typing.Union)
    if optional:
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if optional != ("null" in allowed):
        yield f"{where}: null is allowed by one of the two only"
    allowed -= {"null"}
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        yield from _compare_object(kind, node, root, where)
    elif origin is tuple:
        if allowed != {"array"}:
            yield f"{where}: {kind} against {allowed}"
        if parts[-1] is not Ellipsis and not node.get("minItems") == node.get("maxItems") == len(parts):
            yield f"{where}: {len(parts)} items against {node.get('minItems')} to {node.get('maxItems')}"
        yield from _compare(parts[0], node["items"], root, f"{where}[]")
    elif origin is Mapping:
        if allowed != {"object"}:
            yield f"{where}: {kind} against {allowed}"
        if parts[1] is not Any:
            yield from _compare(parts[1], node["additionalProperties"], root, f"{where}.*")
    elif origin is typing.Literal:
        if list(parts) != [value for value in node.get("enum", ()) if value is not None]:
            yield f"{where}: {parts} against {node.get('enum')}"
    elif {_PLAIN.get(kind)} != allowed:
        yield f"{where}: {kind} against {allowed}"


def _compare_object(kind: Any, node: Mapping[str, Any], root: Mapping[str, Any], where: str) -> typing.Iterator[str]:
    fields, properties = typing.get_type_hints(kind), node.get("properties", {})
    if node.get("additionalProperties") is not False:
        yield f"{where}: unknown properties are allowed"
    for field in sorted(fields.keys() ^ properties.keys()):
        yield f"{where}.{field} is in one of the two only"
    for field in fields.keys() & properties.keys():
        yield from _compare(fields[field], properties[field], root, f"{where}.{field}")
