"""JSON documents: damage is told from age, and checked values become a type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from components.core import json_documents
from components.errors import DataError, UsageError


@dataclasses.dataclass(frozen=True)
class Leaf:
    name: str
    size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Tree:
    leaves: tuple[Leaf, ...]
    by_name: Mapping[str, Leaf]
    counts: Mapping[str, int]
    best: Leaf | None
    share: float | None


def test_values_become_the_type_that_annotations_name() -> None:
    leaf = {"name": "a", "size": [1, 2]}
    document = {"leaves": [leaf, {"name": "b"}], "by_name": {"a": leaf}, "counts": {"x": 1}, "best": None, "share": 1}
    tree = json_documents.typed(Tree, document)
    a = Leaf("a", (1, 2))
    assert tree == Tree((a, Leaf("b")), {"a": a}, {"x": 1}, None, 1)
    assert json_documents.typed(Tree, json_documents.plain(tree)) == tree
    assert json_documents.typed(Tree, {**document, "best": leaf}).best == a


def test_unknown_and_missing_fields_are_a_bug_of_the_schema() -> None:
    for values in ({"name": "a", "colour": "red"}, {}):
        with pytest.raises(TypeError if not values else KeyError):
            json_documents.typed(Leaf, values)


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"null", b'{"format": null}', b'{"format": "1"}', b"{}", b"\xff"])
def test_what_carries_no_format_is_damage(data: bytes) -> None:
    with pytest.raises(DataError, match="W/x.json is damaged: it is not a leaf. Restore it."):
        json_documents.decode(data, 1, "W/x.json", "a leaf", "Restore it.")


def test_formats() -> None:
    assert json_documents.decode(b'{"format": 1, "a": 2}', 1, "x", "a leaf", "") == {"format": 1, "a": 2}
    assert json_documents.decode(b'{"a": 2}', 1, "x", "a leaf", "", absent=1) == {"a": 2}
    with pytest.raises(UsageError, match="x has format 2; this histoline reads up to 1"):
        json_documents.decode(b'{"format": 2}', 1, "x", "a leaf", "")
