"""What an ingest leaves behind: folders, tables, Examples, ledger, PLAN_ID, latest.json."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core.rejects import REJECT_KINDS
from components.datasets.example import decode_example, decode_pixels
from components.datasets.manifest import IdsWithoutFile, RejectFacts
from components.datasets.tfrecord import read_at
from components.errors import DataError, UsageError
from schemas.tables import PATCHES, REJECTS
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import Result, ingest


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients, both classes, one narrow edge patch, one sliver, one copied text file."""
    root = tmp_path_factory.mktemp("raw")
    trees.idc_tree(root, 12, 3)
    for name, size in (("9000", (50, 41)), ("9001", (1, 50))):
        path = trees.idc_path(name, 0, 951, 951)
        trees.write_images(root, [path], size)
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return ingest(raw, tmp_path_factory.mktemp("workspace"), max_faults=0.5)


def sources(root: Path) -> list[str]:
    return sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in (".png", ".tif")
    )


class TestLayout:
    def test_holds_exactly_these_files(self, done: Result) -> None:
        names = {
            re.sub(r"^thumbnails/[0-9a-f]{24}", "thumbnails/X", name)
            for name in help.output_bytes(done.folder)
        }
        shards = {f"Split-{s}/{s}-00000-of-00001.tfrecord" for s in help.SPLITS}
        sidecars = {f"sidecars/{s}-00000-of-00001.parquet" for s in help.SPLITS}
        tables = {"manifest.json", "patches.parquet", "rejects.parquet", "splits.json"}
        assert names == shards | sidecars | tables | {"thumbnails/X.png"}

    def test_no_temporaries_are_left(self, done: Result) -> None:
        assert not [p for p in done.folder.rglob(".*")]

    def test_latest_names_it(self, done: Result) -> None:
        latest = json.loads((done.folder.parent / "latest.json").read_text())
        assert latest["dataset_dir"] == f"datasets/idc/binary/{done.plan_id}"
        assert latest["plan_id"] == done.plan_id
        assert latest["content_digest"] == done.manifest.content_digest

    def test_a_split_is_cut_into_shards_by_size_and_mixes_patients(
        self, raw: Path, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setattr("components.ingest.plan.EXAMPLE_OVERHEAD", 90_000)  # as if records were large
        result = ingest(raw, tmp_path, max_faults=0.5, shard_mb=1)
        files = sorted(p.name for p in (result.folder / "Split-train").iterdir())
        assert (
            files == [f"train-{i:05d}-of-{len(files):05d}.tfrecord" for i in range(len(files))]
            and len(files) > 2
        )
        groups = [{r["group_id"] for r in result.patches if r["shard"] == f} for f in files]
        assert all(len(g) > 1 for g in groups), "no shard may be one patient's"


class TestManifest:
    def test_counts_are_those_of_the_tables(self, done: Result) -> None:
        m, rows = done.manifest, done.patches
        for split in help.SPLITS:
            mine = [r for r in rows if r["split"] == split]
            facts = m.splits[split]
            assert facts.patches == len(mine) == sum(s.count for s in facts.shards)
            assert facts.groups == len({r["group_id"] for r in mine})
            for label, name in enumerate(m.classes):
                assert facts.by_class[name] == sum(r["label"] == label for r in mine)
                assert facts.groups_by_class[name] == len(
                    {r["group_id"] for r in mine if r["label"] == label}
                )
        assert m.written == len(rows)
        assert m.rejects == {"too_narrow": RejectFacts("fault", 1)}

    def test_found_is_written_plus_rejected(self, done: Result, raw: Path) -> None:
        assert done.manifest.found == len(sources(raw)) == len(done.patches) + len(done.rejects)

    def test_names_every_file_with_its_checksum(self, done: Result) -> None:
        m, content = done.manifest, help.output_bytes(done.folder)
        digests = dict(m.files)
        for split, facts in m.splits.items():
            for shard in facts.shards:
                path = f"Split-{split}/{shard.file}"
                digests[path] = shard.sha256
                digests[f"sidecars/{Path(path).stem}.parquet"] = shard.sidecar_sha256
                assert shard.bytes == len(content[path])
        assert digests == {n: hashlib.sha256(d).hexdigest() for n, d in content.items() if n != "manifest.json"}

    def test_splits_are_told_in_their_own_order(self, done: Result) -> None:
        assert tuple(done.manifest.splits) == help.SPLITS


class TestTables:
    def test_patches_have_the_columns_of_the_contract(self, done: Result) -> None:
        assert pq.read_schema(done.folder / "patches.parquet").remove_metadata().equals(PATCHES)

    def test_each_row_leads_to_its_record(self, done: Result) -> None:
        for row in done.patches:
            record = read_at(done.folder / f"Split-{row['split']}" / row["shard"], row["offset"])
            example = decode_example(record)
            assert example["patch_id"].decode() == row["patch_id"] == Path(row["path"]).stem
            assert (
                (example["image/width"], example["image/height"]) == (row["width"], row["height"]) == (50, 50)
            )

    def test_padded_patches_keep_their_original_size(self, done: Result) -> None:
        odd = [r for r in done.patches if (r["original_width"], r["original_height"]) != (50, 50)]
        assert [(r["group_id"], r["original_width"], r["original_height"]) for r in odd] == [("9000", 50, 41)]

    def test_rejects_have_code_kind_detail_and_thumbnail(self, done: Result) -> None:
        table = pq.read_table(done.folder / "rejects.parquet")
        assert table.schema.remove_metadata().equals(REJECTS)
        (row,) = table.to_pylist()
        assert (row["path"], row["code"], row["kind"]) == (
            trees.idc_path("9001", 0, 951, 951),
            "too_narrow",
            "fault",
        )
        assert "1x50" in row["detail"]
        assert Image.open(done.folder / "thumbnails" / row["thumbnail"]).size == (1, 50)


class TestExamples:
    def test_hold_every_feature_and_the_pixels_of_their_source(self, done: Result, raw: Path) -> None:
        rows = {r["patch_id"]: r for r in done.patches}
        found = help.examples(done.folder)
        assert found.keys() == rows.keys()
        for patch_id, (split, example) in found.items():
            row = rows[patch_id]
            assert set(example) == {*help.FEATURE_KEYS, "image/raw"}
            assert split == row["split"] == done.splits[row["group_id"]]
            for name in ("label", "x", "y", "magnification"):
                assert example[name] == row[name]
            for name in ("group_id", "slide_id", "tumor_type"):
                assert example[name].decode() == row[name]
            assert example["label/name"].decode() == row["label_name"] == ("negative", "idc")[row["label"]]
            source = np.asarray(Image.open(raw / row["path"]).convert("RGB"))
            height, width = source.shape[:2]
            assert np.array_equal(decode_pixels(example)[:height, :width], source)

    def test_absent_numbers_are_minus_one_and_absent_strings_empty(self, done: Result) -> None:
        _, example = next(iter(help.examples(done.folder).values()))
        assert (example["magnification"], example["slide_id"], example["tumor_type"]) == (-1, b"", b"")

    def test_edges_are_padded_by_reflection(self, done: Result) -> None:
        _, example = help.examples(done.folder)[Path(trees.idc_path("9000", 0, 951, 951)).stem]
        pixels = decode_pixels(example)
        assert np.array_equal(pixels[41:], pixels[31:40][::-1])

    def test_encoded_keeps_the_file_untouched(self, tmp_path: Path) -> None:
        root = tmp_path / "raw"
        trees.idc_tree(root, 6, 2)
        grey = trees.idc_path("9000", 1, 951, 951)
        Image.fromarray(trees.pixels(grey)[..., 0]).save(root / grey)
        result = ingest(root, tmp_path / "w", image_format="encoded", max_faults=0.5)
        assert result.rejects == {grey: "unsupported"}
        paths = {r["patch_id"]: r["path"] for r in result.patches}
        for patch_id, (_, example) in help.examples(result.folder).items():
            assert example["image/encoded"] == (root / paths[patch_id]).read_bytes()
            assert set(example) == {*help.FEATURE_KEYS, "image/encoded"}

    def test_encoded_is_refused_where_sources_are_no_png_or_scaled(self, tmp_path: Path) -> None:
        for dataset in ("pcam", "breakhis"):
            with pytest.raises(UsageError, match="encoded needs PNG"):
                help.config(tmp_path, tmp_path, dataset, image_format="encoded")


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
            os.utime(root / sources(root)[0], (1e9, 1e9))
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


class TestPolicies:
    """Identical pixels: which copy stays, and that nothing is repaired in silence."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        trees.idc_tree(tmp_path / "raw", 12, 3)
        return tmp_path / "raw"

    def places(self, root: Path, tmp_path: Path) -> dict[str, list[str]]:
        splits = ingest(root, tmp_path / "first").splits
        return {s: [g for g, place in splits.items() if place == s] for s in help.SPLITS}

    def copy(self, root: Path, a: str, b: str, label: int = 0) -> tuple[str, str]:
        """Makes a patch of patient b equal to one of patient a; returns both paths."""
        one, two = trees.idc_path(a, 0, 1, 101), trees.idc_path(b, label, 1, 101)
        shutil.copyfile(root / one, root / two)
        return one, two

    @pytest.mark.parametrize("keeps, loses", [("train", "eval"), ("train", "test"), ("test", "eval")])
    def test_copy_in_train_then_test_then_eval_stays(
        self, root: Path, tmp_path: Path, keeps: str, loses: str
    ) -> None:
        places = self.places(root, tmp_path)
        kept, lost = self.copy(root, places[keeps][0], places[loses][0])
        result = ingest(root, tmp_path / "w")
        assert result.rejects == {lost: "duplicate"}
        assert kept in {r["path"] for r in result.patches}
        assert REJECT_KINDS["duplicate"] == "policy"
        again = pq.read_table(result.folder / "rejects.parquet").to_pylist()[0]
        assert kept in again["detail"]

    def test_copies_within_a_split_and_label_stay(self, root: Path, tmp_path: Path) -> None:
        places = self.places(root, tmp_path)
        self.copy(root, *places["train"][:2])
        result = ingest(root, tmp_path / "w")
        assert result.rejects == {} and result.manifest.policies.copies_kept_within_split == 1

    def test_one_picture_under_two_labels_is_rejected_wherever_it_stands(
        self, root: Path, tmp_path: Path
    ) -> None:
        places = self.places(root, tmp_path)
        both = self.copy(root, places["train"][0], places["train"][1], label=1)
        assert ingest(root, tmp_path / "w").rejects == dict.fromkeys(both, "label_conflict")

    def test_blank_images_are_exempt(self, root: Path, tmp_path: Path) -> None:
        places = self.places(root, tmp_path)
        for split, label in (("train", 0), ("test", 1)):
            path = root / trees.idc_path(places[split][0], label, 1, 101)
            Image.new("RGB", (50, 50), (240, 240, 240)).save(path)
        result = ingest(root, tmp_path / "w")
        assert result.rejects == {} and result.manifest.policies.blank_copies_exempt == 1

    @pytest.mark.parametrize("option, label", [("on_duplicate", 0), ("on_conflict", 1)])
    def test_fail_is_a_choice_that_names_files_and_policy(
        self, root: Path, tmp_path: Path, option: str, label: int
    ) -> None:
        places = self.places(root, tmp_path)
        both = self.copy(root, places["train"][0], places["test"][0], label)
        with pytest.raises(DataError) as caught:
            ingest(root, tmp_path / "w", **{option: "fail"})
        assert all(path in str(caught.value) for path in both) and "--on-duplicate keep-train" in str(
            caught.value
        )
        (folder,) = help.dataset_dirs(tmp_path / "w")
        assert not (folder / "manifest.json").exists() and not (folder.parent / "latest.json").exists()

    def test_records_left_behind_have_right_offsets(self, root: Path, tmp_path: Path) -> None:
        places = self.places(root, tmp_path)
        self.copy(root, places["train"][0], places["test"][0])
        result = ingest(root, tmp_path / "w")
        for row in result.patches:
            assert row["patch_id"].encode() in read_at(
                result.folder / f"Split-{row['split']}" / row["shard"], row["offset"]
            )

    def test_policies_decide_alike_whatever_stood_before(self, root: Path, tmp_path: Path) -> None:
        places = self.places(root, tmp_path)
        self.copy(root, places["train"][0], places["test"][0])
        whole = ingest(root, tmp_path / "w")
        before = help.everything(whole.folder)
        next((whole.folder / "Split-test").iterdir()).unlink()
        assert help.everything(ingest(root, tmp_path / "w").folder) == before


class TestGroups:
    def test_slides_from_a_csv_and_unmapped_patches_rejected_or_in_train(self, tmp_path: Path) -> None:
        ids = {trees.pcam_id(i): i % 2 for i in range(40)}
        trees.pcam_tree(tmp_path / "raw", ids, extra_lines=[f"{trees.pcam_id(777)},1"])
        named = {one: f"slide{i // 4}" for i, one in enumerate(ids) if i < 36}
        mapping = trees.groups_csv(tmp_path / "groups.csv", named)
        strict = ingest(tmp_path / "raw", tmp_path / "w1", "pcam", groups_csv=mapping)
        assert list(strict.rejects.values()).count("no_group") == 4
        assert list(strict.rejects.values()).count("unlabelled") == 2
        assert strict.manifest.group_unit == "slide" and strict.manifest.flags == ()
        assert strict.manifest.ids_without_file == IdsWithoutFile(1, (trees.pcam_id(777),))
        lax = ingest(tmp_path / "raw", tmp_path / "w2", "pcam", groups_csv=mapping, unmapped="train")
        assert lax.manifest.flags == ("not_provably_patient_disjoint",)
        unmapped = [r for r in lax.patches if r["patch_id"] not in named]
        assert len(unmapped) == 4 and {r["split"] for r in unmapped} == {"train"}
        assert {r["patch_id"]: r["slide_id"] for r in strict.patches} == named

    def test_every_image_its_own_group_is_flagged(self, tmp_path: Path) -> None:
        trees.pcam_tree(tmp_path / "raw", 30)
        result = ingest(tmp_path / "raw", tmp_path / "w", "pcam", group_by="image")
        assert (
            result.manifest.flags == ("not_patient_clustered",) and result.manifest.group_unit == "image"
        )

    def test_pcam_needs_a_word_about_patients(self, tmp_path: Path) -> None:
        trees.pcam_tree(tmp_path / "raw", 30)
        with pytest.raises(UsageError, match="--groups-csv.*--group-by image"):
            ingest(tmp_path / "raw", tmp_path / "w", "pcam")

    def test_published_split_is_taken_as_it_is(self, raw: Path, tmp_path: Path) -> None:
        wanted = {str(9000 + i): help.SPLITS[i % 3] for i in range(12)}
        file = trees.groups_csv(tmp_path / "splits.csv", wanted, ("group", "split"))
        result = ingest(raw, tmp_path / "w", max_faults=0.5, splits_csv=file)
        assert result.splits == wanted and result.ledger["source"] == "csv" and result.is_latest

    def test_withdrawn_groups_are_never_written_again(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path, max_faults=0.5)
        file = tmp_path / "withdrawn.txt"
        file.write_text("9004\n9005\n")
        second = ingest(raw, tmp_path, max_faults=0.5, exclude_groups=file)
        assert second.ledger["tombstones"] == ["9004", "9005"] and second.is_latest
        assert {p for p, c in second.rejects.items() if c == "excluded_group"} == {
            p for p in sources(raw) if p.startswith(("9004/", "9005/"))
        }
        rest = {g: s for g, s in first.splits.items() if g not in ("9004", "9005")}
        assert second.splits == rest
        for options in ({}, {"split_by": "image"}, {"ledger": first.folder / "splits.json"}):
            later = ingest(raw, tmp_path, max_faults=0.5, **options)
            assert not {"9004", "9005"} & {r["group_id"] for r in later.patches}, options


class TestTasksAndSizes:
    def test_subtype_and_binary_stand_side_by_side(self, tmp_path: Path) -> None:
        cases = {k: [f"14-{100 * i + j}" for j in range(3)] for i, k in enumerate(trees.BREAKHIS_TYPES)}
        trees.breakhis_tree(tmp_path / "raw", cases, magnifications=(40,))
        two = ingest(tmp_path / "raw", tmp_path / "w", "breakhis")
        eight = ingest(tmp_path / "raw", tmp_path / "w", "breakhis", task="subtype")
        assert two.folder.parent.name == "binary" and eight.folder.parent.name == "subtype"
        assert len(two.manifest.classes) == 2 and len(eight.manifest.classes) == 8
        assert {r["label"] for r in eight.patches} == set(range(8)) and two.plan_id != eight.plan_id

    @pytest.mark.parametrize("size", [None, (700, 460), (175, 115)])
    def test_stored_size(self, tmp_path: Path, size: tuple[int, int] | None) -> None:
        trees.breakhis_tree(
            tmp_path / "raw", {"TA": ["14-1", "14-2", "14-3"], "DC": ["14-4", "14-5", "14-6"]}, (40,)
        )
        short = trees.breakhis_path("TA", "14-1", number=9)
        trees.write_images(tmp_path / "raw", [short], (700, 456))
        result = ingest(tmp_path / "raw", tmp_path / "w", "breakhis", size=size)
        width, height = size or (350, 230)
        assert {(r["width"], r["height"]) for r in result.patches} == {(width, height)}
        assert result.manifest.stored_size == (width, height)
        assert {r["original_height"] for r in result.patches if r["path"] == short} == {456}
        factor = 700 // width
        for patch_id, (_, example) in help.examples(result.folder).items():
            path = next(r["path"] for r in result.patches if r["patch_id"] == patch_id)
            pixels = np.asarray(Image.open(tmp_path / "raw" / path)).astype(float)[:456]
            blocks = pixels.reshape(456 // factor, factor, width, factor, 3).mean((1, 3))
            assert np.abs(decode_pixels(example)[: len(blocks)] - blocks).max() <= 0.5

    def test_anisotropic_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="350x230"):
            help.config(tmp_path, tmp_path, "breakhis", size=(350, 200))


def test_near_duplicates_across_splits_are_reported(tmp_path: Path) -> None:
    trees.idc_tree(tmp_path / "raw", 12, 2)
    splits = ingest(tmp_path / "raw", tmp_path / "first").splits
    here, there = (next(g for g, s in splits.items() if s == split) for split in ("train", "test"))
    rng = np.random.default_rng(3)
    picture = np.kron(rng.integers(60, 200, (5, 5, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    picture[..., 1] //= 2  # pink enough to count as tissue
    paths = [trees.idc_path(here, 0, 1, 101), trees.idc_path(there, 0, 1, 101)]
    for number, path in enumerate(paths):
        changed = picture.copy()
        changed[0, 0] += number
        Image.fromarray(changed).save(tmp_path / "raw" / path)
    result = ingest(tmp_path / "raw", tmp_path / "w")
    assert result.rejects == {} and result.manifest.near_duplicates.pairs_across_splits == 1
    text = " ".join(result.manifest.near_duplicates.examples[0])
    assert all(path in text for path in paths)


def test_sidecars_hold_all_that_patches_hold(done: Result) -> None:
    rows = pa.concat_tables(
        [
            pq.read_table(p).select(PATCHES.names).replace_schema_metadata(None)
            for p in sorted((done.folder / "sidecars").iterdir())
        ]
    )
    key = [("patch_id", "ascending")]
    assert rows.sort_by(key).equals(
        pq.read_table(done.folder / "patches.parquet").sort_by(key).cast(rows.schema)
    )
