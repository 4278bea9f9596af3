"""One shard: records and sidecar agree, a second try resumes or repairs, and a reject leaves the others whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.datasets.example import decode_example
from components.datasets.sidecars import sidecar_meta
from components.datasets.tfrecord import read_records
from components.errors import TemporaryError
from components.ingest.rewrite import drop_records
from components.ingest.shard_jobs import IngestPlan
from components.ingest.shard_writer import is_plain_rgb8_png, write_shard
from tests.support import ingest_help as help
from tests.support import trees


@pytest.fixture
def plan(tmp_path: Path) -> IngestPlan:
    trees.idc_tree(tmp_path / "raw", 10, 3)
    return help.plan(help.config(tmp_path / "raw", tmp_path / "w"))


def paths(plan: IngestPlan, number: int) -> tuple[Path, Path]:
    folder = Path(plan.write.workspace) / plan.write.dataset_dir
    return folder / plan.specs[number].path, folder / plan.specs[number].sidecar


def ids(shard: Path) -> list[str]:
    return [decode_example(record)["patch_id"].decode() for _, record in read_records(shard)]


def meta(sidecar: Path) -> dict[str, Any]:
    return sidecar_meta(pq.read_schema(sidecar))


def test_sidecar_and_shard_agree(plan: IngestPlan) -> None:
    result = write_shard(plan.write, 0)
    shard, sidecar = paths(plan, 0)
    data, facts, table = shard.read_bytes(), meta(sidecar), pq.read_table(sidecar)
    assert (facts["count"], facts["bytes"]) == (plan.patches[0], len(data)) == (result.written, result.bytes)
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert table["patch_id"].to_pylist() == ids(shard)
    assert table["offset"].to_pylist() == [offset for offset, _ in read_records(shard)]
    assert not result.resumed and not result.rejected


def test_a_second_try_finds_it_standing(plan: IngestPlan) -> None:
    first = write_shard(plan.write, 0)
    before = [p.stat().st_mtime_ns for p in paths(plan, 0)]
    second = write_shard(plan.write, 0)
    assert second.resumed and second.written == first.written
    assert [p.stat().st_mtime_ns for p in paths(plan, 0)] == before


@pytest.mark.parametrize("damage", ["no shard", "no sidecar", "short shard", "changed shard", "broken sidecar"])
def test_what_is_damaged_is_written_again_to_the_same_bytes(plan: IngestPlan, damage: str) -> None:
    write_shard(plan.write, 0)
    shard, sidecar = paths(plan, 0)
    before = shard.read_bytes(), sidecar.read_bytes()
    if damage.startswith("no "):
        (shard if damage == "no shard" else sidecar).unlink()
    elif damage == "short shard":
        shard.write_bytes(before[0][:-1])
    elif damage == "changed shard":
        shard.write_bytes(before[0][:-1] + bytes([before[0][-1] ^ 1]))
    else:
        sidecar.write_bytes(b"no parquet")
    assert not write_shard(plan.write, 0).resumed
    assert (shard.read_bytes(), sidecar.read_bytes()) == before


def test_a_bad_image_is_a_reject_and_the_rest_is_written(tmp_path: Path) -> None:
    images = trees.idc_tree(tmp_path / "raw", 10, 3)
    bad = tmp_path / "raw" / images[0]
    bad.write_bytes(bad.read_bytes()[:60])
    plan = help.plan(help.config(tmp_path / "raw", tmp_path / "w"))
    results = [write_shard(plan.write, i) for i in range(len(plan.specs))]
    assert sum(r.rejected for r in results) == 1 and sum(r.written for r in results) == 59
    rejects = [r for i in range(len(plan.specs)) for r in meta(paths(plan, i)[1])["rejects"]]
    assert rejects[0][0] == images[0] and rejects[0][1] == "truncated"


def test_a_source_that_changed_is_temporary_and_leaves_nothing(plan: IngestPlan) -> None:
    for file in Path(plan.write.input_root).rglob("*.png"):
        file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(TemporaryError, match="changed"):
        write_shard(plan.write, 0)
    assert not any(p.exists() for p in paths(plan, 0))
    tmp = Path(plan.write.workspace) / plan.write.dataset_dir / ".tmp"
    assert not [p for p in tmp.rglob("*") if p.name in ("shard", "sidecar")]


def test_dropped_records_leave_a_trace_and_offsets_stay_right(plan: IngestPlan) -> None:
    write_shard(plan.write, 0)
    shard, sidecar = paths(plan, 0)
    all_ids, hashes = ids(shard), pq.read_table(sidecar)["pixel_hash"].to_pylist()
    drop_records(plan.write, plan.specs[0], {all_ids[1]: ("duplicate", "of another"), "absent": ("duplicate", "")})
    table, facts = pq.read_table(sidecar), meta(sidecar)
    assert ids(shard) == table["patch_id"].to_pylist() == [all_ids[0], *all_ids[2:]]
    assert table["offset"].to_pylist() == [offset for offset, _ in read_records(shard)]
    assert facts["sha256"] == hashlib.sha256(shard.read_bytes()).hexdigest() and facts["count"] == len(all_ids) - 1
    (dropped,) = facts["dropped"]
    assert dropped["patch_id"] == all_ids[1] and dropped["pixel_hash"] == hashes[1].hex()
    assert (dropped["code"], dropped["detail"]) == ("duplicate", "of another")
    assert write_shard(plan.write, 0).resumed, "what a policy took out does not come back"


def test_nothing_to_drop_changes_nothing(plan: IngestPlan) -> None:
    write_shard(plan.write, 0)
    before = [p.stat().st_ino for p in paths(plan, 0)]
    drop_records(plan.write, plan.specs[0], {"absent": ("duplicate", "")})
    assert [p.stat().st_ino for p in paths(plan, 0)] == before


def test_plain_png_is_told_from_its_header() -> None:
    assert is_plain_rgb8_png(trees.image_bytes("a"))
    assert not is_plain_rgb8_png(trees.image_bytes("a", kind="TIFF")) and not is_plain_rgb8_png(b"")
