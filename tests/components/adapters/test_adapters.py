"""What holds for every adapter: options, groups, counts, caps, and messages about a wrong folder."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.adapters.base import DiscoverOptions, Discovery
from components.adapters.finish import over_cap
from components.adapters.group_files import GroupMapping, read_groups_csv
from components.adapters.patch_index import INDEX_SCHEMA
from components.adapters.registry import ADAPTERS, get_adapter
from components.adapters.registry import discover as registry_discover
from components.core.rejects import REJECT_SCHEMA
from components.errors import UsageError
from tests.support import trees

NO_GROUPS = GroupMapping(*(pa.array([], pa.string()),) * 3, unit="slide")


def discover(name: str, root: Path, **options) -> Discovery:
    found = registry_discover(get_adapter(name), str(root), DiscoverOptions(**options))
    assert found.patches.schema == INDEX_SCHEMA and found.rejects.schema == REJECT_SCHEMA
    for table in (found.patches, found.rejects):
        assert table["path"].to_pylist() == sorted(table["path"].to_pylist())
    for row in found.patches.to_pylist():
        assert row["patch_id"] and row["group_id"] and row["path"] and row["label"] >= 0
    return found


def codes(found: Discovery) -> dict[str, int]:
    return dict(collections.Counter(found.rejects["code"].to_pylist()))


def test_registry():
    assert set(ADAPTERS) == {"idc", "breakhis", "pcam"}
    for name, adapter in ADAPTERS.items():
        assert adapter.name == name and "binary" in adapter.tasks
        assert all(a % b == 0 for a, b in zip(adapter.source_size, adapter.stored_size, strict=True))
    with pytest.raises(UsageError, match="'camelyon'.*idc, breakhis, pcam"):
        get_adapter("camelyon")
    with pytest.raises(UsageError, match="no task 'subtype'.*binary"):
        get_adapter("idc").classes("subtype")


@pytest.mark.parametrize(
    "options",
    [
        {"group_by": "slide"},
        {"unmapped": "eval"},
        {"unmapped": "train"},
        {"max_per_class": -1},
        {"magnifications": (40,)},
        {"task": "subtype"},
        {"group_by": "image", "groups": NO_GROUPS},
    ],
)
def test_impossible_options(tmp_path, options):
    trees.idc_tree(tmp_path, 1, 1)
    with pytest.raises(UsageError):
        discover("idc", tmp_path, **options)


@pytest.mark.parametrize("name", ["idc", "breakhis", "pcam"])
def test_wrong_folder_says_what_was_expected_and_which_adapter_fits(tmp_path, name):
    makers = {"idc": trees.idc_tree, "breakhis": trees.breakhis_tree, "pcam": trees.pcam_tree}
    for other, make in makers.items():
        make(tmp_path / other)
    options = {"group_by": "image"} if name == "pcam" else {}
    for other in makers.keys() - {name}:
        with pytest.raises(UsageError, match=f"(?s){name} expects.*looks like {other}"):
            discover(name, tmp_path / other, **options)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(UsageError, match=f"no PNG or TIFF images.*only 1 other files.*{name} expects"):
        discover(name, tmp_path / "empty", **options)
    with pytest.raises(UsageError, match="does not exist"):
        discover(name, tmp_path / "nowhere", **options)
    with pytest.raises(UsageError, match="not a folder"):
        discover(name, tmp_path / "empty" / "a.txt", **options)


def test_groups_csv_replaces_groups_and_sets_the_unit(tmp_path):
    paths = trees.idc_tree(tmp_path / "raw", 3, 1)
    ids = [Path(path).stem for path in paths]
    mapping = trees.groups_csv(
        tmp_path / "g.csv", {one: f"s{i // 3}" for i, one in enumerate(ids)} | {"gone": "s9"}
    )
    found = discover("idc", tmp_path / "raw", groups=read_groups_csv(mapping))
    assert found.group_unit == "slide"
    assert (
        found.patches["group_id"].to_pylist()
        == found.patches["slide_id"].to_pylist()
        == ["s0"] * 3 + ["s1"] * 3
    )
    assert found.group_counts == {"s0": [2, 1], "s1": [1, 2]}
    assert any("1 patches that are not here" in text for text in found.warnings)


def test_unmapped_patches_are_rejected_or_become_groups_of_their_own(tmp_path):
    paths = trees.idc_tree(tmp_path / "raw", 2, 1)
    ids = [Path(path).stem for path in paths]
    mapping = trees.groups_csv(
        tmp_path / "g.csv", {ids[0]: "p", ids[1]: "p", ids[2]: ""}, ("patch_id", "patient")
    )
    found = discover("idc", tmp_path / "raw", groups=read_groups_csv(mapping))
    assert codes(found) == {"no_group": 2} and found.group_counts == {"p": [1, 1]}
    assert found.unmapped_groups == frozenset()

    found = discover("idc", tmp_path / "raw", groups=read_groups_csv(mapping), unmapped="train")
    assert not len(found.rejects)
    assert found.unmapped_groups == {f"unmapped:{ids[2]}", f"unmapped:{ids[3]}"}
    assert found.unmapped_groups < found.group_counts.keys()
    assert any("not provably patient-disjoint" in text for text in found.warnings)


def test_a_mapping_of_another_data_set_is_an_error(tmp_path):
    trees.idc_tree(tmp_path / "raw", 1, 1)
    mapping = read_groups_csv(trees.groups_csv(tmp_path / "g.csv", {"other": "p"}))
    with pytest.raises(UsageError, match="names none of the 2 patches.*9000_idx5"):
        discover("idc", tmp_path / "raw", groups=mapping)


def test_group_by_image(tmp_path):
    trees.idc_tree(tmp_path, 2, 1)
    found = discover("idc", tmp_path, group_by="image")
    assert found.group_unit == "image"
    assert found.patches["group_id"].to_pylist() == found.patches["patch_id"].to_pylist()
    assert any("not patient-clustered" in text for text in found.warnings)


def test_excluded_groups_are_rejected_but_stay_in_the_counts(tmp_path):
    trees.idc_tree(tmp_path, ["1", "2"], 1)
    found = discover("idc", tmp_path, exclude_groups=frozenset({"2", "77"}))
    assert codes(found) == {"excluded_group": 2}
    assert set(found.patches["group_id"].to_pylist()) == {"1"}
    assert found.group_counts == {"1": [1, 1], "2": [1, 1]}
    assert any("1 of 2 groups" in text for text in found.warnings)


def test_excluding_a_slide_where_patients_are_grouped_is_an_error(tmp_path):
    trees.breakhis_tree(tmp_path, {"A": ["14-22549AB", "14-1"]}, size=(7, 5))
    with pytest.raises(UsageError, match="slide of group '14-22549'"):
        discover("breakhis", tmp_path, exclude_groups=frozenset({"14-22549AB"}))


def test_cap_spreads_over_groups_and_the_rest_is_rejected(tmp_path):
    trees.idc_tree(tmp_path, 5, 4)
    found = discover("idc", tmp_path, max_per_class=7)
    assert codes(found) == {"over_cap": 26}
    rows = found.patches.to_pylist()
    taken = collections.Counter((row["label"], row["group_id"]) for row in rows)
    assert len(taken) == 10 and set(taken.values()) <= {1, 2}
    assert found.group_counts == {str(9000 + i): [4, 4] for i in range(5)}
    assert found.patches.equals(discover("idc", tmp_path, max_per_class=7).patches)
    assert not found.patches.equals(discover("idc", tmp_path, max_per_class=7, seed=1).patches)


def test_exclusion_comes_before_the_cap(tmp_path):
    trees.idc_tree(tmp_path, ["1", "2"], 3)
    found = discover("idc", tmp_path, max_per_class=3, exclude_groups=frozenset({"1"}))
    assert codes(found) == {"excluded_group": 6}


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=60),
    cap=st.integers(1, 20),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_cap_law(rows, cap, seed, data):
    def mask(order):
        table = pa.table(
            {
                "patch_id": [f"p{i}" for i in order],
                "group_id": [f"g{rows[i][1]}" for i in order],
                "label": pa.array([rows[i][0] for i in order], pa.int32()),
            }
        )
        return dict(zip(order, over_cap(table, cap, seed).tolist(), strict=True))

    over = mask(list(range(len(rows))))
    assert over == mask(data.draw(st.permutations(range(len(rows)))))
    for label in {label for label, _ in rows}:
        mine = [i for i, row in enumerate(rows) if row[0] == label]
        assert sum(not over[i] for i in mine) == min(cap, len(mine))
        kept = collections.Counter(rows[i][1] for i in mine if not over[i])
        held = collections.Counter(rows[i][1] for i in mine)
        # No group gives two more than another one that still has some left.
        short = [kept[group] for group in held if kept[group] < held[group]]
        assert not short or max(kept.values()) <= min(short) + 1


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "options", "patches", "groups", "by_label", "rejects"),
    [
        ("idc", {}, 5771, 165, [4231, 1540], {}),
        ("breakhis", {}, 80, 23, [36, 44], {}),
        ("breakhis", {"task": "subtype"}, 80, 23, [12, 12, 7, 5, 22, 5, 5, 12], {}),
        ("pcam", {"group_by": "image"}, 1446, 1446, [852, 594], {"unlabelled": 154}),
    ],
)
def test_real_subsets(shared_data, name, options, patches, groups, by_label, rejects):
    found = discover(name, shared_data / name, **options)
    assert len(found.patches) == patches and len(found.group_counts) == groups
    assert np.sum(list(found.group_counts.values()), axis=0).tolist() == by_label
    assert codes(found) == rejects
    assert found.ids_without_file == []


@pytest.mark.realdata
def test_real_breakhis_case_that_is_ductal_and_lobular(shared_data):
    found = discover("breakhis", shared_data / "breakhis", task="subtype")
    for group, kinds in {"14-13412": {"DC", "LC"}, "14-29960": {"A", "F"}, "14-21998": {"F", "PT"}}.items():
        rows = [row for row in found.patches.to_pylist() if row["group_id"] == group]
        assert {row["tumor_type"] for row in rows} == kinds
