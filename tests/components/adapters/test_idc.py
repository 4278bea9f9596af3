from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.adapters import idc
from components.adapters.base import DiscoverOptions, Discovery
from components.adapters.listing import Listing
from components.adapters.registry import get_adapter
from components.adapters.sieve import Sieve
from components.core import arrow_arrays
from components.errors import UsageError
from tests.support import trees

COPY = "IDC_regular_ps50_idx5"


def discover(root: Path) -> Discovery:
    return get_adapter("idc").discover(str(root), DiscoverOptions())


def codes(found: Discovery) -> dict[str, str]:
    return dict(zip(found.rejects["path"].to_pylist(), found.rejects["code"].to_pylist(), strict=True))


def test_patch_is_read_from_its_name(tmp_path):
    path = trees.idc_path("10253", 1, 1351, 1101)
    trees.write_images(tmp_path, [path])
    found = discover(tmp_path)
    row = found.patches.to_pylist()[0]
    info = (tmp_path / path).stat()
    assert row == {
        "patch_id": "10253_idx5_x1351_y1101_class1",
        "path": path,
        "group_id": "10253",
        "slide_id": "",
        "label": 1,
        "x": 1351,
        "y": 1101,
        "magnification": -1,
        "tumor_type": "",
        "size": info.st_size,
        "version": info.st_mtime_ns,
    }
    assert found.group_counts == {"10253": [0, 1]} and found.group_unit == "patient" and found.found == 1


def test_any_idx_and_any_case_of_the_extension(tmp_path):
    trees.write_images(tmp_path, [trees.idc_path("1", 0, idx=12), "2/1/2_idx5_x1_y1_class1.PNG"])
    assert discover(tmp_path).patches["patch_id"].to_pylist() == [
        "1_idx12_x1_y1_class0",
        "2_idx5_x1_y1_class1",
    ]


def test_nested_second_copy_counts_once(tmp_path):
    paths = trees.idc_tree(tmp_path, 2, 2)
    shutil.copytree(tmp_path, tmp_path / COPY, ignore=shutil.ignore_patterns(COPY))
    found = discover(tmp_path)
    assert found.patches["path"].to_pylist() == paths
    assert codes(found) == {f"{COPY}/{path}": "nested_copy" for path in paths}
    assert found.found == 16 and found.group_counts == {"9000": [2, 2], "9001": [2, 2]}


def test_a_folder_that_sorts_first_is_still_the_copy(tmp_path):
    paths = trees.idc_tree(tmp_path, ["z"], 1)
    shutil.copytree(tmp_path, tmp_path / "a", ignore=shutil.ignore_patterns("a"))
    assert discover(tmp_path).patches["path"].to_pylist() == paths


def test_root_above_the_tree_is_no_copy(tmp_path):
    trees.idc_tree(tmp_path / COPY, 2, 1)
    found = discover(tmp_path)
    assert len(found.patches) == 4 and not len(found.rejects)


def test_copy_is_seen_below_a_common_parent_too(tmp_path):
    trees.idc_tree(tmp_path / "data", 1, 1)
    shutil.copytree(tmp_path / "data", tmp_path / "data" / COPY, ignore=shutil.ignore_patterns(COPY))
    found = discover(tmp_path)
    assert len(found.patches) == 2 and set(codes(found).values()) == {"nested_copy"}
    assert all(path.startswith(f"data/{COPY}/") for path in codes(found))


def test_files_that_only_the_copy_holds_are_taken_and_told(tmp_path):
    trees.idc_tree(tmp_path, 1, 1)
    shutil.copytree(tmp_path, tmp_path / COPY, ignore=shutil.ignore_patterns(COPY))
    extra = trees.write_images(tmp_path / COPY, [trees.idc_path("9000", 1, 951)])
    found = discover(tmp_path)
    assert f"{COPY}/{extra[0]}" in found.patches["path"].to_pylist()
    assert any("1 patches are in the nested copy only" in text for text in found.warnings)


def test_a_copy_of_another_size_is_a_fault_not_a_copy(tmp_path):
    path = trees.idc_tree(tmp_path, ["1"], 1)[0]
    (tmp_path / COPY / path).parent.mkdir(parents=True)
    (tmp_path / COPY / path).write_bytes(b"other")
    assert codes(discover(tmp_path)) == {f"{COPY}/{path}": "duplicate_id"}


