"""Parts hold every row once, whatever the size of images, and a plan's digest tells what would change its outcome."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from components.core import arrow_arrays
from components.prediction.plan import PLAN_SCHEMA, image_parts, read_part, record_parts, rows_per_part, write_plan


def patches(count, version=1):
    columns = {name: [f"{name}{i}" for i in range(count)] for name in ("patch_id", "group_id", "slide_id", "path")}
    columns |= {name: np.arange(count) for name in ("label", "x", "y", "size")}
    columns["version"] = np.full(count, version)
    kinds = {field.name: field.type for field in PLAN_SCHEMA}
    schema = pa.schema([(name, kinds[name]) for name in columns])
    return arrow_arrays.table(columns, schema)


@given(st.integers(0, 300), st.sampled_from([(700, 460), (96, 96), (4000, 3000)]))
def test_image_parts_hold_every_image_once_in_order(count, size):
    parts = image_parts(patches(count), size)
    assert [p for _, rows in parts for p in rows["patch_id"].to_pylist()] == [f"patch_id{i}" for i in range(count)]
    assert all(0 < len(rows) <= rows_per_part(size) for _, rows in parts)


def test_a_part_comes_back_as_it_was_planned(tmp_path):
    parts = image_parts(patches(40), (4000, 3000))
    assert len(parts) > 1
    write_plan(tmp_path / "plan", parts, {})
    for number, (shard, rows) in enumerate(parts):
        again, batch = read_part(tmp_path / "plan", number)
        assert again == shard and batch.to_pydict() == rows.to_pydict()


def test_the_digest_changes_with_files_model_and_parts(tmp_path):
    def digest(table, facts, size=(50, 50)):
        return write_plan(tmp_path / "plan", image_parts(table, size), facts)

    first = digest(patches(20), {"model": "a"})
    assert digest(patches(20), {"model": "a"}) == first
    others = [digest(patches(20), {"model": "b"}), digest(patches(20, version=2), {"model": "a"})]
    others += [digest(patches(19), {"model": "a"}), digest(patches(20), {"model": "a"}, (4000, 3000))]
    assert len({first, *others}) == 5


def test_records_go_by_shard_and_offset_without_the_groups_left_out():
    table = pa.table(
        {
            "patch_id": ["a", "b", "c", "d"],
            "group_id": ["1", "2", "1", "3"],
            "slide_id": ["", "", "", ""],
            "path": ["", "", "", ""],
            "split": ["train", "train", "test", "train"],
            "label": [0, 1, 0, 1],
            "x": [0, 0, 0, 0],
            "y": [0, 0, 0, 0],
            "shard": ["s0", "s0", "s0", "s1"],
            "offset": [70, 0, 0, 0],
        }
    )
    shards = [("train", "Split-train/s0"), ("train", "Split-train/s1"), ("test", "Split-test/s0")]
    found = [(path, rows["patch_id"].to_pylist()) for path, rows in record_parts(table, shards)]
    assert found == [("Split-train/s0", ["b", "a"]), ("Split-train/s1", ["d"]), ("Split-test/s0", ["c"])]
    left = record_parts(table, shards, frozenset({"1"}))
    assert [(path, rows["patch_id"].to_pylist()) for path, rows in left] == [
        ("Split-train/s0", ["b"]),
        ("Split-train/s1", ["d"]),
    ]
