"""What of a run in a bucket goes there from its working folder, and what comes back on another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.datasets import manifest as manifests
from components.datasets.committed import stage
from components.errors import DataError
from components.storage.base import Storage
from components.storage.open import open_storage
from pipelines import remote_run
from pipelines.tfx.stage_nodes import StageNodes
from tests.support import gcs
from tests.support.report_help import Studio

pytestmark = pytest.mark.integration
RUN = "runs/idc/binary/a"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Storage]:
    with gcs.buckets(monkeypatch, tmp_path / "cache", "work"):
        yield open_storage("gs://work/w")


def trained(bucket: Storage, weights: str) -> Path:
    """A working folder as training leaves it."""
    folder = bucket.work_folder() / RUN
    for name, text in (
        ("model/saved_model.pb", "graph"), ("model/variables/v", weights), ("tensorboard/train/e", "1"),
        ("checkpoints/epoch-00001.npz", "c"),
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def names(bucket: Storage) -> list[str]:
    return [path.removeprefix(f"{RUN}/") for path, _ in bucket.list_files(RUN)]


def test_the_model_goes_up_once_and_comes_back_on_another_machine(
    bucket: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = trained(bucket, "first")
    remote_run.hand_over(bucket, RUN)
    assert names(bucket) == ["model/saved_model.pb", "model/variables/v", "tensorboard/train/e"]
    before = bucket.read_versioned(f"{RUN}/model/saved_model.pb")
    remote_run.hand_over(bucket, RUN)
    assert bucket.read_versioned(f"{RUN}/model/saved_model.pb") == before, "the same model was written twice"
    trained(bucket, "second")
    remote_run.hand_over(bucket, RUN)
    assert bucket.read_bytes(f"{RUN}/model/variables/v") == b"second"
    remote_run.clear(bucket, RUN)
    assert not folder.exists()
    monkeypatch.setenv("HISTOLINE_CACHE", str(tmp_path / "elsewhere"))
    remote_run.fetch_back(bucket, RUN)
    assert (bucket.work_folder() / RUN / "model/variables/v").read_text() == "second"
    (bucket.work_folder() / RUN / "model/variables/v").write_text("own")
    remote_run.fetch_back(bucket, RUN)
    assert (bucket.work_folder() / RUN / "model/variables/v").read_text() == "own", "this machine's own model was lost"


def test_in_a_local_workspace_nothing_moves(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    folder = trained(storage, "1")
    for act in (remote_run.hand_over, remote_run.fetch_back, remote_run.clear):
        act(storage, RUN)
    assert (folder / "checkpoints/epoch-00001.npz").is_file() and storage.work_folder() == tmp_path


def test_a_data_set_is_proved_by_its_manifest_where_it_is_fetched(bucket: Storage, evaluated: Studio) -> None:
    gcs.upload(evaluated.root / evaluated.dataset_dir, f"gs://work/w/{evaluated.dataset_dir}")
    manifest = manifests.load(bucket, evaluated.dataset_dir)
    folder = stage(bucket, evaluated.dataset_dir, manifest)
    shard = manifest.path("train", manifest.shards("train")[0])
    assert (folder / shard).read_bytes() == (evaluated.root / evaluated.dataset_dir / shard).read_bytes()
    other = bytearray((folder / shard).read_bytes())
    other[len(other) // 2] ^= 255
    bucket.write_atomic(f"{evaluated.dataset_dir}/{shard}", bytes(other))  # its CRC-32C is that of the damaged bytes
    with pytest.raises(DataError, match="is not what was committed"):
        stage(bucket, evaluated.dataset_dir, manifest)


def test_nodes_that_ran_on_another_machine_run_again_before_a_later_stage(bucket: Storage, tmp_path: Path) -> None:
    class Runner(set[str]):
        ran = {"Examples"}

        def has_run(self, name: str) -> bool:
            return name in self.ran

    nodes = {"validate": ("Raw", "Examples", "Gate"), "train": ("Trainer",), "evaluate": ("Evaluator", "Champion")}
    lines: list[str] = []
    made: Any = StageNodes(bucket, RUN, lines.append, None)
    made._runner = Runner({"Raw", "Examples", "Gate", "Trainer", "Evaluator"})
    assert made._missing("evaluate", nodes) == ["Raw", "Gate", "Trainer"]
    assert "another machine" in lines[0] and made._missing("validate", nodes) == []
    here: Any = StageNodes(open_storage(tmp_path), RUN, lines.append, None)
    assert here._missing("evaluate", nodes) == []
