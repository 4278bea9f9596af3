from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.datasets.committed import DatasetFiles, open_dataset
from components.errors import DataError, UsageError
from components.training.input_pipeline import Reader, epoch_order, open_split
from tests.support import ingest_help, trees


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("idc")
    trees.idc_tree(home / "raw", 15, 4)
    return ingest_help.ingest(home / "raw", home / "ws", shard_mb=1).folder


@pytest.fixture(scope="module")
def data(folder: Path) -> DatasetFiles:
    return open_dataset(folder)


def keys(reader: Reader, batch: int, epochs: range, seed: int = 3, balanced: bool = False) -> list[list[bytes]]:
    """Epochs as lists of images (their first pixels tell them apart)."""
    seen = [
        (images.numpy()[:, 0, :4].tobytes(), labels)
        for images, labels in reader.training(batch, seed, epochs=epochs, balanced=balanced)
    ]
    steps = reader.steps(batch)
    assert len(seen) == steps * len(epochs)
    flat = [[blob[i : i + 12] for i in range(0, len(blob), 12)] for blob, _ in seen]
    return [[key for batch in flat[e * steps : (e + 1) * steps] for key in batch] for e in range(len(epochs))]


@pytest.mark.parametrize("cache", [True, False])
def test_every_image_comes_in_every_epoch_each_time_in_another_order(data: DatasetFiles, cache: bool) -> None:
    reader = open_split(data, "train", cache=cache)
    first, second = keys(reader, 4, range(2))
    assert sorted(set(first)) == sorted(set(second)) and first != second
    assert len(set(first)) == reader.split.count == len(first)  # 4 divides the count


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("balanced", [True, False])
def test_an_epoch_can_be_taken_up_anywhere(data: DatasetFiles, cache: bool, balanced: bool) -> None:
    reader = open_split(data, "train", cache=cache)
    whole = keys(reader, 5, range(3), balanced=balanced)
    assert keys(reader, 5, range(2, 3), balanced=balanced) == whole[2:]
    assert keys(reader, 5, range(2, 3), seed=4, balanced=balanced) != whole[2:]


@pytest.mark.parametrize("cache", [True, False])
def test_both_ways_read_the_same_pixels_and_labels(data: DatasetFiles, folder: Path, cache: bool) -> None:
    wanted = {}
    for split, example in ingest_help.examples(folder).values():
        if split == "eval":
            wanted[example["image/raw"]] = example["label"]
    batches = list(open_split(data, "eval", cache=cache).evaluation(3))
    got = {i.numpy().tobytes(): int(n) for images, labels in batches for i, n in zip(images, labels, strict=True)}
    assert got == wanted


@pytest.mark.parametrize("cache", [True, False])
def test_all_training_batches_are_full(data: DatasetFiles, cache: bool) -> None:
    reader = open_split(data, "train", cache=cache)
    for batch in (7, reader.split.count + 5):
        sizes = [len(labels) for _, labels in reader.training(batch, 0, epochs=range(1))]
        assert sizes == [batch] * reader.steps(batch)


@pytest.mark.parametrize("cache", [True, False])
def test_balanced_draws(data: DatasetFiles, folder: Path, cache: bool) -> None:
    reader = open_split(data, "train", cache=cache)
    labels = np.concatenate([y.numpy() for _, y in reader.training(8, 0, epochs=range(1), balanced=True)])
    assert np.bincount(labels).tolist() == [len(labels) // 2] * 2


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(0, 2**31 - 1),
    st.integers(0, 9),
)
def test_law_of_the_order(labels: list[int], batch: int, seed: int, epoch: int) -> None:
    given_labels = np.array(labels, np.int32)
    plain = epoch_order(given_labels, seed, epoch, batch)
    assert len(plain) % batch == 0 and 0 <= len(plain) - len(labels) < batch
    assert sorted(plain[: len(labels)]) == list(range(len(labels)))
    even = epoch_order(given_labels, seed, epoch, batch, balanced=True)
    assert len(even) == len(plain)
    per_class = np.bincount(given_labels[even], minlength=4)[np.unique(given_labels)]
    assert per_class.max() - per_class.min() <= 1
    for label in np.unique(given_labels):
        drawn = np.bincount(even, minlength=len(labels))[given_labels == label]
        assert drawn.max() - drawn.min() <= 1
    np.testing.assert_array_equal(even, epoch_order(given_labels, seed, epoch, batch, balanced=True))


def test_only_what_the_manifest_names_is_read(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / folder.name
    shutil.copytree(folder, copy)
    shards = sorted((copy / "Split-train").iterdir())
    shutil.copy(shards[0], copy / "Split-train" / "train-99999-of-99999.tfrecord")
    assert [p for p in open_dataset(copy).splits["train"].shards] == shards


def test_a_shard_of_another_size_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    shard = sorted((copy / "Split-eval").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="bytes instead of"):
        open_dataset(copy)
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        open_dataset(copy)


def test_a_damaged_record_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    shard = sorted((copy / "Split-train").iterdir())[0]
    broken = bytearray(shard.read_bytes())
    broken[500] ^= 1
    shard.write_bytes(broken)
    with pytest.raises(DataError, match="can't be read"):
        open_split(open_dataset(copy), "train", cache=True)


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a committed data set"):
        open_dataset(tmp_path / "none")


def test_facts(data: DatasetFiles, folder: Path) -> None:
    splits = json.loads((folder / "splits.json").read_text())["splits"]
    assert data.groups("train", "eval") == sorted(g for g, s in splits.items() if s != "test")
    assert data.stored_size == data.source_size == (50, 50) and data.label_region is None
    assert data.splits["train"].count == data.manifest.splits["train"].patches


@pytest.mark.parametrize("factor", [1, 3])
def test_the_label_region_in_stored_pixels_is_rounded_outwards(data: DatasetFiles, factor: int) -> None:
    size = (96 // factor, 96 // factor)
    manifest = dataclasses.replace(
        data.manifest, source_size=(96, 96), label_region=(32, 32, 32, 32), stored_size=size
    )
    region = DatasetFiles(data.folder, manifest, data.splits).label_region
    assert region == ((32, 32, 32, 32) if factor == 1 else (10, 10, 12, 12))


def test_encoded_data_sets_are_read_too(tmp_path: Path) -> None:
    trees.idc_tree(tmp_path / "raw", 10, 2)
    trees.write_images(tmp_path / "raw", [trees.idc_path("9000", 0, 901, 101)], (44, 50))  # at a slide's edge
    made = [
        ingest_help.ingest(tmp_path / "raw", tmp_path / f"ws_{kind}", image_format=kind).folder
        for kind in ("raw", "encoded")
    ]
    readers = (open_split(open_dataset(folder), "train", cache=True) for folder in made)
    raw, encoded = ({image.tobytes() for image in np.asarray(reader.images)} for reader in readers)
    assert raw == encoded and len(raw) > 10
