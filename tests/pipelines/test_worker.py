"""Workers other than the chief: they follow the chief's run.json, and take neither lock nor decision."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, TemporaryError
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training import run_record
from components.training.cluster import Cluster
from pipelines import worker
from tests.support import training_help
from tests.support.cli_help import invoke
from tests.support.report_help import Studio

OTHER = Cluster(("a:1", "b:2"), 1)


@pytest.fixture
def run(evaluated: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Storage, str]:
    """A workspace in which the run `good` waits to be trained again."""
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("HISTOLINE_JOIN_SECONDS", "5")
    storage = open_storage(shutil.copytree(evaluated.root, tmp_path / "w"))
    folder = "runs/idc/binary/good"
    run_record.update(storage, folder, config=json.loads(training_help.recipe(1).to_json()))
    return storage, folder


def state(run: tuple[Storage, str], state: str, **changes: Any) -> None:
    storage, folder = run
    entry = {"state": state, "started": "2026-11-25T00:00:00+00:00", "ended": None, "seconds": None, "inputs": ""}
    run_record.update(storage, folder, stages={"train": entry}, **changes)


def test_a_worker_trains_when_the_chief_does_and_ends_when_it_has(
    run: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state(run, "failed")
    seen: list[Any] = []

    def trains(config: Any, data: Path, scratch: Path, cluster: Cluster, *, log: Any, wanted: Any) -> None:
        seen.append((data.name, cluster, wanted()))
        threading.Timer(0.2, state, (run, "done")).start()

    monkeypatch.setattr(worker, "train_apart", trains)
    threading.Timer(0.2, state, (run, "running")).start()
    lines: list[str] = []
    record = worker.join(*run, OTHER, lines.append)
    assert seen == [(record.plan_id, OTHER, True)]
    assert record.stages["train"].state == "done" and lines[-1] == "train: done"
    worker.join(*run, OTHER, lines.append)
    assert len(seen) == 1 and "trained already" in lines[-1]


def test_a_worker_ends_as_the_chief_did(run: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **given: Any) -> None:
        state(run, "failed", error={"stage": "train", "exit_code": 65, "message": "loss became nan."})
        raise TemporaryError("Another worker is gone.")

    state(run, "running")
    monkeypatch.setattr(worker, "train_apart", fails)
    with pytest.raises(DataError, match="loss became nan"):
        worker.join(*run, OTHER, lambda line: None)
    state(run, "running")
    monkeypatch.setattr(worker, "train_apart", lambda *args, **given: (_ for _ in ()).throw(TemporaryError("Gone.")))
    with pytest.raises(TemporaryError, match="Gone"):
        worker.join(*run, OTHER, lambda line: None)


def test_a_chief_that_never_trains_is_not_waited_for_for_ever(
    run: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state(run, "failed")
    monkeypatch.setenv("HISTOLINE_JOIN_SECONDS", "0.1")
    begun = time.monotonic()
    with pytest.raises(TemporaryError, match="did not get so far"):
        worker.join(*run, OTHER, lambda line: None)
    assert time.monotonic() - begun < 5


def test_commands_of_a_worker(run: tuple[Storage, str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TF_CONFIG", OTHER.to_text())
    args = ("idc", "--workspace", run[0].root)
    assert invoke("train", *args) == 64 and "--run-id" in capsys.readouterr().err
    assert invoke("step", "evaluate", *args, "--run-id", "good") == 0
    assert "nothing to do for worker 1 of 2" in capsys.readouterr().out
    for text in (OTHER.to_text(), dataclasses.replace(OTHER, index=0).to_text()):
        monkeypatch.setenv("TF_CONFIG", text)
        assert invoke("step", "train", *args, "--run-id", "good", "--fold", "1") == 64
        assert "a fold is trained on one machine" in capsys.readouterr().err
    monkeypatch.setenv("TF_CONFIG", OTHER.to_text())
    state(run, "done")
    for command in (("train", *args), ("step", "train", *args)):
        assert invoke(*command, "--run-id", "good") == 0, capsys.readouterr().err
