"""The loop over a sweep's trials: failures are noted, what is finished is not repeated, two loops share the work."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, TemporaryError, UsageError
from components.report import sweep_page
from components.storage.base import Storage
from components.storage.open import open_storage
from components.sweeps import conclude, record
from components.sweeps.sweep_types import Search, Trial, TrialFailure, TrialRecord
from components.sweeps.trial import resumable
from pipelines import step, sweep, sweep_loop, sweep_steps
from tests.support import manifests

FOLDER = "sweeps/idc/binary/one"


def begun(root: Path, count: int = 4, minutes: float | None = None) -> Storage:
    storage = open_storage(root)
    trials = tuple(Trial(n, f"recipe_{n}", {}, {"model": "cnn_105k"}, str(n)) for n in range(count))
    search = Search("list", tuple(trial.recipe for trial in trials), minutes=minutes)
    record.begin(storage, FOLDER, "datasets/idc/binary/x", manifests.manifest(), search, None, {}, trials)
    return storage


def end(storage: Storage, number: int, state: str = "done", seconds: float = 30.0, **more: object) -> None:
    figures = {"auc": {"estimate": 0.9 + number / 100, "low": 0.8, "high": 0.95}}
    made = TrialRecord(1, number, "done", "", "", ended=time.time(), seconds=seconds, score=0.9 + number / 100,
                       figures=figures, epochs_run=3)  # fmt: skip
    record.write_trial(storage, FOLDER, dataclasses.replace(made, state=state, **more))  # type: ignore[arg-type]


def test_a_line_per_trial_with_the_best_so_far_and_what_is_left(tmp_path: Path) -> None:
    storage, lines = begun(tmp_path, 3), list[str]()

    def runner(number: int) -> int:
        if number == 1:
            end(storage, 1, "failed", score=None, error=TrialFailure(65, "loss became nan."))
        else:
            end(storage, number)
        return 0

    sweep_loop.run_trials(storage, FOLDER, lines.append, runner)
    assert lines == [
        "trial 0 of 3, recipe_0: begins",
        "trial 0, recipe_0: AUC 0.900 (0.800 to 0.950) after 3 epochs, 30 s. Best so far: trial 0, AUC 0.900."
        " About 60 s left.",
        "trial 1 of 3, recipe_1: begins",
        "trial 1, recipe_1: failed. loss became nan. Best so far: trial 0, AUC 0.900. About 30 s left.",
        "trial 2 of 3, recipe_2: begins",
        "trial 2, recipe_2: AUC 0.920 (0.800 to 0.950) after 3 epochs, 30 s. Best so far: trial 2, AUC 0.920.",
    ]


def test_what_is_over_is_not_repeated_and_what_was_killed_goes_on(tmp_path: Path) -> None:
    storage, ran, lines = begun(tmp_path), list[int](), list[str]()
    end(storage, 0)
    record.write_trial(storage, FOLDER, TrialRecord(1, 1, "running", "", "", epochs_run=2))  # SIGKILL left it so

    def runner(number: int) -> int:
        ran.append(number)
        end(storage, number)
        return 0

    sweep_loop.run_trials(storage, FOLDER, lines.append, runner)
    assert ran == [1, 2, 3] and "trial 1 of 4, recipe_1: goes on" in lines
    sweep_loop.run_trials(storage, FOLDER, lines.append, runner)
    assert ran == [1, 2, 3]


def test_a_process_that_died_is_a_failed_trial_and_a_full_disk_ends_the_sweep(tmp_path: Path) -> None:
    storage = begun(tmp_path, 3)

    def runner(number: int) -> int:
        if number == 0:
            return -9
        if number == 1:
            return 75
        raise AssertionError

    with pytest.raises(TemporaryError, match="Trial 1 of sweep 'one' can't go on now"):
        sweep_loop.run_trials(storage, FOLDER, lambda line: None, runner)
    found = record.read_trials(storage, FOLDER, record.read(storage, FOLDER))
    assert list(found) == [0] and found[0].state == "failed"
    assert found[0].error is not None and "ended by signal 9" in found[0].error.message


def test_time_that_is_spent_ends_the_sweep_and_more_time_goes_on_with_it(tmp_path: Path) -> None:
    storage, ran = begun(tmp_path, 3, minutes=1), list[int]()

    def runner(number: int) -> int:
        ran.append(number)
        if len(ran) == 2:
            end(storage, number, "stopped", reason="the budget of time was spent after 2 of 9 epochs.")
        else:
            end(storage, number)
        return 0

    sweep_loop.run_trials(storage, FOLDER, lambda line: None, runner)
    assert ran == [0, 1]
    search = record.read(storage, FOLDER).search
    record.update(storage, FOLDER, search=dataclasses.replace(search, minutes=9))
    sweep_loop.run_trials(storage, FOLDER, lambda line: None, runner)
    assert ran == [0, 1, 1, 2]


def test_a_killed_trial_that_the_budget_lets_nobody_go_on_with_is_cut(tmp_path: Path) -> None:
    storage, lines = begun(tmp_path, 4, minutes=1), list[str]()
    end(storage, 0, seconds=61.0)
    for number in (1, 2):  # SIGKILL left the first so; on the second another process works
        trial = TrialRecord(1, number, "running", "", "", epochs_run=2, epochs=9, curve=(0.6, 0.7), seconds=1.0)
        record.write_trial(storage, FOLDER, trial)
    context: Any = multiprocessing.get_context("fork")
    locked, ready = context.Event(), context.Event()

    def other() -> None:
        with record.trial_lock(storage, FOLDER, 2, "another"):
            locked.set()
            ready.wait(60)

    process = context.Process(target=other)
    process.start()
    assert locked.wait(60)
    sweep_loop.run_trials(storage, FOLDER, lines.append, lambda number: 1 // 0)
    ready.set()
    process.join()
    found = record.read_trials(storage, FOLDER, record.read(storage, FOLDER))
    assert [found[number].state for number in found] == ["done", "stopped", "running"]
    assert (found[1].score, found[1].reason) == (0.7, "the budget of time was spent after 2 of 9 epochs.")
    assert "trial 1: cut by the budget, the budget of time was spent after 2 of 9 epochs." in lines
    told = sweep_steps.result(storage, FOLDER)["results"]
    assert [line["outcome"] for line in told] == ["done", "cut by the budget", "running", "not begun"]
    page = sweep_page.render(record.read(storage, FOLDER), found)
    assert "1 cut by the budget of 1 minutes" in page and "<td>cut by the budget</td>" in page
    # More time goes on with it.
    assert resumable(found[1], found, dataclasses.replace(record.read(storage, FOLDER), search=Search("list", ())))


def test_where_no_trial_was_trained_to_its_end_the_reasons_are_told(tmp_path: Path) -> None:
    storage = begun(tmp_path, 2, minutes=1)
    begun_ = record.read(storage, FOLDER)
    with pytest.raises(DataError, match="within 1 minutes.*more --minutes"):
        conclude.decide(storage, FOLDER, begun_, {})
    for number in (0, 1):
        end(storage, number, "failed", score=None, error=TrialFailure(65, "loss became nan."))
    with pytest.raises(DataError, match="All 2 trials of sweep 'one' failed. trial 0: loss became nan"):
        conclude.decide(storage, FOLDER, begun_, record.read_trials(storage, FOLDER, begun_))


def _work(root: Path, name: str) -> None:
    storage = open_storage(root)

    def runner(number: int) -> int:
        try:
            with record.trial_lock(storage, FOLDER, number, name, 0):
                if record.read_trial(storage, FOLDER, number) is None:
                    (root / f"{number}-{name}").touch(exist_ok=False)
                    time.sleep(0.15)
                    end(storage, number)
                return 0
        except TemporaryError:
            return 75

    sweep_loop.run_trials(storage, FOLDER, lambda line: None, runner)


def test_two_processes_work_on_one_sweep_and_no_trial_is_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_loop, "POLL_SECONDS", 0.05)
    begun(tmp_path, 8)
    fork: Callable[..., multiprocessing.Process] = multiprocessing.get_context("fork").Process  # type: ignore[assignment]
    workers = [fork(target=_work, args=(tmp_path, name)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    done = sorted(path.name for path in tmp_path.glob("?-?"))
    assert [name[0] for name in done] == list("01234567")
    assert {name[-1] for name in done} == {"a", "b"}


def test_wrong_usage_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["idc", "--workspace", str(tmp_path)]
    for arguments, message in (
        (["--oracle", "random"], "needs fields to search"),
        (["--recipes", "idc_cnn_105k", "--search", str(tmp_path / "none")], "can't be read"),
        ([], "holds no data set to train on"),
    ):
        with pytest.raises(UsageError, match=message):
            sweep.command.main([*given, *arguments], standalone_mode=False)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(UsageError, match="a trial trains on one machine"):
        sweep.command.main(given, standalone_mode=False)
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(UsageError, match="can't be planned as steps"):
        search = tmp_path / "search.yaml"
        search.write_text("fields: {seed: {choice: [1, 2]}}")
        plan = ["sweep-plan", *given, "--sweep-id", "s", "--search", str(search), "--oracle", "bayesian"]
        step.command.main(plan, standalone_mode=False)
