"""Trains the models of a cross-validation, one fold after another or each in a process of its own, and the served one.

A fold is trained like any run: on its own training part, stopped, calibrated and cut on its own eval part. What it says
of its own test part, which it has never seen, is kept beside it. Nobody trains a fold that is trained already, so a run
that was killed goes on in the fold where it stood.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.core.array_types import Array
from components.datasets.committed import DatasetFiles
from components.datasets.fold_view import regroup
from components.errors import UsageError
from components.splits.fold_assignment import FoldAssignment
from components.storage.base import Storage
from components.training.fold_plan import local_folds
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import EarlyStopping
from components.training.trainer import RESULT, Log, TrainResult, Watch, key_of, read_result, run_key, train

if TYPE_CHECKING:
    from components.training.export import Serving
    from components.training.feature_fit import FeatureFit
    from components.training.loop import Loop
    from components.training.operating_point import Calibrated

FOLDS = "folds"
"""Folder of the folds' models inside a run: `folds/N/model`."""

OUT_OF_FOLD = "out_of_fold.parquet"
"""Beside a fold's model: what it says of its own test part."""

Lock = Callable[[int], AbstractContextManager[Any]]
"""Gives the lock of a fold, so that no two processes train the same one."""


def fold_dir(run_dir: Path, fold: int) -> Path:
    """Where a fold of a run is trained."""
    return run_dir / FOLDS / str(fold)


def fold_lock(storage: Storage, run_dir: str) -> Lock:
    """The locks of a run's folds, beside the run's own.

    Args:
        storage: The workspace.
        run_dir: Folder of the run, relative to it.
    """
    return lambda fold: storage.lock(f"{run_dir}/{FOLDS}/{fold}/.lock", owner=f"training of fold {fold}")


def train_fold(
    config: TrainingConfig,
    data: DatasetFiles,
    folds: FoldAssignment,
    fold: int,
    run_dir: Path,
    *,
    log: Log = lambda line: None,
    watch: Watch | None = None,
) -> TrainResult:
    """Trains one fold, whose lock the caller holds; does nothing where it is trained.

    Args:
        config: The recipe.
        data: The data set.
        folds: Who is where.
        fold: Its number, from 1.
        run_dir: Local folder of the run.
        log: Takes progress, a line at a time.
        watch: See `train`.

    Raises:
        UsageError: There is no such fold.
        HistolineError: See `train`.
    """
    if not 1 <= fold <= folds.folds:
        raise UsageError(f"--fold {fold}: the run has {folds.folds} folds.", f"Choose 1 to {folds.folds}.")
    folder = fold_dir(run_dir, fold)
    view = regroup(data, folds.split_of(fold))

    def calibrated(
        serving: Serving, loop: Loop | FeatureFit, data: DatasetFiles, weights: dict[int, float] | None
    ) -> Calibrated:
        from components.training.operating_point import calibrate

        fitted = calibrate(serving, loop.evaluation, data, config, weights)
        keep_test(serving, data, config, folder / OUT_OF_FOLD)
        return fitted

    def line(text: str) -> None:
        log(f"fold {fold}/{folds.folds}: {text}")

    result = train(config, view, folder, log=line, calibrated=calibrated, watch=watch)
    forget_model()
    return result


def train_folds(
    config: TrainingConfig,
    data: DatasetFiles,
    run_dir: Path,
    *,
    log: Log = lambda line: None,
    lock: Lock = lambda fold: contextlib.nullcontext(),
) -> TrainResult:
    """Trains the folds that are missing, then puts the served model into `run_dir/model`.

    Args:
        config: The recipe.
        data: The data set.
        run_dir: Local folder of the run, with its folds.json.
        log: Takes progress, a line at a time.
        lock: Of the folds.

    Raises:
        TemporaryError: Another process trains a fold.
        HistolineError: See `train`.
    """
    started = time.monotonic()
    folds = local_folds(run_dir)
    results = []
    for fold in range(1, folds.folds + 1):
        with lock(fold):
            results.append(train_fold(config, data, folds, fold, run_dir, log=log))
    key = _served_key(config, data, results)
    done = read_result(run_dir)
    if done is not None and key_of(done.model_dir) == key:
        log(f"{done.model_dir} is put together already.")
        return done
    point = _pooled_point(config, folds, run_dir)
    serve = _refit if config.serve == "refit" else _mean
    result = serve(config, data, folds, run_dir, results, point, key, started, log)
    forget_model()
    return result


def _mean(
    config: TrainingConfig,
    data: DatasetFiles,
    folds: FoldAssignment,
    run_dir: Path,
    results: list[TrainResult],
    point: Mapping[str, Any],
    key: str,
    started: float,
    log: Log,
) -> TrainResult:
    """The mean of the folds' models, each of them calibrated already."""
    from components.training.export import ModelFacts, save
    from components.training.mean_model import load_mean

    serving = load_mean([result.model_dir for result in results])
    if point["threshold"] is not None:
        serving.threshold.assign(point["threshold"])
    facts = ModelFacts.of(config, regroup(data, dict.fromkeys(folds.groups, "train")))
    temperature, bias = serving.calibration()
    result = TrainResult(
        history={},
        epochs_run=sum(result.epochs_run for result in results),
        temperature=temperature,
        bias=bias,
        seconds=time.monotonic() - started,
        model_dir=run_dir / "model",
        hardware=results[-1].hardware,
        **point,
    )
    save(serving, result.model_dir, facts, extra={RESULT: {"key": key, "result": result.to_dict()}})
    log(f"the mean of {len(results)} models is exported to {result.model_dir}")
    return result


