"""`histoline ensemble`: whom it names as members, and what it refuses before anything is loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from components.errors import UsageError
from components.sweeps import record as records
from pipelines import ensemble
from tests.support.report_help import Studio


def call(studio: Studio, *words: str) -> Any:
    done = CliRunner().invoke(ensemble.command, ["idc", *words, "--workspace", str(studio.root)])
    assert isinstance(done.exception, UsageError), done.output
    return str(done.exception)


def test_what_can_not_be_averaged_is_told_at_once(evaluated: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "two different runs" in call(evaluated, "good")
    assert "Name either runs or a --sweep" in call(evaluated)
    assert "Name either runs or a --sweep" in call(evaluated, "good", "poor", "--sweep", "s1")
    assert "There is no sweep" in call(evaluated, "--sweep", "s1")
    assert "There is no run 'lost'" in call(evaluated, "lost", "poor")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    assert "an ensemble needs one" in call(evaluated, "good", "poor")


def test_the_best_trials_of_a_sweep(evaluated: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = {
        number: SimpleNamespace(state=state, score=score)
        for number, (state, score) in enumerate(
            [("done", 0.8), ("stopped", 0.99), ("done", 0.9), ("failed", None), ("done", 0.9), ("done", None)]
        )
    }
    monkeypatch.setattr(records, "read", lambda storage, folder: folder)
    monkeypatch.setattr(records, "read_trials", lambda storage, folder, sweep: trials)
    best = ensemble.best_trials
    assert best(evaluated.storage, "idc", "binary", "s1", 2) == ("s1/2", "s1/4")
    assert best(evaluated.storage, "idc", "binary", "s1", 9) == ("s1/2", "s1/4", "s1/0")
    del trials[2], trials[4]
    with pytest.raises(UsageError, match="has 1 trained trials"):
        best(evaluated.storage, "idc", "binary", "s1", 3)
