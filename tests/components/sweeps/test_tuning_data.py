"""The sweep's code can't open the test split."""

from __future__ import annotations

import dataclasses

import pytest

from components.datasets.committed import DatasetFiles, open_dataset
from components.errors import UsageError
from components.sweeps.tuning_data import TuningFiles, open_tuning
from tests.support.training_help import dataset


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> DatasetFiles:
    return open_dataset(dataset(tmp_path_factory.mktemp("idc"), per_class=2))


@pytest.fixture(scope="module")
def tuning(whole: DatasetFiles) -> TuningFiles:
    return open_tuning(whole.folder)


def test_nobody_gets_at_the_test_split(tuning: TuningFiles) -> None:
    for ask in (
        lambda: tuning.splits["test"],
        lambda: tuning.manifest.splits["test"],
        lambda: tuning.manifest.shards("test"),
        lambda: tuning.groups("test"),
        lambda: tuning.groups("train", "eval", "test"),
    ):
        with pytest.raises(UsageError, match="can't open the test split"):
            ask()
    assert [split for split, _ in tuning.manifest.all_shards()] == ["train", "eval"]


def test_train_and_eval_are_as_they_were(tuning: TuningFiles, whole: DatasetFiles) -> None:
    assert dict(tuning.splits) == {name: whole.splits[name] for name in ("train", "eval")}
    assert tuning.groups("train", "eval") == whole.groups("train", "eval")
    same = ("plan_id", "content_digest", "manifest_digest", "classes", "stored_size")
    assert [getattr(tuning.manifest, f) for f in same] == [getattr(whole.manifest, f) for f in same]
    assert dataclasses.replace(tuning.manifest, splits={}) == dataclasses.replace(whole.manifest, splits={})
    with pytest.raises(KeyError):
        tuning.splits["tests"]
