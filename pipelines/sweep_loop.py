"""Runs the trials of a sweep one after the other, each in a process of its own, until none is left or time is spent.

A process for each trial: it frees memory and GPU, a trial whose process dies is a failed trial, and a trial is the same
whoever starts it. Several of these loops, on several machines too, may work on one sweep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core import json_documents
from components.core.text import number
from components.datasets import manifest as manifests
from components.errors import EXIT_TEMPORARY, TemporaryError
from components.storage.base import Storage
from components.sweeps import record as records
from components.sweeps import stopping
from components.sweeps.sweep_types import ADAPTIVE, SweepRecord, Trial, TrialFailure, TrialRecord
from components.sweeps.trial import resumable, seconds_left
from pipelines import live_sweep
from pipelines.live import duration
from pipelines.live_sweep import TITLES, SweepView
from pipelines.recipes import PRESETS_FOLDER
from pipelines.sweep_steps import PARENT

if TYPE_CHECKING:
    from components.sweeps.oracles import Asking

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 2.0
Log = Callable[[str], None]
Runner = Callable[[int], int]
"""Runs a trial by its number and gives its exit code."""


def run_trials(storage: Storage, folder: str, log: Log, runner: Runner | None = None) -> None:
    """Runs what is left of a sweep's trials.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        log: Told what happens, one line each.
        runner: Instead of a process for each trial.

    Raises:
        TemporaryError: A trial can't go on now (the disk is full, say); what is finished is kept.
    """
    with live_sweep.followed(log) as view:
        made = runner or _process_for(storage, folder, view.line if view else None)
        _Loop(storage, folder, view.log if view else log, made, view).run()


class _Loop:
    def __init__(
        self, storage: Storage, folder: str, log: Log, runner: Runner, view: SweepView | None = None
    ) -> None:
        self.storage, self.folder, self.log, self.runner, self.view = storage, folder, log, runner, view
        self._asking: Asking | None = None
        self._told = ""

    def run(self) -> None:
        """Takes trials that are free, waits for those that other processes work on."""
        while True:
            sweep = records.read(self.storage, self.folder)
            known = records.read_trials(self.storage, self.folder, sweep)
            if self.view is not None:
                self.view.update(sweep, known, time_left(sweep, known))
            if sweep.choice is not None:
                return
            if self._spent(sweep, known):
                self._cut(known)
                return
            waiting = [t.number for t in sweep.trials if t.number not in known or not known[t.number].over]
            waiting += [n for n, t in known.items() if t.over and resumable(t, known, sweep)]
            free = next((number for number in sorted(waiting) if self._is_free(number)), None)
            if free is not None:
                self._one(sweep, sweep.trials[free])
                continue
            drawn = self._draw(sweep) if sweep.search.oracle in ADAPTIVE else None
            if drawn is None and not waiting:
                return
            if drawn is None or drawn == "wait":
                self._say(f"waiting for trials of other processes: {', '.join(map(str, waiting))}")
                time.sleep(POLL_SECONDS)

    def _say(self, line: str) -> None:
        if line != self._told:
            self.log(line)
        self._told = line

    def _spent(self, sweep: SweepRecord, known: dict[int, TrialRecord]) -> bool:
        left = seconds_left(known, sweep)
        if left is None or left > 0:
            return False
        self.log(f"the budget of {sweep.search.minutes:g} minutes is spent")
        return True

    def _cut(self, known: dict[int, TrialRecord]) -> None:
        """Ends trials whose process was killed, and which the budget lets nobody go on with."""
        for trial in known.values():
            if trial.over:
                continue
            with contextlib.suppress(TemporaryError):  # another process works on it, and ends it after its epoch
                lock = records.trial_lock(self.storage, self.folder, trial.number, "histoline sweep cuts a trial", 0)
                with lock:
                    now = records.read_trial(self.storage, self.folder, trial.number)
                    if now is None or now.over:
                        continue
                    after = f"{now.epochs_run} of {now.epochs} epochs" if now.epochs else "its process was killed"
                    changes: dict[str, Any] = {
                        "state": "stopped", "ended": time.time(), "score": max(now.curve, default=None),
                        "reason": f"{stopping.BUDGET} after {after}.",
                    }  # fmt: skip
                    ended = dataclasses.replace(now, **changes)
                    records.write_trial(self.storage, self.folder, ended)
                    self.log(f"trial {trial.number}: {stopping.CUT}, {ended.reason}")

    def _is_free(self, number: int) -> bool:
        """Whether no other process works on a trial."""
        try:
            with records.trial_lock(self.storage, self.folder, number, "histoline sweep looks for work", 0):
                return True
        except TemporaryError:
            return False

    def _draw(self, sweep: SweepRecord) -> Trial | None | str:
        """Draws the next trial of a search that learns from results, and writes it down."""
        from components.sweeps import plan
        from components.sweeps.oracles import Asking

        self._asking = self._asking or Asking(sweep.search, sweep.metric)
        with records.lock(self.storage, self.folder, f"histoline sweep {sweep.dataset} {sweep.task}"):
            sweep = records.read(self.storage, self.folder)
            known = records.read_trials(self.storage, self.folder, sweep)
            ended = {n: trial for n, trial in known.items() if trial.over}
            manifest = manifests.load(self.storage, sweep.dataset_dir)
            drawn = plan.next_trial(sweep, ended, self._asking, manifest, PRESETS_FOLDER)
            if isinstance(drawn, Trial):
                records.update(self.storage, self.folder, trials=(*sweep.trials, drawn))
        return drawn

    def _one(self, sweep: SweepRecord, trial: Trial) -> None:
        drawn = ", ".join(f"{name}={value}" for name, value in trial.values.items())
        total = len(sweep.trials) if sweep.search.oracle not in ADAPTIVE else sweep.search.trials
        of = f" of {total}" if total else ""
        begun = records.read_trial(self.storage, self.folder, trial.number)
        verb = "goes on" if begun is not None or trial.continues is not None else "begins"
        if self.view is None:
            self.log(f"trial {trial.number}{of}, {trial.title}{f' with {drawn}' if drawn else ''}: {verb}")
        else:
            self.view.begin(trial)
        code = self.runner(trial.number)
        if self.view is not None:
            self.view.finish()
        found = records.read_trial(self.storage, self.folder, trial.number)
        if found is None or not found.over:
            if code == EXIT_TEMPORARY and not self._is_free(trial.number):
                return  # another process was faster
            if code == EXIT_TEMPORARY:
                raise TemporaryError(
                    f"Trial {trial.number} of sweep {sweep.sweep_id!r} can't go on now (see above).",
                    "Run the same command again with this --sweep-id; what is finished is kept.",
                )
            found = self._died(trial, found, code)
        if self.view is None or found.state != "done":  # the table has the rest
            self.log(progress(sweep, trial, found, records.read_trials(self.storage, self.folder, sweep)))

    def _died(self, trial: Trial, before: TrialRecord | None, code: int) -> TrialRecord:
        """Notes a trial whose process ended without a word."""
        how = f"was ended by signal {-code}, as where memory runs out" if code < 0 else f"ended with exit code {code}"
        moment = json_documents.now()
        made = before or TrialRecord(records.FORMAT, trial.number, "running", moment, moment)
        with records.trial_lock(self.storage, self.folder, trial.number, "histoline sweep notes a failure"):
            changes: dict[str, Any] = {"error": TrialFailure(code, f"Its process {how}."), "ended": time.time()}
            return records.write_trial(
                self.storage, self.folder, dataclasses.replace(made, state="failed", **changes)
            )


def progress(sweep: SweepRecord, trial: Trial, ended: TrialRecord, known: dict[int, TrialRecord]) -> str:
    """The line of a trial that has ended: its figure, the best so far, and about how long the rest takes.

    Args:
        sweep: sweep.json as it was when the trial began.
        trial: The trial.
        ended: What became of it.
        known: All trials that have begun, by number.
    """
    metric = TITLES[sweep.metric]
    head = f"trial {trial.number}, {trial.title}"
    if ended.error is not None:
        text = f"{head}: failed. {ended.error.message}"
    elif ended.state == "stopped":
        text = f"{head}: {metric} {number(ended.score)}, {stopping.outcome(ended)}: {ended.reason}"
    else:
        value = ended.figures[sweep.metric]
        limits = "" if value.get("low") is None else f" ({number(value['low'])} to {number(value['high'])})"
        text = f"{head}: {metric} {number(ended.score)}{limits} after {ended.epochs_run} epochs, {ended.seconds:.0f} s."
    done = [t for t in known.values() if t.state == "done" and t.score is not None]
    if done:
        best = max(done, key=lambda t: t.score or 0.0)
        text += f" Best so far: trial {best.number}, {metric} {number(best.score)}."
    rest = time_left(sweep, known)
    return text + (f" About {duration(rest)} left." if rest else "")


def time_left(sweep: SweepRecord, known: dict[int, TrialRecord]) -> float:
    """Seconds that are left, by the mean of the trials so far; 0 where none are, or nothing is known."""
    ended = [t.seconds for t in known.values() if t.over]
    total = sweep.search.trials or 0 if sweep.search.oracle in ADAPTIVE else len(sweep.trials)
    rest = max(0, total - len(ended)) * sum(ended) / len(ended) if ended else 0.0
    left = seconds_left(known, sweep)
    return max(0.0, rest if left is None else min(rest, left) if total else left)


def _process_for(storage: Storage, folder: str, line: Log | None) -> Runner:
    """Runs a trial as a process, whose stderr goes to ours or, line by line, to `line`."""
    _, dataset, task, sweep_id = folder.split("/")

    def run(number_: int) -> int:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), PARENT: str(os.getpid())}
        environment.pop("HISTOLINE_RESULT_JSON", None)
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        arguments = [
            dataset, "--task", task, "--workspace", storage.root, "--sweep-id", sweep_id, "--trial", str(number_),
            "--wait", "0",
        ]  # fmt: skip
        command = [sys.executable, "-W", "ignore", "-m", "pipelines.step", "sweep-trial", *arguments]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=None if line is None else subprocess.PIPE, text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                for said in process.stderr or ():
                    if line is not None:
                        line(said.rstrip("\n"))
                return process.wait()
            except BaseException:
                process.kill()
                raise

    return run

