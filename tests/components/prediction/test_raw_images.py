"""Folders of images, in a data set's layout or in none."""

from __future__ import annotations

import pytest

from components.errors import UsageError
from components.prediction.raw_images import find_images, known_labels
from tests.support import trees


def rows(found):
    return {row["path"]: row for row in found.patches.to_pylist()}


def test_a_layout_tells_labels_groups_and_places(tmp_path):
    paths = trees.idc_tree(tmp_path, ["9001", "9002"])
    found = find_images(str(tmp_path), "idc", "binary")
    assert [row["path"] for row in found.patches.to_pylist()] == paths
    one = rows(found)[trees.idc_path("9002", 1, 51, 101)]
    assert (one["group_id"], one["label"], one["x"], one["y"]) == ("9002", 1, 51, 101)
    assert one["patch_id"] == "9002_idx5_x51_y101_class1"
    assert known_labels(found.patches) == len(paths)


def test_a_flat_folder_of_any_format_is_natural(tmp_path):
    trees.write_images(tmp_path, ["b.png", "a.tif", "more/c.TIFF", ".hidden.png"])
    (tmp_path / "notes.txt").write_text("not an image")
    found = find_images(str(tmp_path), "idc", "binary")
    assert found.patches["patch_id"].to_pylist() == ["a", "b", "c"]
    assert set(found.patches["label"].to_pylist()) == {-1}
    assert set(found.patches["group_id"].to_pylist()) == {""}
    assert [(row["path"], row["code"]) for row in found.rejects.to_pylist()] == [(".hidden.png", "bad_name")]
    assert not found.warnings


def test_what_stands_beside_the_layout_is_predicted_too(tmp_path):
    trees.pcam_tree(tmp_path, {"a" * 40: 1, "b" * 40: 0}, test=2)
    found = find_images(str(tmp_path), "pcam", "binary")
    labels = {path: row["label"] for path, row in rows(found).items()}
    assert labels == {
        f"train/{'a' * 40}.tif": 1,
        f"train/{'b' * 40}.tif": 0,
        f"test/{trees.pcam_id(10_000)}.tif": -1,
        f"test/{trees.pcam_id(10_001)}.tif": -1,
    }
    # Each image its own group is the ingest's choice for want of better; it is nothing that is known.
    assert set(found.patches["group_id"].to_pylist()) == {""}


def test_a_broken_label_file_is_said_and_no_obstacle(tmp_path):
    trees.pcam_tree(tmp_path, 2, test=0)
    (tmp_path / "train_labels.csv").write_text("id,label\nx,7\n")
    found = find_images(str(tmp_path), "pcam", "binary")
    assert len(found.patches) == 2 and known_labels(found.patches) == 0
    assert "label is '7'" in found.warnings[-1]


def test_one_patch_id_is_one_row(tmp_path):
    trees.write_images(tmp_path, ["a.png", "sub/a.png"])
    found = find_images(str(tmp_path), "none", "binary")
    assert found.patches["path"].to_pylist() == ["a.png"]
    assert len(found.patches) + len(found.rejects) == 2
    assert found.rejects["code"].to_pylist()[0] in ("duplicate_id", "nested_copy")


def test_groups_may_come_from_a_file(tmp_path):
    trees.write_images(tmp_path / "raw", ["a.png", "b.png"])
    csv = trees.groups_csv(tmp_path / "groups.csv", {"a": "slide 1", "z": "slide 2"})
    found = find_images(str(tmp_path / "raw"), "idc", "binary", csv)
    assert found.patches["group_id"].to_pylist() == ["slide 1", ""]
    assert found.patches["slide_id"].to_pylist() == ["slide 1", ""]
    with pytest.raises(UsageError, match="none of the 2 images"):
        find_images(str(tmp_path / "raw"), "idc", "binary", trees.groups_csv(tmp_path / "g.csv", {"z": "s"}))


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UsageError, match="no PNG or TIFF images"):
        find_images(str(tmp_path), "idc", "binary")


def test_a_file_larger_than_any_image_is_not_predicted(tmp_path):
    trees.write_images(tmp_path, ["a.png", "b.png"])
    with open(tmp_path / "b.png", "wb") as file:
        file.truncate(3 << 30)
    found = find_images(str(tmp_path), "none", "binary", source_size=(50, 50))
    assert found.patches["path"].to_pylist() == ["a.png"]
    assert found.rejects.select(["path", "code"]).to_pylist() == [{"path": "b.png", "code": "bomb"}]
