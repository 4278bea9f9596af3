"""Policies on identical pixels, and pairs that only look alike."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.datasets.duplicates import Rows, near_duplicates, resolve
from schemas.tables import SPLITS


def rows(*items: tuple[str, int, int] | tuple[str, int, int, bool]) -> Rows:
    """(split, label, pixels[, constant]) each; patch ids p0, p1, ..."""
    ids = pa.chunked_array([pa.array([f"p{i:03}" for i in range(len(items))])])
    return Rows(
        patch_id=ids,
        path=ids,
        split=np.array([SPLITS.index(i[0]) for i in items], np.int8),
        label=np.array([i[1] for i in items], np.int32),
        pixel_hash=np.array([[i[2] // 7, i[2]] for i in items], np.uint64).reshape(-1, 2),
        constant=np.array([len(i) > 3 and i[3] for i in items], bool),
    )


def dropped(*items, **policies) -> dict[int, str]:
    return {d.row: d.code for d in resolve(rows(*items), **policies).drops}


def test_no_copies_no_drops():
    assert dropped(("train", 0, 1), ("test", 0, 2)) == {}
    assert dropped() == {}


def test_the_copy_in_train_stays_then_test_then_eval():
    assert dropped(("eval", 0, 1), ("train", 0, 1), ("test", 0, 1)) == {0: "duplicate", 2: "duplicate"}
    assert dropped(("eval", 0, 1), ("test", 0, 1)) == {0: "duplicate"}


def test_copies_within_one_split_and_label_all_stay():
    found = resolve(rows(("train", 0, 1), ("train", 0, 1), ("train", 0, 1)))
    assert found.drops == [] and found.within_split == 2
    assert dropped(("train", 0, 1), ("train", 0, 1), ("test", 0, 1)) == {2: "duplicate"}


def test_two_labels_reject_all_copies_wherever_they_stand():
    assert set(dropped(("train", 0, 1), ("train", 1, 1), ("test", 1, 1))) == {0, 1, 2}
    detail = resolve(rows(("train", 0, 1), ("test", 1, 1))).drops[0].detail
    assert "p001" in detail and "label 1" in detail


def test_blank_images_are_exempt():
    found = resolve(rows(("train", 0, 1, True), ("test", 1, 1, True)))
    assert found.drops == [] and found.blank_copies == 1


def test_fail_names_the_files():
    found = resolve(rows(("train", 0, 1), ("test", 0, 1), ("train", 0, 2), ("eval", 1, 2)), "fail", "fail")
    assert len(found.violations) == 2
    assert "p000 (train)" in found.violations[0] and "p003 (label 1)" in found.violations[1]


def test_unknown_policies_are_refused():
    with pytest.raises(ValueError):
        resolve(rows(), "keep-test")


items = st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 1), st.integers(0, 6), st.booleans()), max_size=30)


@given(items)
def test_what_is_left_obeys_the_rule_and_nothing_more_is_taken(given_items):
    table = rows(*given_items)
    blank = {int(p) for p in table.pixel_hash[:, 1][table.constant]}
    given_items = [(s, y, p, p in blank) for s, y, p, _ in given_items]  # equal pixels are equally blank
    gone = dropped(*given_items)
    left: dict[int, set[tuple[str, int]]] = {}
    for number, (split, label, pixels, constant) in enumerate(given_items):
        if number not in gone and not constant:
            left.setdefault(pixels, set()).add((split, label))
    assert all(len(places) == 1 for places in left.values())
    for number in gone:
        _, _, pixels, constant = given_items[number]
        assert not constant and len({(s, y) for s, y, p, _ in given_items if p == pixels}) > 1


def test_a_second_look_after_the_drops_takes_nothing_more():
    first = [("train", 0, 1), ("eval", 0, 1), ("train", 0, 2), ("test", 1, 2), ("test", 0, 3)]
    gone = dropped(*first)
    assert dropped(*[item for number, item in enumerate(first) if number not in gone]) == {}


def near(hashes, splits, rgb=None, tissue=None):
    n = len(hashes)
    rgb = np.zeros((n, 3), np.float32) if rgb is None else np.array(rgb, np.float32)
    tissue = np.ones(n, np.float32) if tissue is None else np.array(tissue, np.float32)
    split = np.array([SPLITS.index(s) for s in splits], np.int8)
    pairs, crowded = near_duplicates(np.array(hashes, np.uint64), split, rgb, tissue)
    return pairs.tolist(), crowded


def test_near_pairs_are_found_within_two_bits_and_across_splits_only():
    base = 0x0123456789ABCDEF
    hashes = [base, base ^ (1 << 63) ^ 1, base ^ 0b111, base]
    assert near(hashes, ["train", "test", "test", "train"])[0] == [[0, 1], [1, 3]]


def test_other_colours_or_too_little_tissue_are_no_pair():
    assert near([5, 5], ["train", "test"], rgb=[[0, 0, 0], [0, 9, 0]])[0] == []
    assert near([5, 5], ["train", "test"], tissue=[1, 0.1])[0] == []
    assert near([], [])[0] == []


def test_plain_textures_are_passed_over_and_said():
    pairs, crowded = near([7] * 80, ["train", "test"] * 40)
    assert pairs == [] and crowded


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from(SPLITS)), min_size=2, max_size=25), st.randoms())
def test_near_pairs_equal_a_plain_search(given_rows, random):
    hashes = [h for h, _ in given_rows]
    for i in range(1, len(hashes)):
        if random.random() < 0.5:  # plant neighbours at 0 to 3 bits
            hashes[i] = hashes[random.randrange(i)] ^ sum(
                {1 << random.randrange(64) for _ in range(random.randrange(4))}
            )
    splits = [s for _, s in given_rows]
    plain = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if splits[i] != splits[j] and bin(hashes[i] ^ hashes[j]).count("1") <= 2
    ]
    assert near(hashes, splits)[0] == plain
