"""What every configuration object needs: checked fields, one wording for what is wrong, dotted overrides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from components.core.text import nearest as nearest_name
from components.errors import UsageError


def wrong(field: str, value: Any, allowed: str, fix: str = "") -> UsageError:
    """The error of a field whose value can't be used.

    Args:
        field: Dotted name, such as `phases.0.epochs`.
        value: What was given.
        allowed: What the field takes, as the end of the sentence "it takes ...".
        fix: What to do, empty where `allowed` says it all.
    """
    return UsageError(f"{field} is {value!r}, but it takes {allowed}.", fix)


def nearest(key: str, known: Iterable[str]) -> str:
    """A "did you mean" sentence, empty where nothing is near."""
    near = nearest_name(str(key), known)
    return f"Did you mean {near!r}?" if near else ""


def number(field: str, value: Any, low: float, high: float, *, integer: bool = False) -> Any:
    """Checks a number and gives it back as int or float.

    Raises:
        UsageError: Not a finite number (a whole one where `integer`), or outside [low, high].
    """
    kind = "a whole number" if integer else "a number"
    allowed = f"{kind} from {low:.10g} to {high:.10g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise wrong(field, value, allowed)
    if (integer and value != int(value)) or not low <= value <= high:
        raise wrong(field, value, allowed)
    return int(value) if integer else float(value)


def choice(field: str, value: Any, choices: Sequence[str]) -> str:
    """Checks that a value is one of a few words.

    Raises:
        UsageError: It is not; names the nearest.
    """
    if value not in choices or not isinstance(value, str):
        raise wrong(field, value, f"one of {', '.join(choices)}", nearest(str(value), choices))
    return value


def boolean(field: str, value: Any) -> bool:
    """Checks a truth value.

    Raises:
        UsageError: It is neither true nor false.
    """
    if not isinstance(value, bool):
        raise wrong(field, value, "true or false")
    return value


def known_keys(where: str, given: Any, known: Iterable[str]) -> dict[str, Any]:
    """Checks that a mapping has no key that nobody knows.

    Args:
        where: Name of the mapping, empty for the whole document.
        given: What should be a mapping.
        known: Allowed keys.

    Raises:
        UsageError: Not a mapping, or an unknown key; names the nearest known one.
    """
    names = sorted(known)
    if not isinstance(given, Mapping):
        raise wrong(where or "the configuration", given, f"a mapping with the keys {', '.join(names)}")
    for key in given:
        if key not in names:
            full = f"{where}.{key}" if where else str(key)
            raise UsageError(
                f"there is no field {full!r}; known here are {', '.join(names)}.", nearest(str(key), names)
            )
    return dict(given)


def set_dotted(tree: Any, key: str, text: str) -> None:
    """Sets one field of a tree of mappings and lists, in place.

    Args:
        tree: What was read from YAML; a missing mapping on the way is made.
        key: Dotted name; a number picks from a list, and the list's length appends one element.
        text: Value as YAML (`3`, `1e-3`, `none`, `[0, 1]`, `{a: 1}`).

    Raises:
        UsageError: The key leads nowhere, or the text is not YAML.
    """
    node, parts = tree, key.split(".")
    for depth, part in enumerate(parts):
        here, last = ".".join(parts[: depth + 1]), depth == len(parts) - 1
        slot: Any = part
        if isinstance(node, list):
            if not part.isdigit() or int(part) > len(node):
                raise UsageError(f"there is no {here!r}: the list has the elements 0 to {len(node) - 1}.")
            slot = int(part)
            if slot == len(node):
                node.append({})
        elif not isinstance(node, dict):
            raise UsageError(f"there is no {here!r}: {'.'.join(parts[:depth])!r} is {node!r}, not a mapping.")
        if last:
            node[slot] = parse_scalar(here, text)
        else:
            if isinstance(node, dict) and node.get(slot) is None:
                node[slot] = {}
            node = node[slot]


def parse_scalar(field: str, text: Any) -> Any:
    """Reads a value given on the command line.

    YAML 1.1 takes `1e-3` for a string; it is read as the number that people mean.

    Raises:
        UsageError: Not YAML.
    """
    if not isinstance(text, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{field}={text!r} can't be read as YAML.", "Quote the value or check brackets.") from error
    return as_number(value)


def as_number(value: Any) -> Any:
    """Turns a string such as `1e-3`, which YAML 1.1 leaves a string, into the number it means."""
    if isinstance(value, str):
        try:
            number_ = float(value)
        except ValueError:
            return value
        return number_ if math.isfinite(number_) else value
    if isinstance(value, dict):
        return {k: as_number(v) for k, v in value.items()}
    return [as_number(v) for v in value] if isinstance(value, list) else value
