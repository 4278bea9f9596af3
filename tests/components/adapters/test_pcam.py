from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.adapters.base import DiscoverOptions, Discovery
from components.adapters.group_files import read_groups_csv
from components.adapters.pcam import parse_labels
from components.adapters.registry import get_adapter
from components.errors import UsageError
from tests.support import trees


def discover(root: Path, **options) -> Discovery:
    return get_adapter("pcam").discover(str(root), DiscoverOptions(**({"group_by": "image"} | options)))


def codes(found: Discovery) -> dict[str, str]:
    return dict(zip(found.rejects["path"].to_pylist(), found.rejects["code"].to_pylist(), strict=True))


def test_labels_come_from_the_csv_and_test_is_unlabelled(tmp_path):
    trees.pcam_tree(tmp_path, {"a": 1, "b": 0, "C": 1}, test=2)
    (tmp_path / "sample_submission.csv").touch()
    found = discover(tmp_path)
    assert {row["patch_id"]: row["label"] for row in found.patches.to_pylist()} == {"a": 1, "b": 0, "C": 1}
    assert codes(found) == {f"test/{trees.pcam_id(10_000 + i)}.tif": "unlabelled" for i in range(2)}
    assert found.found == 5 and found.ignored == 2
    assert found.group_unit == "image" and any("not patient-clustered" in text for text in found.warnings)
    assert get_adapter("pcam").label_region == (32, 32, 32, 32)


def test_without_groups_the_message_says_both_ways_out(tmp_path):
    trees.pcam_tree(tmp_path)
    with pytest.raises(UsageError, match=r"(?s)--groups-csv.*--group-by image"):
        get_adapter("pcam").discover(str(tmp_path), DiscoverOptions())


@pytest.mark.parametrize("bom", [True, False])
@pytest.mark.parametrize("crlf", [True, False])
def test_byte_order_mark_and_line_ends(tmp_path, bom, crlf):
    trees.pcam_tree(tmp_path, 4, bom=bom, crlf=crlf)
    assert discover(tmp_path).patches["label"].to_pylist() == [0, 1, 0, 1]


def test_repeated_conflicting_and_absent_ids(tmp_path):
    lines = ["a,1", "b,1", "gone,0", "gone2.tif,1"]
    trees.pcam_tree(tmp_path, {"a": 1, "b": 0, "c": 0}, test=0, extra_lines=lines)
    trees.write_images(tmp_path, ["train/d.tif"])
    found = discover(tmp_path)
    assert found.patches["patch_id"].to_pylist() == ["a", "c"]
    assert codes(found) == {"train/b.tif": "label_conflict", "train/d.tif": "unlabelled"}
    assert found.ids_without_file == ["gone", "gone2"]
    assert found.group_counts == {"a": [0, 1], "c": [1, 0]}
    assert any("1 labels more than once" in text for text in found.warnings)
    assert any("2 ids without a file" in text for text in found.warnings)


def test_an_id_that_has_a_file_in_test_only_is_without_file(tmp_path):
    trees.pcam_tree(tmp_path, {"a": 1}, test=0, extra_lines=["b,0"])
    trees.write_images(tmp_path, ["test/b.tif"])
    found = discover(tmp_path)
    assert found.ids_without_file == ["b"] and codes(found) == {"test/b.tif": "unlabelled"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,label\na,1\nb,2\n", "line 3: the label is '2'"),
        ("id,label\n\na\n", "line 3: the label is ''"),
        ("id,label\n,1\n", "line 2: no id"),
        ("a,1\n", "columns a, 1"),
        ("", "none"),
    ],
)
def test_wrong_csv_names_the_line(text, says):
    with pytest.raises(UsageError, match=says):
        parse_labels(text.encode(), "train_labels.csv")


def test_slides_from_a_csv(tmp_path):
    trees.pcam_tree(tmp_path / "raw", {"a": 1, "b": 0, "c": 0}, test=1)
    file = trees.groups_csv(tmp_path / "g.csv", {"a": "tumor_001", "b.tif": "tumor_001"}, ("id", "wsi"))
    mapping = read_groups_csv(file)
    found = discover(tmp_path / "raw", group_by="", groups=mapping)
    assert found.group_unit == "slide" and found.group_counts == {"tumor_001": [1, 1]}
    assert codes(found)["train/c.tif"] == "no_group"
    found = discover(tmp_path / "raw", group_by="", groups=mapping, unmapped="train")
    assert found.unmapped_groups == {"unmapped:c"} and found.group_counts["unmapped:c"] == [1, 0]


def test_root_may_lie_above_and_other_places_are_bad_names(tmp_path):
    trees.pcam_tree(tmp_path / "histopathologic-cancer-detection", {"a": 1}, test=1)
    trees.write_images(tmp_path, ["stray.tif", "x.png"])
    found = discover(tmp_path)
    assert len(found.patches) == 1
    assert codes(found)["stray.tif"] == "bad_name" and codes(found)["x.png"] == "wrong_format"


def test_nested_copy_counts_once(tmp_path):
    trees.pcam_tree(tmp_path, {"a": 1, "b": 0}, test=0)
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    found = discover(tmp_path)
    assert found.patches["path"].to_pylist() == ["train/a.tif", "train/b.tif"]
    assert set(codes(found).values()) == {"nested_copy"}


def test_missing_csv(tmp_path):
    trees.pcam_tree(tmp_path)
    (tmp_path / "train_labels.csv").unlink()
    with pytest.raises(UsageError, match=r"no train_labels.csv beside train/"):
        discover(tmp_path)


def test_the_train_folder_alone_says_what_was_expected(tmp_path):
    trees.pcam_tree(tmp_path)
    with pytest.raises(UsageError, match=r"train/ID.tif, train_labels.csv beside train/"):
        discover(tmp_path / "train")
