"""A random split of the same patches: as large, class by class, of everybody, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from components.datasets.committed import DatasetFiles, open_dataset
from components.datasets.fold_view import all_rows
from components.datasets.random_view import split_at_random
from schemas.tables import SPLITS
from tests.support import ingest_help, model_help


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetFiles:
    root = tmp_path_factory.mktemp("random")
    return open_dataset(ingest_help.ingest(model_help.idc(root / "raw", 16, 3), root / "w").folder)


def ids(view: DatasetFiles, split: str) -> list[str]:
    return list(view.table(split, ["patch_id"])["patch_id"].to_pylist())


def test_every_patch_once_in_splits_of_the_same_size(data: DatasetFiles) -> None:
    view = split_at_random(data, 1)
    dealt = [name for split in SPLITS for name in ids(view, split)]
    assert sorted(dealt) == sorted(all_rows(data, ["patch_id"])["patch_id"].to_pylist())
    for split in SPLITS:
        assert view.splits[split].by_class == data.splits[split].by_class
        labels = view.table(split, ["label"])["label"].to_numpy()
        assert tuple(np.bincount(labels, minlength=2)) == data.splits[split].by_class
        assert sum(len(offsets) for offsets in view.splits[split].offsets) == view.splits[split].count


def test_patients_are_shared_which_is_the_point(data: DatasetFiles) -> None:
    assert not set(data.groups("train")) & set(data.groups("test"))
    view = split_at_random(data, 1)
    assert len(set(view.groups("train")) & set(view.groups("test"))) > 3
    assert not set(ids(view, "train")) & set(ids(view, "test"))


def test_the_seed_decides(data: DatasetFiles) -> None:
    first, again, other = (split_at_random(data, seed) for seed in (1, 1, 2))
    assert ids(first, "test") == ids(again, "test") and first.part == again.part
    assert ids(first, "test") != ids(other, "test") and first.part != other.part != ""
