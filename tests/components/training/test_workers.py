"""Two workers on this machine: the curve of one process, and a run that outlives a killed worker."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.errors import TemporaryError
from components.training import training_process, workers
from components.training.cluster import Cluster
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import EarlyStopping
from components.training.trainer import read_result, train
from tests.support import gcs, training_help

pytestmark = pytest.mark.timeout(600)


def test_the_parts_of_all_workers_are_the_batch() -> None:
    images, labels = np.arange(48).reshape(24, 2).astype(np.uint8), np.arange(24, dtype=np.int32) % 3
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(12)
    weights = {0: 1.0, 1: 0.5, 2: 2.0}
    parts = [list(workers.part_of(batches, weights, w, 2, 3).as_numpy_iterator()) for w in (0, 1)]
    assert [len(part) for part in parts] == [6, 6], "a piece for each of three replicas in each of two batches"
    for number in (0, 1):
        pieces = [piece for part in parts for piece in part[3 * number : 3 * number + 3]]
        together = [np.concatenate([piece[i] for piece in pieces]) for i in range(3)]
        expected = slice(12 * number, 12 * number + 12)
        assert np.array_equal(together[0], images[expected]) and np.array_equal(together[1], labels[expected])
        assert np.array_equal(together[2], [weights[label] for label in labels[expected]])
    assert len(next(iter(workers.part_of(batches, None, 0, 2, 1)))) == 2


def test_what_the_chief_has_arrives_as_it_is() -> None:
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    for data in (b"", b"odd", bytes(range(256)) * 3, None):
        assert workers.broadcast(strategy, data) == data
    assert workers.all_say(strategy, True) and not workers.all_say(strategy, False)


class Worker(threading.Thread):
    """One of two workers, each a process of its own."""

    def __init__(self, index: int, addresses: tuple[str, str], config: TrainingConfig, data: Path, run_dir: Path):
        super().__init__(daemon=True)  # a test that fails must not wait for it
        self.lines: list[str] = []
        self.error: BaseException | None = None
        self.killed = False
        self._work = (config, data, run_dir, Cluster(addresses, index))

    def run(self) -> None:
        try:
            training_process.train_apart(*self._work, log=self.lines.append, wanted=lambda: not self.killed)
        except BaseException as error:
            self.error = error


def both(config: TrainingConfig, data: Path, folder: Path) -> list[Worker]:
    """Starts chief and worker; the chief's run lies in `folder/chief`."""
    addresses = (f"127.0.0.1:{gcs.free_port()}", f"127.0.0.1:{gcs.free_port()}")
    made = [Worker(i, addresses, config, data, folder / name) for i, name in enumerate(("chief", "other"))]
    for worker in made:
        worker.start()
    return made


def curve_of_one_process(config: TrainingConfig, data: Path, folder: Path) -> None:
    """Asserts that the chief's run in `folder` has the figures that one process has with the same batch."""
    result, alone = read_result(folder / "chief"), train(config, data, folder / "alone")
    assert result is not None and result.epochs_run == alone.epochs_run
    for name in ("loss", "val_loss", "auc", "val_auc"):
        np.testing.assert_allclose(result.history[name], alone.history[name], rtol=0.02, atol=2e-3, err_msg=name)
    assert result.threshold == pytest.approx(alone.threshold, abs=0.05)
    assert not list((folder / "other").glob("*")), "only the chief writes"


@pytest.mark.e2e
def test_two_workers_outlive_a_kill_and_learn_as_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_process, "POLL_SECONDS", 0.1)
    data = training_help.dataset(tmp_path)
    given = {"class_weights": "balanced", "ema": 0.9, "early_stopping": EarlyStopping("val_loss", 8)}
    config = training_help.recipe(4, 4, batch_size=16, **given)
    chief, other = both(config, data, tmp_path)
    while other.is_alive() and not any(line.startswith("epoch 2/") for line in other.lines):
        other.join(0.05)
    other.killed = True
    for worker in (chief, other):
        worker.join(120)
        assert isinstance(worker.error, TemporaryError), (worker.lines, worker.error)
    done = sum(line.startswith("epoch ") for line in chief.lines)
    assert 2 <= done < 8 and not (tmp_path / "chief" / "model").exists()

    chief, other = both(config, data, tmp_path)
    for worker in (chief, other):
        worker.join(240)
        assert worker.error is None, (worker.lines, worker.error)
        assert f"going on after epoch {done} of 8" in worker.lines
    curve_of_one_process(config, data, tmp_path)


@pytest.mark.integration
def test_a_worker_that_never_comes_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_process, "POLL_SECONDS", 0.1)
    monkeypatch.setenv("HISTOLINE_JOIN_SECONDS", "2")
    data = training_help.dataset(tmp_path)
    addresses = (f"127.0.0.1:{gcs.free_port()}", f"127.0.0.1:{gcs.free_port()}")
    worker = Worker(0, addresses, training_help.recipe(1), data, tmp_path / "chief")
    worker.start()
    worker.join(120)
    assert isinstance(worker.error, TemporaryError) and "in vain" in str(worker.error), (worker.lines, worker.error)
