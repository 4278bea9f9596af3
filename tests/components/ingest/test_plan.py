"""The plan: which rows go into which shard, what PLAN_ID depends on, and what is written, and only then."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.rejects import reject_table
from components.errors import DataError
from components.ingest.config import IngestConfig
from components.ingest.given import read_given
from components.ingest.ledger_choice import Previous, read_previous
from components.ingest.plan import EXAMPLE_OVERHEAD, cut_shards, is_committed, make_plan, make_plan_id, plan_ingest
from components.ingest.plan_files import read_plan
from components.ingest.raw_patches import find_patches
from components.splits.ledger import Ledger
from components.storage.local import LocalStorage
from tests.support import ingest_help as help
from tests.support import trees

LEDGER = Ledger("patient", {"a": "train", "b": "test"})
PATCHES = pa.table(
    {
        "path": ["a/1.png", "a/2.png", "b/3.png"],
        "patch_id": ["1", "2", "3"],
        "size": pa.array([10, 20, 30], pa.int64()),
        "version": pa.array([1, 2, 3], pa.int64()),
    }
)
NONE = reject_table([])


def config(workspace: Path, **options: Any) -> IngestConfig:
    return IngestConfig("idc", str(workspace / "raw"), str(workspace / "w"), **options)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class TestPlanId:
    def of(self, patches: pa.Table = PATCHES, ledger: Ledger = LEDGER, rejects: pa.Table = NONE, **more: Any) -> str:
        return make_plan_id({"task": "binary", **more}, ledger, patches, None, rejects)

    def test_neither_order_nor_the_history_of_the_ledger_counts(self) -> None:
        assert self.of(PATCHES.take([2, 0, 1])) == self.of()
        assert self.of(ledger=dataclasses.replace(LEDGER, tombstones={"c"}, seed=3)) == self.of()
        assert len(self.of()) == 16

    @pytest.mark.parametrize("column", ["path", "size", "version"])
    def test_each_fact_of_a_file_counts(self, column: str) -> None:
        changed = PATCHES.column(column).to_pylist()
        changed[1] = "a/2b.png" if column == "path" else 99
        at = PATCHES.schema.get_field_index(column)
        assert self.of(PATCHES.set_column(at, column, pa.array(changed))) != self.of()

    def test_splits_options_and_rejects_count(self) -> None:
        others = {
            self.of(ledger=Ledger("patient", {"a": "test", "b": "train"})),
            self.of(seed=1),
            self.of(rejects=reject_table([("c.png", "bad_name", "")])),
            self.of(rejects=reject_table([("c.png", "truncated", "")])),
            self.of(),
        }
        assert len(others) == 5

    def test_names_do_not_run_into_each_other(self) -> None:
        names = [pa.array(["ab", "c", "d"]), pa.array(["a", "bc", "d"])]
        assert len({self.of(PATCHES.set_column(0, "path", each)) for each in names}) == 2

    def test_a_pseudonymised_one_knows_files_by_their_real_names(self) -> None:
        tokens = PATCHES.set_column(0, "path", pa.array(["x", "y", "z"]))
        tokens = tokens.append_column("source", PATCHES.column("path"))
        assert self.of(tokens) == self.of()


class TestCut:
    def cut(self, n: int, size: int, shard_mb: int = 1, seed: int = 0, splits: tuple[int, ...] = (0,)) -> Any:
        table = pa.table({"patch_id": [f"p{i}" for i in range(n)]})
        split_of_row = np.array([splits[i % len(splits)] for i in range(n)], np.int8)
        options = IngestConfig("idc", "raw", "w", shard_mb=shard_mb, seed=seed)
        return split_of_row, cut_shards(table, split_of_row, np.full(n, size), options)

    def test_every_row_once_and_splits_one_after_the_other(self) -> None:
        split_of_row, (order, specs, cuts) = self.cut(90, 100_000, splits=(2, 0, 0, 1))
        assert sorted(order) == list(range(90)) and (np.diff(split_of_row[order]) >= 0).all()
        assert cuts[0] == 0 and cuts[-1] == 90 and len(cuts) == len(specs) + 1
        for spec, start, end in zip(specs, cuts, cuts[1:]):
            rows = order[start:end]
            assert {("train", "eval", "test")[s] for s in split_of_row[rows]} <= {spec.split}

    def test_shards_are_about_the_size_that_was_asked_for(self) -> None:
        _, (_, specs, cuts) = self.cut(100, 100_000)
        train = [s for s in specs if s.split == "train"]
        assert [s.index for s in train] == list(range(10)) and {s.of for s in train} == {10}
        assert max(np.diff(cuts[:11])) <= 11

    def test_an_empty_split_has_one_empty_shard(self) -> None:
        _, (_, specs, cuts) = self.cut(4, 10)
        assert [s.split for s in specs] == ["train", "eval", "test"] and cuts == [0, 4, 4, 4]

    def test_the_order_is_of_ids_and_seed_alone(self) -> None:
        _, (first, _, _) = self.cut(50, 10)
        _, (second, _, _) = self.cut(50, 10, shard_mb=9)
        _, (third, _, _) = self.cut(50, 10, seed=1)
        assert first.tolist() == second.tolist() != third.tolist()
        assert first.tolist() != sorted(first.tolist())


class TestPlanning:
    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        trees.idc_tree(tmp_path / "raw", 12, 2)
        return tmp_path

    def test_making_a_plan_touches_no_file(self, raw: Path) -> None:
        key = raw / "key"
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)
        for options in ({"folds": 3}, {"fold": 2, "folds": 3, "pseudonymise": key}, {}):
            cfg = config(raw, **options)
            before = files(raw)
            given, previous = read_given(cfg), read_previous(LocalStorage(cfg.workspace), cfg)
            plan, tables = make_plan(cfg, given, previous, find_patches(cfg, given, previous), "try")
            assert files(raw) == before and not plan.committed
            assert len(tables.order) == len(tables.patches) == sum(plan.patches) == 48
            assert len(tables.fold_ledgers) == (3 if options else 0)
            assert (tables.path_map is not None) == ("pseudonymise" in options)

    def test_the_shard_writers_read_what_was_planned(self, raw: Path) -> None:
        plan = plan_ingest(config(raw), "try")
        storage = LocalStorage(plan.write.workspace)
        read = [read_plan(storage.local_copy(plan.write.plan_path), i) for i in range(len(plan.specs))]
        assert [spec for spec, _ in read] == plan.specs and [len(b) for _, b in read] == plan.patches
        groups = Ledger.from_json(plan.ledger, "plan").splits
        for spec, batch in read:
            group_ids = batch.column(batch.schema.get_field_index("group_id")).to_pylist()
            assert {groups[group] for group in group_ids} <= {spec.split}
        assert storage.local_copy(plan.write.plan_path).stat().st_mode & 0o777 == 0o600
        assert not len(pq.read_table(storage.local_copy(plan.rejects_path)))

    def test_records_are_sized_by_pixels_or_by_files(self, raw: Path) -> None:
        assert EXAMPLE_OVERHEAD + 50 * 50 * 3 == 8120
        one, many = plan_ingest(config(raw), "try"), plan_ingest(config(raw, image_format="encoded"), "try")
        assert one.plan_id != many.plan_id and sum(one.patches) == sum(many.patches)

    def test_nothing_is_written_where_planning_fails(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", 2, 2)
        with pytest.raises(DataError, match="patient"):
            plan_ingest(config(tmp_path, folds=5), "try")
        assert not (tmp_path / "w").exists() or not files(tmp_path / "w")

    def test_a_folds_only_plan_leaves_a_damaged_data_set_alone(self, raw: Path) -> None:
        done = help.ingest(raw / "raw", raw / "w")
        shard = next((done.folder / "Split-train").iterdir())
        shard.write_bytes(b"damaged")
        storage = LocalStorage(str(raw / "w"))
        assert not is_committed(storage, f"datasets/idc/binary/{done.plan_id}")
        assert (done.folder / "manifest.json").exists(), "a question changes nothing"
        plan_ingest(config(raw, folds=3), "try")
        assert (done.folder / "manifest.json").exists()
        assert not plan_ingest(config(raw), "try").committed
        assert not (done.folder / "manifest.json").exists(), "shards are about to be written anew"

    def test_previous_and_given_decide_who_is_left_out(self, raw: Path) -> None:
        listed = raw / "withdrawn.txt"
        listed.write_text("9001\n")
        cfg = config(raw, exclude_groups=listed)
        previous = Previous(latest=Ledger("patient", {}, tombstones=frozenset({"9002"})))
        found = find_patches(cfg, read_given(cfg), previous)
        assert found.tombstones == {"9001", "9002"}
        assert not {"9001", "9002"} & set(found.found.patches.column("group_id").to_pylist())
        assert set(found.found.rejects.column("code").to_pylist()) == {"excluded_group"}
