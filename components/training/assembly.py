"""Puts an ensemble together: in a run of one, this stands where training stands in all others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from components.datasets.committed import DatasetFiles
from components.training.recipe import TrainingConfig
from components.training.trainer import RESULT, Log, TrainResult, key_of, read_result, run_key


def assemble(
    config: TrainingConfig,
    data: DatasetFiles,
    run_dir: Path,
    members: Sequence[Path],
    *,
    log: Log = lambda line: None,
) -> TrainResult:
    """Averages the members' models, calibrates the mean on eval as one model, and exports it to `run_dir/model`.

    Args:
        config: The recipe, with the members.
        data: The data set on which all of them were trained.
        run_dir: Local folder of the run.
        members: Local folders of their models, in the recipe's order.
        log: Takes progress, a line at a time.

    Raises:
        UsageError: The models have no mean.
        DataError: One is damaged, or eval can't be calibrated on.
    """
    started = time.monotonic()
    key = run_key(config, data)
    done = read_result(run_dir)
    if done is not None and key_of(done.model_dir) == key:
        log(f"{done.model_dir} is put together already.")
        return done

    from components.training.export import ModelFacts, save
    from components.training.input_pipeline import open_split
    from components.training.mean_model import load_mean
    from components.training.operating_point import calibrate, describe

    log(f"mean of {len(members)} models: {', '.join(member.run_id for member in config.ensemble)}")
    serving = load_mean(members)
    fitted = calibrate(serving, open_split(data, "eval"), data, config)
    result = TrainResult(
        history={},
        epochs_run=0,
        seconds=time.monotonic() - started,
        model_dir=run_dir / "model",
        **dataclasses.asdict(fitted),
    )
    extra = {RESULT: {"key": key, "result": result.to_dict()}}
    save(serving, result.model_dir, ModelFacts.of(config, data), extra=extra)
    log(f"{describe(fitted)}; exported to {result.model_dir}")
    return result
