"""What an ingest goes on from and what it is named by: ledger, PLAN_ID, latest.json."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from components.errors import DataError, UsageError
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import Result, ingest


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return help.twelve_patients(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return ingest(raw, tmp_path_factory.mktemp("workspace"), max_faults=0.5)


class TestLedger:
    def test_growth_moves_nobody_and_vanished_groups_stay(self, raw: Path, tmp_path: Path) -> None:
        root = tmp_path / "raw"
        shutil.copytree(raw, root)
        first = ingest(root, tmp_path / "w", max_faults=0.5)
        trees.idc_tree(root, [f"77{i:02}" for i in range(9)], 2)
        shutil.rmtree(root / "9003")
        second = ingest(root, tmp_path / "w", max_faults=0.5)
        assert first.splits.items() <= second.splits.items() and "9003" in second.splits
        assert len(second.splits) == 21 and second.is_latest and second.plan_id != first.plan_id
        assert "9003" not in {r["group_id"] for r in second.patches}
        third = ingest(root, tmp_path / "w", max_faults=0.5)
        assert third.planned.committed and third.plan_id == second.plan_id

    def test_first_data_set_stays_whole(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path, max_faults=0.5)
        before = help.output_bytes(first.folder)
        assert ingest(raw, tmp_path, max_faults=0.5, seed=5).plan_id != first.plan_id
        assert help.output_bytes(first.folder) == before

    def test_named_ledger_wins_over_the_latest_one(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path, max_faults=0.5)
        turned = dict(zip(first.splits, reversed(list(first.splits.values())), strict=True))
        file = tmp_path / "mine.json"
        file.write_text(json.dumps({**first.ledger, "splits": turned}))
        assert ingest(raw, tmp_path, max_faults=0.5, ledger=file).splits == turned

    def test_missing_ledger_of_the_latest_data_set_is_an_error(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path, max_faults=0.5)
        (first.folder / "splits.json").unlink()
        with pytest.raises(DataError, match="--ledger"):
            ingest(raw, tmp_path, max_faults=0.5)

    def test_hand_edited_ledger_of_the_latest_data_set_is_an_error(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path, max_faults=0.5)
        file = first.folder / "splits.json"
        turned = {g: "train" if s == "test" else s for g, s in first.splits.items()}
        file.write_text(json.dumps({**first.ledger, "splits": turned}))
        with pytest.raises(DataError, match="splits.json.*changed after"):
            ingest(raw, tmp_path, max_faults=0.5)

    def test_another_group_unit_is_refused(self, raw: Path, tmp_path: Path) -> None:
        ingest(raw, tmp_path, max_faults=0.5)
        with pytest.raises(UsageError, match="splits by patient, this ingest by image"):
            ingest(raw, tmp_path, max_faults=0.5, group_by="image")

    def test_damaged_latest_is_an_error_that_says_what_to_do(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path, max_faults=0.5)
        (first.folder.parent / "latest.json").write_text("{")
        with pytest.raises(DataError, match="latest.json is damaged.*--ledger"):
            ingest(raw, tmp_path, max_faults=0.5)


class TestPlanId:
    def test_another_root_and_clock_give_the_same(self, raw: Path, done: Result, tmp_path: Path) -> None:
        copy = tmp_path / "elsewhere"
        shutil.copytree(raw, copy, copy_function=shutil.copy2)
        assert ingest(copy, tmp_path / "w", max_faults=0.5).plan_id == done.plan_id

    def test_a_touched_file_gives_another_unless_rehashed(self, raw: Path, tmp_path: Path) -> None:
        root = tmp_path / "raw"
        shutil.copytree(raw, root)
        ids = {}
        for when in ("before", "after"):
            ids[when] = [
                ingest(root, tmp_path / f"{when}{r}", max_faults=0.5, rehash=r) for r in (False, True)
            ]
            os.utime(root / help.sources(root)[0], (1e9, 1e9))
        assert ids["before"][0].plan_id != ids["after"][0].plan_id
        assert ids["before"][1].plan_id == ids["after"][1].plan_id
        assert len({r.manifest.content_digest for pair in ids.values() for r in pair}) == 1

    def test_every_option_that_decides_on_bytes_counts(self, raw: Path, done: Result, tmp_path: Path) -> None:
        options = [
            {"seed": 1}, {"shard_mb": 2}, {"image_format": "encoded"}, {"on_duplicate": "fail"},
            {"size": (25, 25)}, {"max_per_class": 30}, {"ratios": (0.5, 0.2, 0.3)},
        ]  # fmt: skip
        ids = [help.plan(help.config(raw, tmp_path, **{"max_faults": 0.5, **o})).plan_id for o in options]
        assert len({*ids, done.plan_id}) == len(options) + 1


class TestLatest:
    @pytest.fixture
    def breakhis(self, tmp_path: Path) -> Path:
        trees.breakhis_tree(
            tmp_path / "raw", {k: [f"14-{10 * i + j}" for j in range(4)] for i, k in enumerate(("TA", "DC"))}
        )
        return tmp_path / "raw"

    def test_filtered_data_sets_do_not_move_it_unless_told(self, breakhis: Path, tmp_path: Path) -> None:
        latest = tmp_path / "w/datasets/breakhis/binary/latest.json"
        filtered = ingest(breakhis, tmp_path / "w", "breakhis", magnifications=(40,))
        assert not filtered.is_latest and not latest.exists()
        assert set(filtered.rejects.values()) == {"filtered"} and len(filtered.rejects) == 8
        assert {r["magnification"] for r in filtered.patches} == {40}
        plain = ingest(breakhis, tmp_path / "w", "breakhis")
        assert plain.is_latest and json.loads(latest.read_text())["plan_id"] == plain.plan_id
        capped = ingest(breakhis, tmp_path / "w", "breakhis", max_per_class=6)
        assert not capped.is_latest and set(capped.rejects.values()) == {"over_cap"}
        assert [list(r["label"] for r in capped.patches).count(c) for c in (0, 1)] == [6, 6]
        assert capped.splits == plain.splits == filtered.splits, "a ledger is planned before filters and caps"
        result = ingest(breakhis, tmp_path / "w", "breakhis", max_per_class=6, set_latest=True)
        assert result.is_latest and result.plan_id == capped.plan_id

    def test_leaky_ones_never_move_it(self, raw: Path, tmp_path: Path) -> None:
        leaky = ingest(raw, tmp_path, max_faults=0.5, split_by="image", set_latest=True)
        assert not leaky.is_latest and not (leaky.folder.parent / "latest.json").exists()
        assert leaky.manifest.flags == ("leaky",)
        places: dict[str, set[str]] = {}
        for row in leaky.patches:
            places.setdefault(row["group_id"], set()).add(row["split"])
        assert any(len(p) > 1 for p in places.values()), "it is made to leak"

    def test_folds(self, raw: Path, tmp_path: Path) -> None:
        planned = help.plan(help.config(raw, tmp_path, max_faults=0.5, folds=3))
        home = tmp_path / "datasets/idc/binary"
        assert sorted(p.name for p in (home / "folds").iterdir()) == ["1.json", "2.json", "3.json"]
        assert not (home / planned.plan_id).exists(), "--folds alone writes no shard"
        tests: list[str] = []
        for number in (1, 2, 3):
            fold = ingest(raw, tmp_path, max_faults=0.5, fold=number)
            assert not fold.is_latest and fold.ledger["fold"] == number
            assert fold.ledger == json.loads((home / f"folds/{number}.json").read_text())
            tests += [g for g, s in fold.splits.items() if s == "test"]
        assert sorted(tests) == [str(9000 + i) for i in range(12)], "every patient is tested exactly once"

    def test_a_fold_needs_its_plan(self, raw: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--folds"):
            ingest(raw, tmp_path, max_faults=0.5, fold=1)