def _refit(
    config: TrainingConfig,
    data: DatasetFiles,
    folds: FoldAssignment,
    run_dir: Path,
    results: list[TrainResult],
    point: Mapping[str, Any],
    key: str,
    started: float,
    log: Log,
) -> TrainResult:
    """One model on everyone, for as many epochs as the folds found best, calibrated as they were in the mean."""
    from components.training.operating_point import Calibrated

    phases = tuple(
        dataclasses.replace(phase, epochs=max(1, round(statistics.median(found))))
        for phase, found in zip(config.phases, zip(*(result.phase_epochs for result in results)), strict=True)
    )
    chosen = dataclasses.replace(config, phases=phases, early_stopping=EarlyStopping(), min_steps=0)
    everyone = regroup(data, dict.fromkeys(folds.groups, "train"))
    # The loop wants a split to watch. Nothing is chosen by it: it is a part of what is trained on.
    watched = regroup(data, folds.split_of(1)).splits["eval"]
    everyone = dataclasses.replace(everyone, splits={**everyone.splits, "eval": watched})

    def calibrated(
        serving: Serving, loop: Loop | FeatureFit, data: DatasetFiles, weights: dict[int, float] | None
    ) -> Calibrated:
        temperature = float(np.exp(np.mean([np.log(result.temperature) for result in results])))
        biases = np.array([0.0 if result.bias is None else result.bias for result in results])
        serving.set_calibration(temperature, np.mean(biases, axis=0).tolist())
        if point["threshold"] is not None:
            serving.threshold.assign(point["threshold"])
        made = serving.calibration()
        return Calibrated(made[0], made[1], point["threshold"], point["threshold_note"], point["calibration"])

    epochs = ", ".join(str(phase.epochs) for phase in phases)
    log(f"one model on all {len(folds.groups)} {folds.group_unit}s, {epochs} epochs: what the folds found best")
    result = train(chosen, everyone, run_dir, log=log, calibrated=calibrated)
    history = {name: values for name, values in result.history.items() if not name.startswith("val_")}
    result = dataclasses.replace(result, history=history, seconds=time.monotonic() - started)
    document = {"key": key, "result": result.to_dict()}
    target = result.model_dir / "assets.extra" / RESULT
    target.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    facts = result.model_dir / "assets.extra" / "histoline.json"
    own = {**json.loads(facts.read_text(encoding="utf-8")), "config": config.to_dict()}
    own["config_digest"] = config.digest()
    facts.write_text(json.dumps(own, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _pooled_point(config: TrainingConfig, folds: FoldAssignment, run_dir: Path) -> dict[str, Any]:
    """Threshold of the served model, from what each fold's model says of the patients that it has never seen.

    The figures out of fold do not use it: there each fold's model is cut at its own threshold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from components.metrics.threshold import operating_point

    numbers = range(1, folds.folds + 1)
    table = pa.concat_tables([pq.read_table(fold_dir(run_dir, fold) / OUT_OF_FOLD) for fold in numbers])
    if pa.types.is_list(table.schema.field("probability").type):
        return {"threshold": None, "threshold_note": "", "calibration": {}}
    groups = np.array(table["group_id"].to_pylist(), object).astype(str)
    labels, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    chosen = operating_point(labels, probability, groups, config.threshold, unit=folds.group_unit)
    calibration = {"threshold": {**chosen.sensitivity, "met": chosen.met}} if chosen.sensitivity else {}
    return {"threshold": chosen.threshold, "threshold_note": chosen.note, "calibration": calibration}


def keep_test(serving: Serving, view: DatasetFiles, config: TrainingConfig, file: Path) -> None:
    """Writes what a calibrated model says of the test part of its own view: patch_id, group_id, label, probability."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from components.training.export import logits_of
    from components.training.input_pipeline import open_split

    reader = open_split(view, "test", cache=False)
    labels, logits = logits_of(serving, reader.evaluation(max(32, config.batch_size)))
    columns: dict[str, Any] = {name: view.table("test", [name])[name] for name in ("patch_id", "group_id")}
    columns |= {"label": labels, "probability": _column(serving.probability(logits).numpy())}
    file.parent.mkdir(parents=True, exist_ok=True)
    tmp = file.with_name(f".{file.name}")
    pq.write_table(pa.table(columns), tmp, compression="zstd")
    tmp.replace(file)


def _column(probability: Array) -> Any:
    import pyarrow as pa

    if probability.ndim == 1:
        return pa.array(probability)
    return pa.array(probability.tolist(), pa.list_(pa.float32()))


def _served_key(config: TrainingConfig, data: DatasetFiles, results: list[TrainResult]) -> str:
    """Tells whether a served model was put together from these folds."""
    members = [key_of(result.model_dir) for result in results]
    return hashlib.sha256(json.dumps([run_key(config, data), *members]).encode()).hexdigest()


def forget_model() -> None:
    """Gives back what Keras keeps of a model, before the next one is built."""
    import keras

    keras.backend.clear_session()
    gc.collect()
