"""Identical images, labels that contradict each other, groups from a file, and near-duplicates."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core.rejects import REJECT_KINDS
from components.datasets.manifest import IdsWithoutFile
from components.datasets.tfrecord import read_at
from components.errors import DataError, UsageError
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return help.twelve_patients(tmp_path_factory.mktemp("raw"))


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
            p for p in help.sources(raw) if p.startswith(("9004/", "9005/"))
        }
        rest = {g: s for g, s in first.splits.items() if g not in ("9004", "9005")}
        assert second.splits == rest
        for options in ({}, {"split_by": "image"}, {"ledger": first.folder / "splits.json"}):
            later = ingest(raw, tmp_path, max_faults=0.5, **options)
            assert not {"9004", "9005"} & {r["group_id"] for r in later.patches}, options


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
