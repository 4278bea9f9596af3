"""A trained trial is not trained twice: a run with the same recipe, data and code takes over its model."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from components.datasets.committed import facts_json
from components.errors import HistolineError
from components.promotion.served_model import FACTS
from components.storage.atomic_files import TMP, copy_tree
from components.storage.base import Storage
from components.sweeps import record as records
from components.training.recipe import TrainingConfig
from components.training.trainer import read_result

TAKEN = ("model", "tensorboard")
"""Folders of a trial that a run takes over; the model last."""


def find(storage: Storage, dataset: str, task: str, key: str, source: str) -> Path | None:
    """Folder of the trial on this machine that was trained to its end with these inputs; None where there is none.

    Args:
        storage: The workspace.
        dataset: Data set.
        task: Task.
        key: Of `components.training.trainer.run_key`.
        source: Of `components.training.source_digest`.
    """
    home = f"sweeps/{dataset}/{task}"
    for sweep_id in reversed(storage.list_dirs(home)):
        folder = f"{home}/{sweep_id}"
        try:
            sweep = records.read(storage, folder)
            trials = records.read_trials(storage, folder, sweep)
        except HistolineError:  # a damaged sweep is no reason to stop: the run trains its model itself
            continue
        for number, trial in trials.items():
            if trial.state == "done" and (trial.run_key, trial.source_digest) == (key, source):
                origin = sweep.trials[number].continues  # a chain of rungs is trained in the folder of its first
                place = storage.work_folder() / records.trial_dir(folder, number if origin is None else origin)
                if read_result(place) is not None:
                    return place
    return None


def take_over(trial: Path, run_dir: Path, config: TrainingConfig) -> None:
    """Copies what a trial has trained into a run's folder; the model appears whole.

    Args:
        trial: Folder of the trial on this machine.
        run_dir: Of the run, likewise; has no model yet.
        config: Of the run, which may be judged otherwise than the trial's.
    """
    for name in reversed(TAKEN):
        if not (trial / name).is_dir() or (run_dir / name).exists():
            continue
        tmp = run_dir / TMP / uuid.uuid4().hex
        tmp.parent.mkdir(parents=True, exist_ok=True)
        copy_tree(trial / name, tmp)
        if name == "model":
            facts = json.loads((tmp / FACTS).read_text(encoding="utf-8"))
            facts |= {"config": config.to_dict(), "config_digest": config.digest()}
            (tmp / FACTS).write_text(facts_json(facts), encoding="utf-8")
        tmp.rename(run_dir / name)
