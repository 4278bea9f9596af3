"""What a model must answer to count as served; without TensorFlow, on answers made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from components.promotion.served_model import (
    FACTS,
    TRAIN_GROUPS,
    Answers,
    NotServable,
    ServedModel,
    agrees,
    batches,
    model_digest,
    read_facts,
    read_train_groups,
)


def model(*classes: str, **facts) -> ServedModel:
    made = object.__new__(ServedModel)
    made.classes = list(classes) or ["negative", "idc"]
    made.facts = {"classes": made.classes, "threshold": 0.25, **facts}
    return made


def answers(p, labels, names, kind=np.float32) -> Answers:
    return Answers(np.array(p, kind), np.array(labels, np.int64), names)


def test_labels_follow_from_probability_and_threshold():
    model()._check("s", answers([0.25, 0.2], [1, 0], ["idc", "negative"]), 2)
    model("a", "b", "c")._check("s", answers([[0.2, 0.3, 0.5]], [2], ["c"]), 1)
    model("a", "b", "c", threshold=None)._check("s", answers([[0.2, 0.3, 0.5]], [2], ["c"]), 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (answers([0.2], [1], ["idc"]), "labels that do not follow"),
        (answers([0.3], [1], ["negative"]), "label names"),
        (answers([1.5], [1], ["idc"]), "not between 0 and 1"),
        (answers([-0.1], [0], ["negative"]), "not between 0 and 1"),
        (answers([np.nan], [0], ["negative"]), "not between 0 and 1"),
        (answers([0.3], [1], ["idc"], np.float64), "float64"),
        (answers([[0.3]], [1], ["idc"]), "float32"),
        (answers([[0.7, 0.3]], [0], ["negative"]), "float32"),
        (answers([0.3, 0.3], [1, 1], ["idc", "idc"]), "of 1 patches"),
    ],
)
def test_wrong_answers_are_told(given, said):
    with pytest.raises(NotServable, match=said):
        model()._check("s", given, 1)


def test_a_binary_model_needs_its_threshold():
    with pytest.raises(NotServable, match="no threshold"):
        model(threshold=None)._check("s", answers([0.3], [1], ["idc"]), 1)


def test_facts_and_groups(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    with pytest.raises(NotServable, match="missing or damaged"):
        read_facts(tmp_path)
    assert read_train_groups(tmp_path) is None
    for text in ("{", "[]", "{}", '{"classes": 5}'):
        (tmp_path / FACTS).write_text(text)
        with pytest.raises(NotServable):
            read_facts(tmp_path)
    (tmp_path / FACTS).write_text(json.dumps({"classes": ["a", "b"], "threshold": 0.5}))
    assert read_facts(tmp_path)["classes"] == ["a", "b"]
    for text, groups in (("{", None), ('{"a": 1}', None), ("[1]", None), ('["b", "a"]', {"a", "b"}), ("[]", set())):
        (tmp_path / TRAIN_GROUPS).write_text(text)
        assert read_train_groups(tmp_path) == groups


def test_the_digest_covers_names_and_contents(tmp_path):
    seen = set()
    for name, text in (("a", "1"), ("a", "2"), ("b", "2"), ("c/a", "2")):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        seen.add(model_digest(tmp_path))
    assert len(seen) == 4
    assert model_digest(tmp_path) in seen


def test_batches_and_agreement():
    assert list(batches([b"1", b"2", b"3"], 2)) == [[b"1", b"2"], [b"3"]]
    assert list(batches([], 2)) == []
    assert agrees([0.5, 0.25], np.array([0.5, 0.5], np.float32)) == 0.25 and agrees([], []) == 0
