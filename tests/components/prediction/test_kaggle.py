"""The submission has the sample's ids in the sample's order, and every one of them."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataError, UsageError
from components.prediction.kaggle import check_all_there, read_sample, submission


def sample(folder, text):
    file = folder / "sample_submission.csv"
    file.write_bytes(text.encode())
    return file


def test_the_order_is_the_samples(tmp_path):
    ids = read_sample(sample(tmp_path, "\ufeffid,label\r\nc,0\r\na,0\r\nb,0\r\n"))
    assert ids == ["c", "a", "b"]
    made = submission(ids, {"a": 0.25, "b": 1.0, "c": 0.0, "more": 0.5})
    assert made == b"id,label\nc,0\na,0.25\nb,1\n"


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_no_ranking_is_lost(values):
    ids = [f"p{i}" for i in range(len(values))]
    rows = list(csv.DictReader(io.StringIO(submission(ids, dict(zip(ids, values))).decode())))
    assert [np.float32(row["label"]) for row in rows] == [np.float32(value) for value in values]
    assert [row["id"] for row in rows] == ids


def test_a_missing_id_is_named():
    with pytest.raises(DataError, match=r"2 of the 3 ids .* from /data: 'b', 'c'\. 1 was cut\.") as caught:
        check_all_there(["a", "b", "c"], {"a"}, "/data", "1 was cut.")
    assert caught.value.exit_code == 65
    check_all_there(["a.tif"], {"a"}, "/data")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("id\na\n", "columns"),
        ("name,label\na,0\n", "columns"),
        ("id,label\na,0\na,0\n", "line 3: id 'a' stands there twice"),
        ("id,label\n,0\n", "no id"),
        ("id,label\n", "names no id"),
    ],
)
def test_a_wrong_sample_is_refused(tmp_path, text, what):
    with pytest.raises(UsageError, match=what):
        read_sample(sample(tmp_path, text))


def test_a_sample_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="Cannot read"):
        read_sample(tmp_path / "none.csv")
