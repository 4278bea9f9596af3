"""The sweep's code can't open the test split."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.datasets.committed import DatasetFiles, open_dataset
from components.errors import UsageError
from components.storage.open import open_storage
from components.sweeps import record, trial
from components.sweeps.sweep_types import Search, Trial
from components.sweeps.tuning_data import TuningFiles, open_tuning
from components.training.input_pipeline import open_split
from components.training.operating_point import split_groups
from tests.support.training_help import dataset, recipe


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
        lambda: tuning.table("test", ["patch_id"]),
        lambda: open_split(tuning, "test"),
        lambda: split_groups(tuning, "test"),
    ):
        with pytest.raises(UsageError, match="can't open the test split"):
            ask()
    assert [split for split, _ in tuning.manifest.all_shards()] == ["train", "eval"]


@pytest.mark.e2e
def test_a_trial_is_trained_and_scored_where_the_test_split_cannot_be_read(tmp_path: Path) -> None:
    """TuningFiles.folder leads to shards, sidecars and patches.parquet of all splits: none of test is read there."""
    folder = dataset(tmp_path, per_class=2)
    whole = open_dataset(folder)
    for shard in whole.manifest.shards("test"):
        for name in (whole.manifest.path("test", shard), whole.manifest.sidecar(shard)):
            (folder / name).write_bytes(b"\xff" * (folder / name).stat().st_size)
    table = pq.read_table(folder / "patches.parquet")
    tested = pc.equal(table["split"], "test")
    for column in ("group_id", "patch_id", "label_name"):
        changed = pc.if_else(tested, "SEEN", table[column].cast("string"))
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, changed.cast(table.schema.field(place).type))
    pq.write_table(table, folder / "patches.parquet")

    storage = open_storage(folder.parents[3])
    config = recipe(1, dataset="idc")
    trials = (Trial(0, "r", {}, config.to_dict(), config.digest()),)
    place = folder.relative_to(storage.root).as_posix()
    record.begin(storage, "sweeps/idc/binary/s", place, whole.manifest, Search("list", ("r",)), None, {}, trials)
    made = trial.run(storage, "sweeps/idc/binary/s", 0, log=lambda line: None)
    assert made.state == "done" and made.error is None and made.patches == whole.splits["eval"].count
    left = [file for file in Path(storage.root, "sweeps").rglob("*") if file.is_file()]
    assert len(left) > 5 and not [file for file in left if b"SEEN" in file.read_bytes()]


def test_train_and_eval_are_as_they_were(tuning: TuningFiles, whole: DatasetFiles) -> None:
    assert dict(tuning.splits) == {name: whole.splits[name] for name in ("train", "eval")}
    assert tuning.groups("train", "eval") == whole.groups("train", "eval")
    same = ("plan_id", "content_digest", "manifest_digest", "classes", "stored_size")
    assert [getattr(tuning.manifest, f) for f in same] == [getattr(whole.manifest, f) for f in same]
    assert dataclasses.replace(tuning.manifest, splits={}) == dataclasses.replace(whole.manifest, splits={})
    with pytest.raises(KeyError):
        tuning.splits["tests"]
