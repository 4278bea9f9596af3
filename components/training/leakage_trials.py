"""Trains one recipe on the patient split and on random splits, and keeps what each model says of its own test part.

Nothing else is kept: these models are for a comparison, and no gate ever sees them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.datasets.committed import DatasetFiles
from components.metrics.leakage import TestPart
from components.training.fold_training import forget_model, keep_test
from components.training.recipe import TrainingConfig
from components.training.trainer import Log, run_key, train

if TYPE_CHECKING:
    from components.training.export import Serving
    from components.training.feature_fit import FeatureFit
    from components.training.loop import Loop
    from components.training.operating_point import Calibrated

TRIAL, PREDICTIONS = "trial.json", "predictions.parquet"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model and what it says of its test part.

    Attributes:
        test: Labels, patients, probabilities, and the model's own cut.
        epochs: That it was trained.
        seconds: That its training took.
    """

    test: TestPart
    epochs: int
    seconds: float


def trial(
    config: TrainingConfig, view: DatasetFiles, folder: Path, source: str, *, log: Log = lambda line: None
) -> Trial:
    """Trains a model, or reads what it said where it was trained before.

    Args:
        config: The recipe.
        view: The data set, as it is split.
        folder: Local folder of this trial.
        source: Digest of the code: a trial by other code is done again.
        log: Takes progress, a line at a time.

    Raises:
        HistolineError: See `train`.
    """
    key = f"{run_key(config, view)}:{source}"
    found = _read(folder, key)
    if found is not None:
        log("trained already")
        return found

    def calibrated(
        serving: Serving, loop: Loop | FeatureFit, data: DatasetFiles, weights: dict[int, float] | None
    ) -> Calibrated:
        from components.training.operating_point import calibrate

        fitted = calibrate(serving, loop.evaluation, data, config, weights)
        keep_test(serving, data, config, folder / PREDICTIONS)
        return fitted

    result = train(config, view, folder, log=log, calibrated=calibrated)
    document = {
        "key": key, "threshold": result.threshold, "epochs": result.epochs_run, "seconds": round(result.seconds, 2),
    }  # fmt: skip
    tmp = folder / f".{TRIAL}"
    tmp.write_text(json.dumps(document) + "\n", encoding="utf-8")
    tmp.replace(folder / TRIAL)
    for name in ("model", "checkpoints", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    forget_model()
    found = _read(folder, key)
    assert found is not None
    return found


def _read(folder: Path, key: str) -> Trial | None:
    import pyarrow.parquet as pq

    try:
        told: dict[str, Any] = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
        if told["key"] != key:
            return None
        table = pq.read_table(folder / PREDICTIONS)
    except (OSError, ValueError, KeyError):
        return None
    probability = table["probability"].to_pylist()
    test = TestPart(
        labels=table["label"].to_numpy(),
        groups=np.array(table["group_id"].to_pylist(), object).astype(str),
        probability=np.asarray(probability, np.float32),
        threshold=told["threshold"],
    )
    return Trial(test, int(told["epochs"]), float(told["seconds"]))
