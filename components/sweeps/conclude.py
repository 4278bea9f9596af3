"""The end of a sweep: its finished trials side by side, the choice, and the winner's recipe as a file."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping

import numpy as np
import yaml

from components.core import json_documents
from components.core.array_types import Array
from components.errors import DataError
from components.metrics.bootstrap import BootstrapPlan
from components.promotion.prediction_tables import probability_values
from components.storage.base import Storage
from components.sweeps import record as records
from components.sweeps.choice import Candidate, choose, rank
from components.sweeps.sweep_types import Choice, SweepRecord, Trial, TrialRecord


@dataclasses.dataclass(frozen=True)
class EvalPredictions:
    """What a trial said of the patches that trials are compared on.

    Attributes:
        patch_id: [N] str.
        labels: Class numbers, [N].
        groups: Group of each patch, [N] str.
        probability: P(positive) [N], or [N, C].
    """

    patch_id: Array
    labels: Array
    groups: Array
    probability: Array


def read_predictions(storage: Storage, folder: str, number: int) -> EvalPredictions:
    """Reads a finished trial's probabilities.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        number: Of the trial.
    """
    import pyarrow.parquet as pq

    path = f"{records.trial_dir(folder, number)}/{records.PREDICTIONS}"
    table = pq.read_table(io.BytesIO(storage.read_bytes(path)))
    names = [np.array(table[name].to_pylist(), object).astype(str) for name in ("patch_id", "group_id")]
    return EvalPredictions(names[0], table["label"].to_numpy(), names[1], probability_values(table["probability"]))


def decide(storage: Storage, folder: str, sweep: SweepRecord, trials: Mapping[int, TrialRecord]) -> Choice:
    """Compares the trials that were trained to their end, and chooses one.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        sweep: sweep.json.
        trials: trial.json by number.

    Raises:
        DataError: No trial was trained to its end.
    """
    done = [trial for trial in sweep.trials if trial.number in trials and trials[trial.number].state == "done"]
    if not done:
        raise DataError(*_nothing(sweep, trials))
    predicted = [read_predictions(storage, folder, trial.number) for trial in done]
    first = predicted[0]
    if any(not np.array_equal(first.patch_id, other.patch_id) for other in predicted[1:]):
        raise DataError(
            f"The trials of sweep {sweep.sweep_id!r} were scored on different patches.", "Start a new sweep."
        )
    candidates = [
        Candidate(t.number, t.title, p.probability, trials[t.number].parameters or 0, trials[t.number].pixels or 0)
        for t, p in zip(done, predicted)
    ]
    plan = BootstrapPlan(pool=len(sweep.classes) > 2)
    return choose(rank(first.labels, first.groups, candidates, plan), sweep.group_unit, sweep.where)


def _nothing(sweep: SweepRecord, trials: Mapping[int, TrialRecord]) -> tuple[str, str]:
    """What is said where no trial was trained to its end, and what to do."""
    failed = [t for t in trials.values() if t.state == "failed" and t.error]
    if failed and len(failed) == len(sweep.trials):
        reasons = dict.fromkeys(f"trial {t.number}: {t.error.message}" for t in failed if t.error)
        shown = " ".join(list(reasons)[:3])
        return f"All {len(failed)} trials of sweep {sweep.sweep_id!r} failed. {shown}", "Change recipes or machine."
    if sweep.search.minutes is not None:
        return (
            f"No trial of sweep {sweep.sweep_id!r} was trained to its end within {sweep.search.minutes:g} minutes.",
            "Run the same command with more --minutes: it goes on where it stopped.",
        )
    return f"No trial of sweep {sweep.sweep_id!r} was trained to its end.", "Run its trials first."


def winner_title(sweep: SweepRecord, trial: Trial) -> str:
    """What the chosen recipe is called."""
    drawn = ", ".join(f"{name}={value}" for name, value in trial.values.items())
    return f"Chosen by sweep {sweep.sweep_id}: {trial.title}{f' with {drawn}' if drawn else ''}"


def winner_yaml(sweep: SweepRecord, trial: Trial) -> str:
    """The winner's recipe, as `histoline train --preset` takes it.

    Args:
        sweep: sweep.json.
        trial: That was chosen.
    """
    tree = {**json_documents.plain(trial.config), "title": winner_title(sweep, trial)}
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
