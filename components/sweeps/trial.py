"""One trial of a sweep: a recipe is trained, and scored by patient; safe to repeat, also after SIGKILL."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

from components.core import json_documents
from components.datasets import manifest as manifests
from components.datasets.committed import stage
from components.errors import HistolineError, TemporaryError, UsageError
from components.storage.base import HeldLock, Storage
from components.sweeps import record as records
from components.sweeps import scoring, stopping
from components.sweeps.sweep_types import SweepRecord, Trial, TrialFailure, TrialRecord
from components.sweeps.tuning_data import TuningFiles, open_tuning
from components.training.recipe import TrainingConfig
from components.training.source_digest import source_digest

Log = Callable[[str], None]


def run(storage: Storage, folder: str, number: int, *, log: Log, wait_seconds: float = 60) -> TrialRecord:
    """Trains and scores a trial, goes on with it, or finds that it is over.

    What goes wrong with the recipe is noted in trial.json; the sweep goes on.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        number: Of the trial.
        log: Takes progress, a line at a time.
        wait_seconds: For another process that works on the trial.

    Raises:
        UsageError: There is no such trial.
        TemporaryError: Another process works on it, or the disk is full: to be tried again.
    """
    sweep = records.read(storage, folder)
    trial = _trial(sweep, number)
    owner = f"histoline step sweep-trial {sweep.sweep_id} {number}"
    with records.trial_lock(storage, folder, number, owner, wait_seconds) as held:
        before = records.read_trial(storage, folder, number)
        known = records.read_trials(storage, folder, sweep)
        if before is not None and before.over and not resumable(before, known, sweep):
            log(f"trial {number}: nothing to do, {before.state}")
            return before
        return _Work(storage, folder, sweep, trial, before, held, log).run()


def resumable(trial: TrialRecord, all_trials: dict[int, TrialRecord], sweep: SweepRecord) -> bool:
    """Whether a trial that the budget ended may go on: the sweep has more time by now."""
    left = seconds_left(all_trials, sweep)
    return stopping.was_cut(trial) and (left is None or left > 0)


def seconds_left(all_trials: dict[int, TrialRecord], sweep: SweepRecord) -> float | None:
    """What the budget has left; None where there is none."""
    if sweep.search.minutes is None:
        return None
    return sweep.search.minutes * 60 - sum(trial.seconds for trial in all_trials.values())


def _trial(sweep: SweepRecord, number: int) -> Trial:
    if not 0 <= number < len(sweep.trials):
        raise UsageError(
            f"Sweep {sweep.sweep_id!r} has no trial {number}; it has {len(sweep.trials)}, counted from 0.",
            "Give a number that sweep-plan named.",
        )
    return sweep.trials[number]


class _Work:
    """A trial under its lock."""

    def __init__(
        self, storage: Storage, folder: str, sweep: SweepRecord, trial: Trial, before: TrialRecord | None,
        held: HeldLock, log: Log,
    ) -> None:  # fmt: skip
        self.storage, self.folder, self.sweep, self.trial = storage, folder, sweep, trial
        self.held, self.log = held, log
        self.started, self.spent = time.monotonic(), before.seconds if before else 0.0
        moment = json_documents.now()
        self.record = TrialRecord(
            format=records.FORMAT, number=trial.number, state="running", started=before.started if before else moment,
            updated=moment, seconds=self.spent,
        )  # fmt: skip

    def run(self) -> TrialRecord:
        """Works; whatever the recipe is to blame for is noted."""
        # What is wrong with the data set is wrong for all trials: only the recipe's own troubles are noted.
        manifest = manifests.load(self.storage, self.sweep.dataset_dir)
        data = open_tuning(stage(self.storage, self.sweep.dataset_dir, manifest))
        self._note()
        try:
            return self._end("done", **self._train(data))
        except stopping.EndedEarly as stop:
            return self._end("stopped", score=max(self.record.curve, default=None), reason=f"{stop}.")
        except TemporaryError:
            raise
        except Exception as error:
            if "No space left on device" in str(error):  # of Python or TensorFlow
                raise TemporaryError(
                    f"The disk is full: {self.storage.uri(self.folder)} can't be written to.",
                    "Free space and run again; finished trials and epochs are kept.",
                ) from error
            code = error.exit_code if isinstance(error, HistolineError) else HistolineError.exit_code
            message = str(error) if isinstance(error, HistolineError) else f"{type(error).__name__}: {error}"
            self.log(f"trial {self.trial.number} failed: {message}")
            return self._end("failed", error=TrialFailure(code, message[:2000]))

    def _note(self, **changes: Any) -> None:
        seconds = round(self.spent + time.monotonic() - self.started, 3)
        self.record = records.write_trial(
            self.storage, self.folder, dataclasses.replace(self.record, seconds=seconds, **changes)
        )

    def _end(self, state: str, **changes: Any) -> TrialRecord:
        self.held.check()
        self._note(state=state, ended=time.time(), **changes)
        return self.record

    def _train(self, data: TuningFiles) -> dict[str, Any]:
        """What trial.json says of a trial that was trained to its end."""
        from components.training.trainer import run_key, train

        sweep = self.sweep
        config = TrainingConfig.from_dict(dict(self.trial.config))
        origin = self.trial.number if self.trial.continues is None else self.trial.continues
        work = self.storage.work_folder() / records.trial_dir(self.folder, origin)
        self.record = dataclasses.replace(
            self.record, run_key=run_key(config, data), source_digest=source_digest()
        )
        watched = f"val_{sweep.metric}"
        if sweep.folds is not None:
            from components.sweeps import fold_trial
            from components.training.fold_plan import read_folds

            folds = read_folds(self.storage, self.folder)
            folded = fold_trial.train(config, data, folds, work, watched, self._look(whole=False), self.log)
            scored = scoring.of_folds(folded.table, folded.probability, folded.centred)
            found: dict[str, Any] = {name: getattr(folded, name) for name in ("curve", "parameters", "pixels")}
            found["epochs_run"] = folded.epochs
        else:
            look = self._look(whole=True)
            result = train(
                config, data, work, log=self.log,
                watch=lambda position, epochs: look(position.history.get(watched, [0.0]), epochs),
            )  # fmt: skip
            scored = scoring.of_model(result.model_dir, data, result.threshold)
            found = {name: getattr(result, name) for name in ("epochs_run", "parameters", "pixels")}
            found |= {"curve": tuple(result.history.get(watched, ())), "milliseconds": scored.milliseconds}
        self._keep(scored)
        return {
            **found, "score": scored.figures[sweep.metric]["estimate"], "figures": scored.figures,
            "patches": len(scored.probability), "groups": len(set(scored.table["group_id"].to_pylist())),
            "epochs": max(found["epochs_run"], self.record.epochs),
        }  # fmt: skip

    def _look(self, *, whole: bool) -> stopping.Look:
        """What looks at the trial after each epoch; the curve of a fold is no curve of the trial."""
        sweep = self.sweep
        others = records.read_trials(self.storage, self.folder, sweep)
        others.pop(self.trial.number, None)
        left = seconds_left(others, sweep)

        def note(curve: Sequence[float], epochs: int) -> None:
            self._note(curve=tuple(curve) if whole else (), epochs_run=len(curve), epochs=epochs)

        return stopping.watch(
            finished=lambda: list(records.read_trials(self.storage, self.folder, sweep).values()) if whole else [],
            metric=sweep.metric,
            rung=self.trial.epochs,
            seconds_left=None if left is None else left - self.spent,
            note=note,
        )

    def _keep(self, scored: scoring.Scored) -> None:
        """Writes the probabilities of the patches that trials are compared on."""
        import pyarrow.parquet as pq

        from components.promotion.prediction_tables import predictions_table

        count = len(scored.table)
        columns = {name: scored.table[name] for name in ("patch_id", "group_id")}
        columns |= {"slide_id": [""] * count, "split": ["eval"] * count, "label": scored.table["label"].to_numpy()}
        name = f"{self.sweep.sweep_id}/{self.trial.number}"
        table = predictions_table(columns, scored.probability, name, len(self.sweep.classes))
        out = io.BytesIO()
        pq.write_table(table, out, compression="zstd")
        home = records.trial_dir(self.folder, self.trial.number)
        self.storage.write_atomic(f"{home}/{records.PREDICTIONS}", out.getvalue(), tmp_dir=f"{home}/.tmp")
