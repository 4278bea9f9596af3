"""A fold is read from the shards of all splits: the same records as a copy of the fold would hold, and no others."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from components.datasets.committed import DatasetFiles, open_dataset
from components.datasets.fold_view import RegroupedFiles, regroup
from components.datasets.tfrecord import CorruptRecord, read_chosen, read_records
from components.training import stain_statistics, trainer
from components.training.image_graph import ImageSize
from components.training.input_pipeline import open_split
from components.training.operating_point import eval_groups
from components.training.recipe_parts import ClassCap
from tests.support import training_help
from tests.support.training_help import recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetFiles:
    return open_dataset(training_help.dataset(tmp_path_factory.mktemp("idc"), 24, 5, shard_mb=1))


@pytest.fixture(scope="module")
def view(data: DatasetFiles) -> RegroupedFiles:
    """Every group somewhere else than it was: what was train is test, and so on; one takes no part."""
    turned = {"train": "test", "eval": "train", "test": "eval"}
    split_of = {group: turned[split] for split in turned for group in data.groups(split)}
    split_of[data.groups("train")[1]] = "train"
    split_of.pop(data.groups("train")[2])
    return regroup(data, split_of)


def images(data: DatasetFiles, split: str, cache: bool) -> list[bytes]:
    return [image.tobytes() for x, _ in open_split(data, split, cache=cache).evaluation(5) for image in x.numpy()]


def test_each_split_holds_the_patches_of_its_groups_and_no_others(data: DatasetFiles, view: RegroupedFiles) -> None:
    assert view.groups("test") == sorted({*data.groups("train")[:1], *data.groups("train")[3:]})
    assert view.groups("train", "eval") == sorted({*data.groups("eval", "test"), data.groups("train")[1]})
    for split in ("train", "eval", "test"):
        rows = view.table(split, ["group_id", "label"])
        assert len(rows) == view.splits[split].count
        assert np.bincount(rows["label"].to_numpy(), minlength=2).tolist() == list(view.splits[split].by_class)
    assert sum(split.count for split in view.splits.values()) < sum(split.count for split in data.splits.values())


def test_from_memory_and_streamed_it_reads_the_same_records_in_the_order_of_its_table(
    data: DatasetFiles, view: RegroupedFiles
) -> None:
    everything = {}
    for split in data.splits:
        hashes = data.table(split, ["patch_id"])["patch_id"].to_pylist()
        everything.update(zip(hashes, images(data, split, True), strict=True))
    for split in view.splits:
        wanted = [everything[name] for name in view.table(split, ["patch_id"])["patch_id"].to_pylist()]
        assert images(view, split, True) == wanted == images(view, split, False)


def test_a_streamed_epoch_holds_each_training_record_once(view: RegroupedFiles) -> None:
    epoch = list(open_split(view, "train", cache=False).training(1, 3, epochs=range(1)))
    assert sorted(x.numpy().tobytes() for x, _ in epoch) == sorted(images(view, "train", True))


def test_caps_statistics_and_groups_follow_the_view(view: RegroupedFiles) -> None:
    capped = open_split(view, "train", cache=False, cap=ClassCap(3)).capped
    assert capped is not None and capped.by_class == (3, 3) and len(capped.records) == view.splits["train"].count
    place = next(iter(capped.members(0, 0)))
    assert capped.read(np.array([place]))[0]
    labels = view.table("eval", ["label"])["label"].to_numpy()
    assert sorted(set(eval_groups(view, labels))) == view.groups("eval")
    size = ImageSize(view.source_size, view.stored_size)
    sampled = np.concatenate(list(stain_statistics._sample(view.splits["eval"], view.image_format, size)))
    assert len(sampled) == view.splits["eval"].count, "the records of the fold, not the first of the shards"


def test_a_fold_is_another_training_than_the_split(data: DatasetFiles, view: RegroupedFiles) -> None:
    keys = {trainer.run_key(recipe(), each) for each in (data, view, regroup(data, {}))}
    assert len(keys) == 3


def test_only_records_are_picked(data: DatasetFiles, tmp_path: Path) -> None:
    shard = data.splits["train"].shards[0]
    whole = list(read_records(shard))
    assert list(read_chosen(shard, [offset for offset, _ in whole[::2]])) == whole[::2]
    with pytest.raises(CorruptRecord):
        list(read_chosen(shard, [whole[1][0] + 1]))
    with pytest.raises(ValueError):
        list(read_chosen(shard, [shard.stat().st_size + 1]))
