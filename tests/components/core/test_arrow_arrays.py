"""Arrays equal those of `pa.array`, and making them does not import pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import arrow_arrays


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]))))
def test_strings(values):
    assert arrow_arrays.strings(values).equals(pa.array(values, pa.string()))
    arrow_arrays.strings(values).validate(full=True)


def test_a_name_that_is_not_utf8_is_refused():
    with pytest.raises(UnicodeEncodeError):
        arrow_arrays.strings(["a\udcff"])


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.bool_()])
@pytest.mark.parametrize("n", [0, 1, 9, 64])
def test_numbers(kind, n):
    values = np.random.default_rng(n).integers(0, 2, n).astype(kind.to_pandas_dtype())
    assert arrow_arrays.numbers(values).equals(pa.array(values, kind))
    assert arrow_arrays.numbers(values[::2], kind).equals(pa.array(values[::2].copy(), kind))


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.bool_()])
def test_values(kind):
    column = pa.array([0, 1, 1, 0, 1] * 4, pa.int32()).cast(kind)
    for part in (column, column[3:11], pa.chunked_array([column[:3], column[9:]]), pa.chunked_array([], kind)):
        assert np.array_equal(
            arrow_arrays.values(part),
            part.to_numpy(zero_copy_only=False) if isinstance(part, pa.Array) else part.to_numpy(),
        )
    with pytest.raises(ValueError, match="1 nulls"):
        arrow_arrays.values(pa.array([None], kind))


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)), st.integers(0, 3))
def test_python(values, start):
    assert arrow_arrays.python(pa.array(values, pa.string())[start:]) == values[start:]
    assert arrow_arrays.python(pa.array([1, 2, 3])[1:]) == [2, 3]
    with pytest.raises(ValueError, match="1 nulls"):
        arrow_arrays.python(pa.array(["a", None]))


def test_repeat():
    assert arrow_arrays.repeat("x", 3, pa.string()).to_pylist() == ["x"] * 3
    assert arrow_arrays.repeat(-1, 2, pa.int32()).to_pylist() == [-1, -1]
    assert arrow_arrays.repeat("", 0, pa.string()).to_pylist() == []


def test_digests():
    values = [bytes([i]) * 16 for i in range(5)]
    assert arrow_arrays.digests(values, 16).equals(pa.array(values, pa.binary(16)))


def test_pandas_is_not_imported():
    code = "import sys; from components.core import arrow_arrays as a; a.strings(['a']); a.numbers([1]);"
    code += "sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
