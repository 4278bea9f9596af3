"""Looks at a test split: each run once, by patient, also when two count at the same moment."""

from __future__ import annotations

import json
import threading

import pytest

from components.errors import DataError, UsageError
from components.promotion.test_set_reuse import count_look, path
from components.storage.open import open_storage

PATIENTS = [f"p{i:02d}" for i in range(20)]


def looks(storage, split: str, run: str, groups=PATIENTS, names="patient", task="binary"):
    return count_look(storage, "idc", task, test_digest=split, groups=groups, names=names, run_id=run)


def test_a_run_counts_once_per_split(tmp_path):
    storage = open_storage(tmp_path)
    others = ["x", "y"]
    counts = [looks(storage, "a", "1"), looks(storage, "a", "1"), looks(storage, "a", "2"),
              looks(storage, "b", "2", others), looks(storage, "a", "1")]  # fmt: skip
    assert [each.count for each in counts] == [1, 1, 2, 1, 2]
    assert looks(storage, "a", "3", task="subtype").count == 1


def test_a_single_new_patient_does_not_make_a_split_fresh(tmp_path):
    storage = open_storage(tmp_path)
    for run in "123":
        looks(storage, "a", run)
    grown = looks(storage, "b", "4", [*PATIENTS, "new"])
    assert (grown.count, grown.groups, grown.of_groups, grown.test_digest) == (4, 20, 21, "b")
    again = looks(storage, "b", "4", [*PATIENTS, "new"])
    assert again == grown, "evaluated again, it is the same look"


def test_the_most_looked_at_half_of_the_patients_counts(tmp_path):
    storage = open_storage(tmp_path)
    for run in "123":
        looks(storage, "a", run, PATIENTS[:10])
    assert looks(storage, "b", "4", PATIENTS).count == 4, "10 of 20 are half"
    storage = open_storage(tmp_path / "other")
    for run in "123":
        looks(storage, "a", run, PATIENTS[:9])
    assert looks(storage, "b", "4", PATIENTS).count == 1, "9 of 20 are fewer than half"
    assert looks(storage, "c", "5", PATIENTS[:9]).count == 5


def test_a_run_that_saw_a_patient_in_two_splits_is_one_look(tmp_path):
    storage = open_storage(tmp_path)
    looks(storage, "a", "1")
    assert looks(storage, "b", "1", PATIENTS[1:]).count == 1


def test_looks_of_before_they_were_counted_by_patient_are_carried_over(tmp_path):
    storage = open_storage(tmp_path)
    old = {"format": 1, "splits": {"a": ["1", "2"], "b": ["3"]}}
    storage.write_atomic(path("idc", "binary"), json.dumps(old).encode())
    # The same split is told by its digest; which patients run 3 has seen is unknown, so it may have seen any.
    assert looks(storage, "a", "4").count == 4
    assert looks(storage, "c", "5", ["x"]).count == 2
    assert looks(storage, "b", "3", ["y"]).count == 1, "now its patients are known"
    assert looks(storage, "d", "6", ["x"]).count == 2


def test_looks_under_other_names_count_for_every_patient(tmp_path):
    storage = open_storage(tmp_path)
    looks(storage, "a", "1", names="patient key")
    assert looks(storage, "b", "2", ["other"]).count == 2


def test_no_look_is_lost_when_many_count_at_once(tmp_path):
    storage = open_storage(tmp_path)
    threads = [threading.Thread(target=looks, args=(storage, "a", f"run-{i}")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looks(storage, "a", "last").count == 9


@pytest.mark.parametrize(
    "text",
    [b"{", b"[]", b"{}", b'{"splits": []}', b'{"splits": {"a": 5}}', b'{"format": 1, "splits": {"a": 5}}',
     b'{"format": 2, "splits": {"a": {"runs": [], "groups": 3, "names": ""}}}',
     b'{"format": 2, "splits": {"a": ["1"]}}'],
)  # fmt: skip
def test_a_damaged_file_says_what_to_do(tmp_path, text):
    storage = open_storage(tmp_path)
    storage.write_atomic(path("idc", "binary"), text)
    with pytest.raises(DataError, match="Delete it"):
        looks(storage, "a", "1")


def test_a_file_of_a_newer_format_is_left_alone(tmp_path):
    storage = open_storage(tmp_path)
    text = b'{"format": 3, "splits": {}}'
    storage.write_atomic(path("idc", "binary"), text)
    with pytest.raises(UsageError, match="format 3"):
        looks(storage, "a", "1")
    assert storage.read_bytes(path("idc", "binary")) == text
