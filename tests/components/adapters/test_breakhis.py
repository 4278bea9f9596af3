from __future__ import annotations

from pathlib import Path

import pytest

from components.adapters.base import DiscoverOptions, Discovery
from components.adapters.registry import get_adapter
from components.errors import UsageError
from tests.support import trees

SIZE = (7, 5)


def discover(root: Path, **options) -> Discovery:
    return get_adapter("breakhis").discover(str(root), DiscoverOptions(**options))


def codes(found: Discovery) -> dict[str, str]:
    return dict(zip(found.rejects["path"].to_pylist(), found.rejects["code"].to_pylist(), strict=True))


def test_patch_is_read_from_its_name(tmp_path):
    trees.write_images(tmp_path, [trees.breakhis_path("TA", "14-22549AB", 400, 7)], SIZE)
    row = discover(tmp_path, task="subtype").patches.to_pylist()[0]
    assert row["patch_id"] == "SOB_B_TA-14-22549AB-400-007"
    assert (row["group_id"], row["slide_id"]) == ("14-22549", "14-22549AB")
    assert (row["label"], row["tumor_type"], row["magnification"]) == (3, "TA", 400)


@pytest.mark.parametrize("layout", ["official", "classes", "flat"])
@pytest.mark.parametrize("underscores", [True, False])
def test_layouts_and_names(tmp_path, layout, underscores):
    paths = [trees.breakhis_path(kind, "14-1", 40, 1, layout, underscores) for kind in trees.BREAKHIS_TYPES]
    trees.write_images(tmp_path, paths, SIZE)
    for task in ("binary", "subtype"):
        found = discover(tmp_path, task=task)
        assert not len(found.rejects)
        names = get_adapter("breakhis").classes(task)
        for row in found.patches.to_pylist():
            assert names[row["label"]] == trees.BREAKHIS_TYPES[row["tumor_type"]][task == "subtype"]


def test_group_is_the_case_over_magnifications_types_and_letters(tmp_path):
    cases = {
        "A": ["14-29960CD"],
        "F": ["14-29960AB"],
        "DC": ["14-13412"],
        "LC": ["14-13412"],
        "PC": ["15-13412"],
    }
    trees.breakhis_tree(tmp_path, cases, magnifications=(40, 100, 200, 400), size=SIZE)
    assert discover(tmp_path).group_counts == {"14-13412": [0, 8], "14-29960": [8, 0], "15-13412": [0, 4]}
    counts = discover(tmp_path, task="subtype").group_counts
    assert counts["14-13412"] == [0, 0, 0, 0, 4, 4, 0, 0]


def test_magnification_filter_rejects_and_counts_stay(tmp_path):
    trees.breakhis_tree(tmp_path, {"A": ["14-1"], "DC": ["14-2"]}, (40, 100, 400), size=SIZE)
    found = discover(tmp_path, magnifications=(40, 400))
    assert set(found.patches["magnification"].to_pylist()) == {40, 400}
    assert set(codes(found).values()) == {"filtered"} and len(found.rejects) == 2
    assert found.group_counts == {"14-1": [3, 0], "14-2": [0, 3]}
    with pytest.raises(UsageError, match="no magnification 50.*40, 100, 200, 400"):
        discover(tmp_path, magnifications=(50,))


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("malignant/", "class_mismatch"),
        ("ductal_carcinoma/", "class_mismatch"),
        ("Tubular Adenoma/", "class_mismatch"),
        ("benign/SOB/adenosis/SOB_B_F_14-1/", "class_mismatch"),
        ("SOB_B_A_14-2/", "bad_name"),
        ("400X/", "bad_name"),
        ("benign/SOB/adenosis/SOB_B_A_14-1/40X/", ""),
        ("BENIGN/Adenosis/40x/", ""),
        ("train/whatever/", ""),
    ],
)
def test_folders_that_contradict_the_name(tmp_path, folder, code):
    path = f"{folder}SOB_B_A-14-1-40-001.png"
    trees.write_images(tmp_path, [path, "SOB_B_A-14-9-40-001.png"], SIZE)
    assert codes(discover(tmp_path)) == ({path: code} if code else {})


@pytest.mark.parametrize(
    "name",
    [
        "SOB_M_A-14-1-40-001.png",
        "SOB_B_XX-14-1-40-001.png",
        "SOB_B_A-14-1-50-001.png",
        "SOB_B_A-14-AB-40-001.png",
    ],
)
def test_names_that_say_nothing(tmp_path, name):
    trees.write_images(tmp_path, [name, "SOB_B_A-14-9-40-001.png"], SIZE)
    assert codes(discover(tmp_path)) == {name: "bad_name"}


def test_several_contradictions_keep_their_own_details(tmp_path):
    bad = ["400X/SOB_B_A-14-1-40-001.png", "malignant/SOB_B_A-14-2-40-001.png", "z.png"]
    trees.write_images(tmp_path, [*bad, "SOB_B_A-14-9-40-001.png"], SIZE)
    found = discover(tmp_path)
    details = found.rejects["detail"].to_pylist()
    assert codes(found) == dict(zip(bad, ["bad_name", "class_mismatch", "bad_name"], strict=True))
    assert "'400X'" in details[0] and "'malignant'" in details[1] and "expected" in details[2]


def test_the_same_image_twice_is_a_duplicate_id(tmp_path):
    trees.write_images(tmp_path, ["a/SOB_B_A-14-1-40-001.png", "b/SOB_B_A-14-1-40-001.png"], SIZE)
    assert codes(discover(tmp_path)) == {"b/SOB_B_A-14-1-40-001.png": "duplicate_id"}
