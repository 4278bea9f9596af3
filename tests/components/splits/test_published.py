"""Published splits from a CSV."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from components.errors import DataError, UsageError
from components.splits.ledger import Ledger
from components.splits.planner import plan_splits
from components.splits.published import PublishedSplits, published_ledger, published_splits, read_splits_csv

CLASSES = ("benign", "malignant")
COUNTS = {f"p{i:02d}": [10 + i, 0] if i % 2 else [0, 20 + i] for i in range(30)}
PUBLISHED = {group: ("test" if i < 8 else "train") for i, group in enumerate(COUNTS)}


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "published.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read(path: Path, known: list[str], unit: str = "patient") -> PublishedSplits:
    return published_splits(read_splits_csv(path), known, unit)


@pytest.mark.parametrize(
    "text",
    [
        "group,split\na,train\nb,valid\nc,test\n",
        "\ufeffPatient_ID;SPLIT\r\na;Training\r\nb;val\r\nc;TEST\r\n\r\n",
        "image,patient,set\n1,a,train\n2,a,train\n3,b,validation\n4,c,test",
        'split\tcase\ntrain\t"a"\neval\tb \ntest\tc\n',
    ],
)
def test_layouts(tmp_path: Path, text: str) -> None:
    found = read(write(tmp_path, text), ["a", "b", "c"], "patient")
    assert found.splits == {"a": "train", "b": "eval", "c": "test"} and not found.warnings


def test_the_units_own_column_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "patient_id,slide_id,split\np,a,train\np,b,test\n")
    assert set(read(path, ["a", "b"], "slide").splits) == {"a", "b"}
    with pytest.raises(UsageError, match="into test, an earlier row into train"):
        read(path, ["p"], "patient")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks a group column"),
        ("name,split\na,train\n", "lacks a group column"),
        ("group,where\na,train\n", "lacks a split column"),
        ("group,split\na,holdout\n", "Row 2.*'holdout'"),
        ("group,split\na,train\na,test\n", "Row 3"),
        ("group,split\na,train\nb\n", "Row 3 .*no group or no split"),
        ("group,split\n,train\n", "Row 2"),
        ("group,split\nb,train\nc,test\n", "no split to 1 of 1 .*'a'"),
        ("group,split\na,train\nb,eval\n", "no test group"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(write(tmp_path, text), ["a"], "patient")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path, write(tmp_path, "group,split\nä,train\n", "latin-1")):
        with pytest.raises(UsageError, match="cannot be read"):
            read(path, ["a"], "patient")


def test_groups_that_are_not_in_the_data_stay_with_a_warning(tmp_path: Path) -> None:
    found = read(
        write(tmp_path, "group,split\na,train\nb,test\nz,test\n"), ["a", "b"], "patient"
    )
    assert found.splits["z"] == "test" and "1 groups" in found.warnings[0] and "'z'" in found.warnings[0]


def ledger(published=PUBLISHED, counts=COUNTS, **options) -> Ledger:
    return published_ledger(published, counts, CLASSES, group_unit="patient", **options)


def plan(previous: Ledger, counts=COUNTS, **options):
    return plan_splits(counts, CLASSES, group_unit="patient", previous=previous, **options)


def test_a_complete_split_is_taken_as_it_is() -> None:
    whole = {**PUBLISHED, "p28": "eval", "p29": "eval"}
    taken = ledger(whole)
    assert taken.splits == whole and taken.source == "csv"
    assert plan(taken).ledger == taken


def test_eval_is_cut_out_of_train_only() -> None:
    cut = ledger()
    assert cut.source == "csv+eval"
    assert cut.groups("test") == [group for group, split in PUBLISHED.items() if split == "test"]
    chosen = cut.groups("eval")
    assert {bool(COUNTS[group][0]) for group in chosen} == {True, False}  # both classes
    assert 2 <= len(chosen) <= 4  # an eighth of 22
    assert plan(cut).ledger == cut


def test_the_eval_groups_stay_when_the_data_grow() -> None:
    cut = ledger()
    counts = {**COUNTS, "q0": [500, 0], "q1": [0, 700]}
    later = ledger({**PUBLISHED, "q0": "train", "q1": "train"}, counts, previous=cut)
    assert later.splits.items() >= cut.splits.items()
    gone = {group: row for group, row in COUNTS.items() if group != cut.groups("eval")[0]}
    assert ledger(counts=gone, previous=cut) == cut


def test_tombstones_survive() -> None:
    withdrawn = dataclasses.replace(
        ledger(), splits={g: s for g, s in PUBLISHED.items() if g != "p00"}, tombstones=frozenset({"p00"})
    )
    again = ledger(previous=withdrawn)
    assert again.tombstones == {"p00"} and "p00" not in again.splits


def test_a_class_that_is_not_in_every_published_split() -> None:
    benign_test = {group: ("test" if i in (1, 3, 5) else "train") for i, group in enumerate(COUNTS)}
    with pytest.raises(DataError, match="never moves"):
        plan(ledger(benign_test))
