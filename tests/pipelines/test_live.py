"""What a person sees on a terminal while a run or a sweep works, and what is left of it when it is stopped."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.sweeps.sweep_types import Search
from components.training.epoch_line import EpochFacts
from pipelines import live
from pipelines.live_run import RunView
from pipelines.live_sweep import SweepView
from tests.support import sweep_help

ROOT = Path(__file__).resolve().parents[2]


def seen(view: Any, width: int = 110) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(view.draw())
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def line(number: int, of: int, auc: float, seconds: float = 2.0) -> str:
    figures = {"loss": 0.5, "auc": 0.8, "accuracy": 0.7, "val_loss": 0.4, "val_auc": auc, "val_accuracy": 0.7}
    return EpochFacts(number, of, figures, seconds, 900.0, 1e-3).to_line()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def view(capsys: pytest.CaptureFixture[str]) -> RunView:
    past = {"validate": 10.0, "train": 60.0, "evaluate": 20.0, "push": 1.0, "report": 2.0}
    made = RunView("val_auc", past, now=Clock())
    made.screen.print = lambda text: print(text)  # type: ignore[method-assign]
    return made


def test_epochs_the_best_of_them_and_the_time_left(view: RunView, capsys: pytest.CaptureFixture[str]) -> None:
    view.stage("validate", "running")
    assert seen(view) == ["▸ validate 0 s   · train   · evaluate   · push   · report", "about 2 min left"]
    view._now.now = 8.0  # type: ignore[attr-defined]
    view.stage("validate", "done")
    view.stage("train", "running")
    for said in ("train: begins", line(1, 4, 0.8), "phase 1/1: 4 epochs", line(2, 4, 0.9), line(3, 4, 0.85)):
        view.log(said)
    assert seen(view) == [
        "epoch  train loss  eval loss  eval AUC   time",
        "  1/4      0.5000     0.4000    0.8000  2.0 s",
        "  2/4      0.5000     0.4000    0.9000  2.0 s  ← best",
        "  3/4      0.5000     0.4000    0.8500  2.0 s",
        "✓ validate 8 s   ▸ train 0 s   · evaluate   · push   · report",
        "about 25 s left at most",
    ]
    assert capsys.readouterr().out == "phase 1/1: 4 epochs\n", "what is no epoch goes above"
    view.log("features: 1,000 of 5,000 patches, about 9 s left")
    assert "about 25 s left" in seen(view)[-1], "epochs know better"
    assert "features: 1,000 of 5,000 patches, about 9 s left" in seen(view)
    view.fail()
    view.end()
    assert seen(view)[-1] == "✓ validate 8 s   ✗ train 0 s   · evaluate   · push   · report"


def test_many_epochs_scroll_and_the_best_stays(view: RunView) -> None:
    view.stage("train", "running")
    for number in range(1, 61):
        view.log(line(number, 100, 0.99 if number == 2 else 0.5))
    shown = seen(view)
    assert len(shown) <= view.screen.rows + 3
    assert shown[1].lstrip().startswith("2/100") and shown[1].endswith("← best") and shown[2].strip() == "..."
    assert shown[-3].lstrip().startswith("60/100")
    view.end()
    assert len(seen(view)) == 62, "what stays on the terminal is whole"


def test_folds_have_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    made = RunView("", {}, folds=3, now=Clock())
    made.stage("train", "running")
    for said in (line(1, 2, 0.7), line(2, 2, 0.8)):
        made.log(f"fold 1/3: {said}")
    made.log(f"fold 2/3: {line(1, 2, 0.6)}")
    made.log(line(1, 5, 0.9))
    assert seen(made)[:-2] == [
        "fold  epoch  best eval AUC  of epoch  training",
        " 1/3    2/2         0.8000         2       4 s",
        " 2/3    1/2         0.6000         1       2 s",
        " all    1/5         0.9000         1       2 s",
    ]
    assert seen(made)[-1] == "about 8 s left, not counting evaluate, push, report"


def test_a_sweep_shows_its_trials_and_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    sweep, known = sweep_help.sweep()
    made = SweepView(now=(clock := Clock()))
    assert seen(made) == []
    sweep = dataclasses.replace(sweep, search=Search("list", ("idc_lite0",)))
    made.update(sweep, known, left=300.0)
    made.begin(sweep.trials[8])
    made.line(line(3, 8, 0.777))
    clock.now = 60.0
    shown = seen(made, 160)
    assert re.match(r" *0  idc_lite0 .* done +8/8  0\.\d+  3 min  ← best$", shown[1])
    assert "ended early" in shown[6] and "failed" in shown[7] and "trains elsewhere" in shown[8]
    assert re.match(r" *8  .* trains +3/8  0\.777 +60 s$", shown[9])
    assert re.fullmatch(r"7 of 9 trials   best: trial 0, AUC 0\.\d+   about 4 min left", shown[10])
    made.finish()
    made.end()
    assert "left" not in seen(made, 160)[-1]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89.0, "89 s"), (91.0, "2 min"), (3540.0, "59 min"), (4800.0, "1 h 20 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert live.duration(seconds) == said


WORKS = """
import sys, time
from types import SimpleNamespace
from components.storage.open import open_storage
from pipelines import console
from pipelines.live_run import followed
config = SimpleNamespace(early_stopping=SimpleNamespace(monitor="val_auc"), decision="split", folds=0,
                         making_digest=lambda: "", model="m")
def work():
    with followed(open_storage(sys.argv[1]), "runs/idc/binary/one", config) as (log, told):
        told("train", "running")
        log("first line")
        log(sys.argv[2])
        time.sleep(30)
sys.exit(console.run(work))
"""


def at_terminal(workspace: Path, number: signal.Signals, **environ: str) -> tuple[int, str, bool]:
    """Exit code, what was seen, and whether the terminal's modes are as before, of work that a signal ended."""
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKS, str(workspace), line(1, 4, 0.8)], cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environ}, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    text, deadline = "", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            text += os.read(ours, 65536).decode("utf-8", "replace")
        if "0.8000" in text and process.poll() is None:
            process.send_signal(number)
            break
    process.wait(timeout=30)
    while select.select([ours], [], [], 0.2)[0]:
        text += os.read(ours, 65536).decode("utf-8", "replace")
    same = termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
    return process.returncode, text, same


def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    code, text, same = at_terminal(tmp_path, signal.SIGINT)
    assert code == 130 and same
    assert "first line" in text and "eval AUC" in text and "✗ train" in text
    assert text.rindex("Interrupted.") > text.rindex("✗ train")
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "the cursor is there"


def test_a_killed_command_leaves_the_cursor(tmp_path: Path) -> None:
    code, text, same = at_terminal(tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL and same and "eval AUC" in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"HISTOLINE_LOG_FORMAT": "json"}])
def test_where_nothing_can_be_drawn_lines_are_plain(tmp_path: Path, environ: dict[str, str]) -> None:
    code, text, _ = at_terminal(tmp_path, signal.SIGINT, **environ)
    assert code == 130
    assert "first line" in text and "epoch 1/4  loss 0.5000" in text and "\x1b" not in text
