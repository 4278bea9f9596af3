"""What must fail well with one clear sentence: splits that cannot be, strange names, missing rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import DataError, UsageError
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest


class TestSplitsThatCannotBe:
    def test_empty_class(self, tmp_path: Path) -> None:
        trees.write_images(tmp_path, [trees.idc_path(str(p), 0, x) for p in range(9) for x in (1, 2)])
        with pytest.raises(DataError, match="Class 'idc' has no patch.*--on-infeasible"):
            ingest(tmp_path, tmp_path / "w")

    @pytest.mark.parametrize("patients", [1, 2])
    @pytest.mark.parametrize("choice", ["fail", "train-only", "drop-class"])
    def test_fewer_patients_than_splits(self, tmp_path: Path, patients: int, choice: str) -> None:
        trees.idc_tree(tmp_path, patients, 4)
        with pytest.raises(DataError, match="patient"):
            ingest(tmp_path, tmp_path / "w", on_infeasible=choice)
        assert not list((tmp_path / "w").rglob("*.tfrecord"))

    def test_says_which_class_lacks_how_many_patients(self, tmp_path: Path) -> None:
        cases = {"TA": ["14-1", "14-2", "14-3"], "F": ["14-4"], "A": ["14-5", "14-6", "14-7"]}
        malignant = {
            k: [f"15-{i}{j}" for j in range(3)] for i, k in enumerate(("DC", "LC", "MC", "PC", "PT"))
        }
        trees.breakhis_tree(tmp_path / "raw", {**cases, **malignant}, (40,))
        with pytest.raises(
            DataError, match=r"(?s)fibroadenoma.*needs 2 patients more.*--on-infeasible train-only"
        ):
            ingest(tmp_path / "raw", tmp_path / "w", "breakhis", task="subtype")
        kept = ingest(
            tmp_path / "raw", tmp_path / "w", "breakhis", task="subtype", on_infeasible="train-only"
        )
        assert {r["split"] for r in kept.patches if r["label_name"] == "fibroadenoma"} == {"train"}
        dropped = ingest(
            tmp_path / "raw", tmp_path / "w2", "breakhis", task="subtype", on_infeasible="drop-class"
        )
        assert set(dropped.rejects.values()) == {"infeasible_class"} and len(dropped.rejects) == 1

    def test_one_patient_with_most_of_the_images(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path, 6, 2)
        trees.idc_tree(tmp_path, ["huge"], 60)
        result = ingest(tmp_path, tmp_path / "w")
        assert result.splits["huge"] == "train" and set(result.splits.values()) == set(help.SPLITS)
        assert any("%" in text for text in result.manifest.warnings), "shares off the target are said"

    def test_filter_that_empties_a_split(self, tmp_path: Path) -> None:
        cases = {"TA": ["14-1", "14-2", "14-3"], "DC": ["14-4", "14-5", "14-6"]}
        trees.breakhis_tree(tmp_path / "raw", cases, (40,))
        splits = ingest(tmp_path / "raw", tmp_path / "w", "breakhis").splits
        at_100 = [(k, c) for k, names in cases.items() for c in names if splits[c] != "test"]
        trees.write_images(tmp_path / "raw", [trees.breakhis_path(k, c, 100) for k, c in at_100], (700, 460))
        with pytest.raises(DataError, match="class benign has no patch left in test"):
            ingest(tmp_path / "raw", tmp_path / "w", "breakhis", magnifications=(100,))


class TestNames:
    def test_unicode_spaces_and_newlines(self, tmp_path: Path) -> None:
        names = [
            "Mañana 1",
            "日本 2",
            "new\nline",
            "tab\t4",
            "quo\"te's",
            "comma,6",
            "back\\slash",
            "%41",
            "e\u0301",
        ]
        written = trees.idc_tree(tmp_path / "raw dir\n", names, 2)
        result = ingest(tmp_path / "raw dir\n", tmp_path / "w ö")
        assert {r["path"] for r in result.patches} == set(written) and result.rejects == {}
        assert result.splits.keys() == set(names)
        assert ingest(tmp_path / "raw dir\n", tmp_path / "w ö").planned.committed

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        shutil.copyfile(
            tmp_path / "raw" / trees.idc_path("9000", 0, 1, 101),
            os.path.join(os.fsencode(tmp_path / "raw"), b"caf\xe9_idx5_x1_y1_class0.png"),
        )
        result = ingest(tmp_path / "raw", tmp_path / "w", max_faults=0.5)
        assert result.rejects == {"caf\\xe9_idx5_x1_y1_class0.png": "bad_name"}

    def test_names_that_differ_by_case_only(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", ["ab", "AB", *map(str, range(7))], 2)
        upper = tmp_path / "raw" / trees.idc_path("0", 0, 1, 101)
        shutil.copyfile(upper, upper.with_suffix(".PNG"))
        result = ingest(tmp_path / "raw", tmp_path / "w", max_faults=0.5)
        assert {"ab", "AB"} <= result.splits.keys()
        assert len(result.rejects) == 1 and set(result.rejects.values()) == {"duplicate_id"}
        assert result.manifest.written == 36

    def test_links(self, tmp_path: Path) -> None:
        raw = tmp_path / "raw"
        trees.idc_tree(raw, 9, 2)
        outside = trees.write_images(tmp_path / "other", ["secret.png"])[0]
        leads_out, broken, inside = (trees.idc_path("9000", 0, x, 9001) for x in (1, 2, 3))
        (raw / leads_out).symlink_to(tmp_path / "other" / outside)
        (raw / broken).symlink_to("nowhere.png")
        trees.write_images(raw, ["kept/real.png"])
        (raw / inside).symlink_to(raw / "kept" / "real.png")
        (raw / "9001" / "loop").symlink_to(raw, target_is_directory=True)
        result = ingest(raw, tmp_path / "w", max_faults=0.5)
        assert result.rejects == {
            leads_out: "outside_root",
            broken: "unreadable",
            "kept/real.png": "bad_name",
        }
        assert inside in {r["path"] for r in result.patches}
        assert any("loop" in text for text in result.manifest.warnings)


class TestRights:
    """As another user where this one is root: root may read and write everything."""

    @pytest.fixture
    def open_dir(self) -> Iterator[Path]:
        """A folder whose parents everybody may enter, as pytest's may not be."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o777)
        yield folder
        shutil.rmtree(folder)

    @staticmethod
    @contextlib.contextmanager
    def plain_user() -> Iterator[None]:
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(me)

    def test_unreadable_folder(self, open_dir: Path) -> None:
        trees.idc_tree(open_dir / "raw", 9, 2)
        (open_dir / "raw" / "9004").chmod(0)
        with self.plain_user(), pytest.raises(UsageError, match="9004.*Permission denied"):
            ingest(open_dir / "raw", open_dir / "w")
        (open_dir / "raw" / "9004").chmod(0o755)

    def test_unreadable_file_is_a_reject(self, open_dir: Path) -> None:
        (path, *_) = trees.idc_tree(open_dir / "raw", 9, 2)
        (open_dir / "raw" / path).chmod(0)
        with self.plain_user():
            assert ingest(open_dir / "raw", open_dir / "w", max_faults=0.5).rejects == {path: "unreadable"}

    def test_workspace_that_may_not_be_written(self, open_dir: Path) -> None:
        trees.idc_tree(open_dir / "raw", 9, 2)
        (open_dir / "w").mkdir()
        (open_dir / "w").chmod(0o555)
        with self.plain_user(), pytest.raises(UsageError, match="--workspace"):
            ingest(open_dir / "raw", open_dir / "w")
