from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.datasets.committed import DatasetFiles, open_dataset
from components.training.class_cap import round_robin
from components.training.input_pipeline import open_split
from components.training.recipe_parts import ClassCap
from tests.support import ingest_help, trees


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), st.integers(1, 60), st.integers(0, 9))
def test_no_group_gives_many_more_than_another(groups: list[int], count: int, seed: int) -> None:
    of = np.array(groups)
    drawn = round_robin(np.arange(len(of)), of, count, np.random.default_rng(seed))
    assert len(set(drawn.tolist())) == len(drawn) == min(count, len(of))
    taken, held = np.bincount(of[drawn], minlength=6), np.bincount(of, minlength=6)
    most = taken.max()
    assert all(taken[g] >= min(held[g], most - 1) for g in range(6)), "who has more to give gives it"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetFiles:
    home = tmp_path_factory.mktemp("idc")
    trees.idc_tree(home / "raw", 12, 4)
    return open_dataset(ingest_help.ingest(home / "raw", home / "ws").folder)


def epoch(data: DatasetFiles, number: int, cache: bool, redraw: str = "epoch", seed: int = 3) -> list[bytes]:
    reader = open_split(data, "train", cache=cache, cap=ClassCap(7, redraw))
    assert reader.by_class == (7, 7) and reader.steps(4) == 4
    batches = list(reader.training(4, seed, epochs=range(number, number + 1)))
    labels = np.concatenate([y.numpy() for _, y in batches])
    assert len(labels) == 16 and np.bincount(labels[:14]).tolist() == [7, 7]
    return [image.tobytes() for x, _ in batches for image in x.numpy()]


def test_an_epoch_takes_so_many_of_each_class_and_another_epoch_others(data: DatasetFiles) -> None:
    first, second = epoch(data, 0, True), epoch(data, 1, True)
    assert len(set(first)) == 14 and set(first) != set(second)
    assert first == epoch(data, 0, True) != epoch(data, 0, True, seed=4), "a run that resumes draws the same"
    assert second == epoch(data, 1, False), "read by place it is the same as from memory"


def test_drawn_once_it_stays(data: DatasetFiles) -> None:
    first, second = epoch(data, 0, True, "never"), epoch(data, 1, True, "never")
    assert set(first) == set(second) and first != second


def test_eval_is_left_alone_and_few_patches_are_all_taken(data: DatasetFiles, tmp_path: Path) -> None:
    counts = data.splits["train"].by_class
    assert open_split(data, "train", cache=True, cap=ClassCap(10_000)).by_class == counts
    assert open_split(data, "train", cache=True, cap=ClassCap()).capped is None
    assert open_split(data, "eval", cache=True).by_class == data.splits["eval"].by_class
