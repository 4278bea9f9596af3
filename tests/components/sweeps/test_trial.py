"""What becomes of a trial that fails, is ended early, or meets a full disk; training itself is faked here."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.datasets.committed import open_dataset
from components.errors import DataError, TemporaryError, UsageError
from components.storage.base import Storage
from components.storage.open import open_storage
from components.sweeps import record, trial
from components.sweeps.sweep_types import Search, Trial, TrialRecord
from components.sweeps.tuning_data import TuningFiles
from components.training import trainer
from components.training.checkpoints import Position
from tests.support.training_help import dataset, recipe

FOLDER = "sweeps/idc/binary/s"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("idc"), per_class=2)


@pytest.fixture
def begun(folder: Path, request: pytest.FixtureRequest) -> tuple[Storage, str]:
    """A workspace and a sweep of two trials of the test's own."""
    storage = open_storage(folder.parents[3])
    home = f"{FOLDER}-{abs(hash(request.node.name))}"
    config = recipe(4, dataset="idc")
    trials = tuple(Trial(n, "r", {}, config.to_dict(), config.digest()) for n in range(2))
    place = folder.relative_to(storage.root).as_posix()
    search = Search("list", ("r",), minutes=5)
    record.begin(storage, home, place, open_dataset(folder).manifest, search, None, {}, trials)
    return storage, home


def fake(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, curve: tuple[float, ...] = ()
) -> list[Any]:
    seen: list[Any] = []

    def train(config: Any, data: Any, run_dir: Path, *, log: Any, watch: Callable[..., None]) -> Any:
        seen.append(data)
        for epoch in range(len(curve)):
            watch(Position("", epoch=epoch + 1, history={"val_auc": list(curve[: epoch + 1])}), 4)
        if error is not None:
            raise error
        raise AssertionError("the fake has no model to give")

    monkeypatch.setattr(trainer, "train", train)
    return seen


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("loss became nan.", "Lower the rate."), 65, "loss became nan. Lower the rate."),
        (UsageError("batch_size is 3, which 2 devices can't share evenly."), 64, "can't share evenly"),
        (MemoryError("no room"), 70, "MemoryError: no room"),
    ],
)
def test_what_the_recipe_is_to_blame_for_is_noted(
    begun: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, message: str
) -> None:
    seen = fake(monkeypatch, error, (0.6, 0.7))
    made = trial.run(*begun, 0, log=lambda line: None)
    assert made.state == "failed" and made.error is not None and made.error.exit_code == code
    assert message in made.error.message and made.epochs_run == 2 and made.curve == (0.6, 0.7)
    assert isinstance(seen[0], TuningFiles)  # the test split is out of its reach
    # It is over: nobody tries it again.
    assert trial.run(*begun, 0, log=lambda line: None) == made and len(seen) == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), TemporaryError("The disk is full while writing x.")]
)
def test_a_full_disk_is_not_the_recipes_fault(
    begun: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fake(monkeypatch, error)
    with pytest.raises(TemporaryError, match="disk is full"):
        trial.run(*begun, 0, log=lambda line: None)
    left = record.read_trial(*begun, 0)
    assert left is not None and left.state == "running"  # so that it goes on


def test_a_spent_budget_ends_a_trial_after_its_epoch_and_more_time_goes_on(
    begun: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, home = begun
    spent = TrialRecord(1, 1, "done", "", "", seconds=5 * 60, ended=1.0)
    record.write_trial(storage, home, spent)
    seen = fake(monkeypatch, None, (0.6, 0.8, 0.7))
    made = trial.run(storage, home, 0, log=lambda line: None)
    assert (made.state, made.epochs_run, made.score) == ("stopped", 1, 0.6)
    assert made.reason == "the budget of time was spent after 1 of 4 epochs."
    assert trial.run(storage, home, 0, log=lambda line: None).epochs_run == 1 and len(seen) == 1
    sweep = record.read(storage, home)
    record.update(storage, home, search=dataclasses.replace(sweep.search, minutes=60))
    went_on = trial.run(storage, home, 0, log=lambda line: None)
    assert len(seen) == 2 and went_on.epochs_run == 3 and went_on.seconds >= made.seconds


def test_a_trial_that_another_process_works_on_is_not_begun(
    begun: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, home = begun
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()

    def hold() -> None:
        with record.trial_lock(storage, home, 0, "somebody else"):
            held.set()
            done.wait(30)

    other = context.Process(target=hold)
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(TemporaryError, match="somebody else"):
            trial.run(storage, home, 0, log=lambda line: None, wait_seconds=0)
    finally:
        done.set()
        other.join(30)
