"""Looks at a test split: each run once, each split on its own, also when two count at the same moment."""

from __future__ import annotations

import threading

import pytest

from components.errors import DataError
from components.promotion.test_set_reuse import count_look, path
from components.storage.open import open_storage


def test_a_run_counts_once_per_split(tmp_path):
    storage = open_storage(tmp_path)

    def look(split: str, run: str) -> int:
        return count_look(storage, "idc", "binary", split, run)

    assert [look("a", "1"), look("a", "1"), look("a", "2"), look("b", "2"), look("a", "1")] == [1, 1, 2, 1, 2]
    assert count_look(storage, "idc", "subtype", "a", "3") == 1


def test_no_look_is_lost_when_many_count_at_once(tmp_path):
    storage = open_storage(tmp_path)
    threads = [
        threading.Thread(target=count_look, args=(storage, "idc", "binary", "a", f"run-{i}")) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count_look(storage, "idc", "binary", "a", "last") == 9


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"splits": []}', b'{"splits": {"a": 5}}'])
def test_a_damaged_file_says_what_to_do(tmp_path, text):
    storage = open_storage(tmp_path)
    storage.write_atomic(path("idc", "binary"), text)
    with pytest.raises(DataError, match="Delete it"):
        count_look(storage, "idc", "binary", "a", "1")
