"""predictions.parquet and comparison.parquet: types, unknown labels, several classes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.promotion.prediction_tables import (
    comparison_table,
    predictions_table,
    probability_column,
    probability_values,
)


def columns(labels) -> dict:
    texts = [f"p{i}" for i in range(len(labels))]
    ids = {name: texts for name in ("patch_id", "group_id", "slide_id")}
    return {**ids, "split": ["test"] * len(labels), "label": labels}


@given(st.integers(0, 20), st.sampled_from([1, 2, 8]))
def test_probabilities_come_back_as_they_were(n, classes):
    shape = (n,) if classes == 1 else (n, classes)
    p = np.random.default_rng(n).random(shape).astype(np.float32)
    column = pa.chunked_array([probability_column(p[: n // 2]), probability_column(p[n // 2 :])])
    if n:
        np.testing.assert_array_equal(probability_values(column), p)


@given(st.lists(st.integers(-1, 1), max_size=30))
def test_an_unknown_label_is_null(labels):
    table = predictions_table(columns(labels), np.full(len(labels), 0.5, np.float32), "run", 2)
    assert table.column("label").to_pylist() == [None if label < 0 else label for label in labels]


def test_binary_and_several_classes(tmp_path):
    binary = predictions_table(columns([0, 1]), np.array([0.1, 0.9], np.float32), "run-1", 2)
    assert str(binary.schema.field("probability").type) == "float"
    several = predictions_table(columns([0, 2]), np.eye(3, dtype=np.float32)[:2], "run-1", 3)
    pq.write_table(several, tmp_path / "p.parquet")
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["probability"] for row in rows] == [[1, 0, 0], [0, 1, 0]]
    assert {row["model_version"] for row in rows} == {"run-1"}


@pytest.mark.parametrize("classes", [2, 3])
def test_models_that_do_not_exist_are_null(classes):
    p = np.full((2,) if classes == 2 else (2, 3), 0.25, np.float32)
    table = comparison_table(["a", "b"], {"champion": None, "baseline": p}, classes)
    assert table.column("champion_probability").null_count == 2
    assert table.column("champion_probability").type == table.column("baseline_probability").type
    np.testing.assert_array_equal(probability_values(table.column("baseline_probability")), p)
