"""splits.json: round trip, schema, and every way in which the file can be wrong."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataError, UsageError
from components.splits.ledger import DEFAULT_RATIOS, Ledger, parse_ratios
from schemas import load_json
from schemas.tables import SPLITS

VALIDATOR = jsonschema.Draft202012Validator(load_json("splits.schema.json"))
IDS = st.text(st.characters(codec=None), min_size=1, max_size=8)  # lone surrogates, newlines, anything
LEDGERS = st.builds(
    lambda splits, seed, dead, ratios, fold: Ledger(
        "patient", splits, seed, ratios, tombstones=dead - set(splits), source="fold" if fold else "planned",
        fold=fold, folds=5 * bool(fold),
    ),
    st.dictionaries(IDS, st.sampled_from(SPLITS)),
    st.integers(-(2**40), 2**40),
    st.frozensets(IDS),
    st.sampled_from([DEFAULT_RATIOS, (1 / 3, 1 / 3, 1 / 3), (0.8, 0.1, 0.1)]),
    st.integers(0, 5),
)  # fmt: skip
GOOD = Ledger("patient", {"b": "test", "a": "train"}, tombstones=frozenset({"z", "y"}))


@given(LEDGERS)
def test_json_round_trip_and_schema(ledger: Ledger) -> None:
    text = ledger.to_json()
    assert Ledger.from_json(text, "splits.json") == ledger
    assert text.encode("ascii").endswith(b"}\n")
    VALIDATOR.validate(json.loads(text))


def test_text_does_not_depend_on_order() -> None:
    again = Ledger("patient", {"a": "train", "b": "test"}, tombstones=frozenset({"y", "z"}))
    assert GOOD.to_json() == again.to_json()
    assert list(json.loads(GOOD.to_json())["splits"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"splits": {"a": "validation"}}, "splits.a must be one of"),
        ({"splits": {"a": 1}}, "splits.a must be one of"),
        ({"splits": []}, "splits"),
        ({"splits": {"z": "train"}}, "withdrawn"),
        ({"splits": {"": "train"}}, "splits must be named"),
        ({"tombstones": [3]}, "tombstones.* must be string"),
        ({"ratios": {"train": 0.9, "eval": 0.1, "test": 0.2}}, "add up"),
        ({"ratios": {"train": 1.0, "test": 0.0}}, "ratios"),
        ({"ratios": {"train": float("nan"), "eval": 0.1, "test": 0.2}}, "ratios"),
        ({"seed": "0"}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"tombstones": ["z", "z"]}, "tombstones"),
        ({"ratios": {"train": 0.998, "eval": 0.001, "test": 0.001}}, "ratios"),
        ({"source": "guess"}, "source"),
        ({"fold": 3, "folds": 2}, "fold"),
        ({"fold": 1, "folds": 2}, "contradicts"),
        ({"format_version": None}, "format_version"),
        ({"extra": 1}, "extra"),
        ({"group_unit": ""}, "group_unit"),
    ],
)
def test_hand_edits_are_refused(change: dict[str, object], says: str) -> None:
    document = {**json.loads(GOOD.to_json()), **change}
    with pytest.raises(DataError, match=says) as caught:
        Ledger.from_json(json.dumps(document), "W/splits.json")
    assert "W/splits.json" in caught.value.what and caught.value.fix
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, GOOD.to_json()[:-30]])
def test_broken_files(text: str) -> None:
    with pytest.raises(DataError, match="W/splits.json"):
        Ledger.from_json(text, "W/splits.json")


def test_a_group_in_two_splits_is_not_hidden_by_json() -> None:
    text = GOOD.to_json().replace('"b": "test"', '"b": "test",\n  "b": "train"')
    with pytest.raises(DataError, match="'b' appears twice"):
        Ledger.from_json(text, "splits.json")


@pytest.mark.parametrize("key", ["format_version", "algorithm_version"])
def test_newer_versions(key: str) -> None:
    document = {**json.loads(GOOD.to_json()), key: 99}
    with pytest.raises(UsageError, match="newer histoline.*Update"):
        Ledger.from_json(json.dumps(document), "splits.json")


def test_whole_numbers_written_with_a_point_come_back_as_integers() -> None:
    document = {**json.loads(GOOD.to_json()), "seed": 1.0, "fold": 0.0}
    again = Ledger.from_json(json.dumps(document), "splits.json")
    assert json.loads(again.to_json())["seed"] == 1 and '"seed": 1,' in again.to_json()


def test_another_unit_or_key() -> None:
    keyed = Ledger("patient", {}, key_fingerprint="ab12")
    keyed.require("patient", "ab12", "splits.json")
    with pytest.raises(UsageError, match="by patient, this ingest by slide"):
        GOOD.require("slide", "", "splits.json")
    for ledger, key in ((GOOD, "ab12"), (keyed, ""), (keyed, "cd34")):
        with pytest.raises(UsageError, match="key"):
            ledger.require("patient", key, "splits.json")


@pytest.mark.parametrize("text", ["70/10/20", "0.7,0.1,0.2", "7:1:2"])
def test_ratios_as_people_write_them(text: str) -> None:
    assert parse_ratios(text) == DEFAULT_RATIOS


@pytest.mark.parametrize("text", ["", "70/30", "70/0/30", "a/b/c", "-1/1/1", "nan/1/1", "inf/1/1", "0/0/0"])
def test_ratios_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ratios(text)


def test_thirds_are_a_legal_ratio() -> None:
    assert sum(parse_ratios("1/1/1")) == pytest.approx(1)
