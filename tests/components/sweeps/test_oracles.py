"""keras-tuner's oracles: seeded, and after an interruption as if nothing had been."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from components.sweeps import plan
from components.sweeps.sweep_types import Field, Oracle, Search, SweepRecord, Trial, TrialRecord
from pipelines.recipes import PRESETS_FOLDER
from tests.support import manifests

pytestmark = pytest.mark.integration

MANIFEST = manifests.manifest()
FIELDS = (
    Field("phases.0.learning_rate", "float", low=1e-4, high=1e-1, log=True),
    Field("batch_size", "int", low=16, high=64, step=16),
    Field("label_smoothing", "choice", choices=("0", "0.05", "0.1")),
)
RECIPES = ("idc_cnn_105k", "idc_simple_cnn")


def search(oracle: Oracle, **given: object) -> Search:
    return dataclasses.replace(Search(oracle, RECIPES, FIELDS), **given)  # type: ignore[arg-type]


def asking(given: Search) -> object:
    from components.sweeps.oracles import Asking

    return Asking(given, "auc")


def sweep(given: Search, trials: tuple[Trial, ...]) -> SweepRecord:
    return SweepRecord(
        1, "", "s", "idc", "binary", "", "", "running", "", "", "", "", "patient", ("a", "b"), "auc", None, {}, given,
        trials,
    )  # fmt: skip


def score(trial: Trial) -> float:
    return float(trial.config["phases"][0]["learning_rate"]) + int(trial.config["batch_size"]) / 100


def drawn(given: Search, count: int, anew_at: Callable[[int], bool] = lambda n: False) -> list[Trial]:
    """The first trials of a search, one after the other; at some of them the process begins anew."""
    trials: tuple[Trial, ...] = ()
    ended: dict[int, TrialRecord] = {}
    oracle = asking(given)
    for number in range(count):
        if anew_at(number):
            oracle = asking(given)
        found = plan.next_trial(sweep(given, trials), ended, oracle, MANIFEST, PRESETS_FOLDER)  # type: ignore[arg-type]
        if found is None:
            break
        assert isinstance(found, Trial)
        trials = (*trials, found)
        ended[number] = TrialRecord(1, number, "failed" if number == 1 else "done", "", "", ended=number + 1.0,
                                    score=None if number == 1 else score(found))  # fmt: skip
    return list(trials)


def test_random_trials_follow_from_the_seed_and_lie_within_their_ends() -> None:
    first = plan.known_trials(search("random", trials=6, seed=0), MANIFEST, PRESETS_FOLDER)
    assert first == plan.known_trials(search("random", trials=6, seed=0), MANIFEST, PRESETS_FOLDER)
    other = plan.known_trials(search("random", trials=6, seed=1), MANIFEST, PRESETS_FOLDER)
    assert len(first) == len(other) == 6 and first != other
    for trial in (*first, *other):
        assert 1e-4 <= trial.config["phases"][0]["learning_rate"] <= 1e-1
        assert trial.config["batch_size"] in (16, 32, 48, 64)
        assert trial.config["label_smoothing"] in (0, 0.05, 0.1)
    assert {trial.recipe for trial in (*first, *other)} == set(RECIPES)


@pytest.mark.parametrize(("oracle", "fields", "trials"), [("bayesian", FIELDS[:1], 6), ("hyperband", FIELDS, 12)])
def test_a_search_that_learns_goes_on_after_a_kill_as_if_nothing_had_been(
    oracle: Oracle, fields: tuple[Field, ...], trials: int
) -> None:
    given = search(oracle, recipes=RECIPES[:1], fields=fields, trials=trials, seed=3)
    whole = drawn(given, trials + 2)  # no more than were asked for
    assert len(whole) == trials and whole == drawn(given, trials, anew_at=lambda number: number == trials - 1)
    assert whole[:2] != drawn(dataclasses.replace(given, seed=4), 2)


def test_hyperband_gives_the_better_ones_more_epochs_and_goes_on_in_their_folder() -> None:
    given = search("hyperband", recipes=RECIPES[:1], seed=3)
    trials = drawn(given, 12)
    total = sum(phase["epochs"] for phase in trials[0].config["phases"])
    rungs = trials[:9]
    assert {(trial.epochs, trial.continues) for trial in rungs} == {(max(1, round(total / 9)), None)}
    further = [trial for trial in trials if trial.continues is not None]
    best = sorted(rungs, key=lambda trial: -score(trial) if trial.number != 1 else 9)[:3]
    assert further and {trial.continues for trial in further} <= {trial.number for trial in best}
    for trial in further:
        assert trial.continues is not None and trial.config == trials[trial.continues].config
        assert trial.epochs == round(total / 3)


def test_what_another_process_drew_is_told_too() -> None:
    given = search("bayesian", recipes=RECIPES[:1], trials=9, seed=3)
    alone = drawn(given, 6)
    oracle = asking(given)
    ended: dict[int, TrialRecord] = {}
    for trial in alone[:5]:
        ended[trial.number] = TrialRecord(1, trial.number, "failed" if trial.number == 1 else "done", "", "",
                                          ended=trial.number + 1.0, score=score(trial))  # fmt: skip
        # This process has drawn nothing itself so far.
    found = plan.next_trial(sweep(given, tuple(alone[:5])), ended, oracle, MANIFEST, PRESETS_FOLDER)  # type: ignore[arg-type]
    assert found == alone[5]
