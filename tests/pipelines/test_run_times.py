"""How long a run still takes: by its epochs, by its folds, by the runs before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.storage.open import open_storage
from components.training import run_record
from components.training.epoch_line import EpochFacts
from components.training.recipe import TrainingConfig
from components.training.run_types import STAGES, StageEntry
from pipelines.run_times import TrainingClock, past_seconds, run_left
from tests.support import manifests


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def epoch(number: int, of: int = 10, seconds: float = 4.0, fold: int = 0) -> EpochFacts:
    return EpochFacts(number, of, {"loss": 0.5}, seconds, 100.0, 1e-3, fold=fold, folds=3 if fold else 0)


def test_epochs_that_are_left_at_the_pace_of_the_last_ones() -> None:
    time = Clock()
    clock = TrainingClock(time)
    assert clock.left() is None
    clock.add(epoch(1, seconds=30.0))  # the first compiles
    for number in range(2, 6):
        clock.add(epoch(number))
    assert clock.left() == 5 * 4.0
    time.now += 3.0
    assert clock.left() == 5 * 4.0 - 3.0
    time.now += 1000.0
    assert clock.left() == 0.0


def test_what_training_says_itself_counts_while_there_are_no_epochs() -> None:
    time = Clock()
    clock = TrainingClock(time)
    clock.expect(70.0)
    time.now += 20.0
    assert clock.left() == 50.0
    time.now += 60.0
    assert clock.left() == 0.0


def test_folds_that_are_left_take_as_long_as_those_before() -> None:
    time = Clock()
    clock = TrainingClock(time)
    clock.enter_fold(1)
    clock.add(epoch(1, of=4, fold=1))
    assert clock.left(3) == 3 * 4.0 + 2 * 4 * 4.0
    time.now += 50.0
    clock.enter_fold(2)
    assert clock.left(3) == 2 * 50.0
    clock.add(epoch(2, of=4, fold=2))
    clock.enter_fold(2)
    assert clock.left(3) == 2 * 4.0 + 50.0


PAST = {"validate": 10.0, "train": 100.0, "evaluate": 20.0, "push": 1.0, "report": 2.0}


@pytest.mark.parametrize(
    ("past", "running", "elapsed", "training", "expected"),
    [
        (PAST, "validate", 4.0, None, (6.0 + 123.0, [])),
        (PAST, "train", 30.0, None, (70.0 + 23.0, [])),
        (PAST, "train", 30.0, 5.0, (5.0 + 23.0, [])),
        (PAST, "evaluate", 90.0, None, (3.0, [])),
        ({}, "train", 3.0, 8.0, (8.0, ["evaluate", "push", "report"])),
        ({"report": 2.0}, "push", 0.0, None, (2.0, ["push"])),
    ],
)
def test_the_rest_of_a_run(
    past: dict[str, float], running: str, elapsed: float, training: float | None, expected: tuple[float, list[str]]
) -> None:
    assert run_left(STAGES, past, running, elapsed, training) == expected


def test_earlier_runs_of_the_recipe_tell_before_those_of_the_model_and_those_before_any(tmp_path: Path) -> None:
    storage, home = open_storage(tmp_path), "runs/idc/binary"
    config = TrainingConfig(model="cnn_105k")
    assert past_seconds(storage, home, config) == {}

    def run(
        name: str, model: str, recipe: str, train: float, evaluate: float, decision: str | None = "refused"
    ) -> None:
        folder = f"{home}/{name}"
        run_record.create(
            storage, folder, config={"model": model}, dataset_dir="datasets/idc/binary/x",
            manifest=manifests.manifest(), digests={"recipe": recipe},
        )  # fmt: skip
        entries = {n: StageEntry("done", "", "", s) for n, s in (("train", train), ("evaluate", evaluate))}
        run_record.update(storage, folder, state="done", decision=decision, stages=entries)

    run("a", "resnet50", "r", 900.0, 90.0)
    assert past_seconds(storage, home, config) == {"evaluate": 90.0}, "another model trains at another pace"
    run("b", "cnn_105k", "other", 100.0, 10.0)
    run("c", "cnn_105k", "other", 300.0, 30.0)
    run("d", "cnn_105k", "other", 9.0, 9.0, decision="unchanged")
    (tmp_path / home / "e").mkdir()
    assert past_seconds(storage, home, config) == {"train": 200.0, "evaluate": 20.0}
    run("f", "cnn_105k", config.making_digest(), 50.0, 5.0)
    assert past_seconds(storage, home, config) == {"train": 50.0, "evaluate": 5.0}