def test_same_stem_twice_keeps_the_first_path(tmp_path):
    trees.write_images(tmp_path, [f"batch{i}/{trees.idc_path('1', 0)}" for i in (2, 1)])
    found = discover(tmp_path)
    assert found.patches["path"].to_pylist() == ["batch1/" + trees.idc_path("1", 0)]
    assert codes(found) == {"batch2/" + trees.idc_path("1", 0): "duplicate_id"}
    assert "batch1/1/0/" in found.rejects["detail"][0].as_py()


def test_contradictions_and_strange_names_are_rejected(tmp_path):
    bad = {
        "1/0/1_idx5_x1_y51_class1.png": "class_mismatch",
        "2/0/1_idx5_x1_y101_class0.png": "bad_name",
        "1/2/1_idx5_x1_y1_class2.png": "bad_name",
        "1/0/notes.png": "bad_name",
        "0/1_idx5_x1_y151_class0.png": "bad_name",
        "1/0/1_idx5_x9999999999_y1_class0.png": "bad_name",
        "1/0/1_idx5_x1_y1_class0.tif": "wrong_format",
    }
    trees.write_images(tmp_path, [trees.idc_path("1", 0), *bad])
    found = discover(tmp_path)
    assert codes(found) == bad
    assert found.patches["path"].to_pylist() == [trees.idc_path("1", 0)]
    assert found.group_counts == {"1": [1, 0]}


def test_names_that_differ_by_case_only_and_odd_folders(tmp_path):
    patients = ["a", "A", "Zürich 1", "new\nline", "_idx5_x1"]
    trees.write_images(tmp_path, [f"über folder/\n/{trees.idc_path(one, 0)}" for one in patients])
    found = discover(tmp_path)
    assert not len(found.rejects)
    assert found.group_counts.keys() == set(patients)


def test_a_folder_with_one_patient_only_says_what_was_expected(tmp_path):
    trees.idc_tree(tmp_path, ["1"], 1)
    with pytest.raises(UsageError, match=r"PATIENT/\{0,1\}"):
        discover(tmp_path / "1" / "0")


@pytest.mark.parametrize(
    "path",
    [
        "8863/0/8863_idx5_x1_y2_class0.png",
        "8863/0/8863_idx5_x1_y2_class1.PNG",
        "8863/1/9999_idx5_x1_y2_class1.png",
        "nested/IDC/8863/0/8863_idx5_x1_y2_class0.png",
        "case_8/1/case_8_idx5_x1_y2_class1.png",
        "q/0/q_idx5_x1_y2_class0_idx5_x3_y4_class0.png",
        "line\nbreak/0/line\nbreak_idx5_x1_y2_class0.png",
        "8863/0/8863_idx5_x1_y2_class0.jpg",
        "8863/0/8863_idx5_x1234567890_y2_class0.png",
        "8863/2/8863_idx5_x1_y2_class0.png",
        "loose.png",
    ],
)
def test_the_quick_pattern_agrees_with_the_full_one(path: str) -> None:
    others = ["8863/0/8863_idx5_x1_y2_class0.png", "nested/8863/0/8863_idx5_x1_y2_class0.png", "loose.png"]

    def parsed(plain: str) -> list[dict[str, Any]]:
        files = pa.table({"path": arrow_arrays.strings([*others, path])})
        sieve = Sieve(Listing(files, [], 0, [], ""))
        sieve.parse_paths(idc._PATH, plain)
        return list(sieve.table.to_pylist())

    assert parsed(idc._PLAIN_PATH) == parsed("")
    assert parsed("")[0]["group_id"] == "8863"  # else both might find nothing


def test_a_file_that_is_larger_than_any_image_is_refused_unread(tmp_path):
    small, large = (trees.idc_path("10253", 1, x, 1) for x in (51, 101))
    trees.write_images(tmp_path, [small, large])
    with open(tmp_path / large, "wb") as file:
        file.truncate(3 << 30)  # sparse: it costs nothing on the disk
    found = discover(tmp_path)
    assert found.patches["path"].to_pylist() == [small] and codes(found) == {large: "bomb"}
    assert found.rejects["kind"].to_pylist() == ["fault"]
    assert found.rejects["detail"][0].as_py() == "3221225472 bytes, more than the 8408608 of any image"
