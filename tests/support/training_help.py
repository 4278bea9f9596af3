"""Small data sets and recipes for tests of training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from components.training.recipe import TrainingConfig
from components.training.recipe_parts import Phase
from tests.support import ingest_help, trees

if TYPE_CHECKING:
    import keras

    from components.training.export import ModelFacts

ROOT = Path(__file__).resolve().parents[2]


def dataset(home: Path, patients: int = 12, per_class: int = 4, *, rare: bool = False, **given: Any) -> Path:
    """An IDC data set that can be learnt: patches of class 1 are darker; `rare` leaves each patient one of them."""
    rng = np.random.default_rng(0)
    seen = set()
    for path in trees.idc_tree(home / "raw", patients, per_class):
        if rare and path.endswith("class1.png"):
            patient = Path(path).parts[0]
            if patient in seen:
                (home / "raw" / path).unlink()
                continue
            seen.add(patient)
        level = 120 if path.endswith("class1.png") else 190
        pixels = np.clip(rng.normal(level, 30, (50, 50, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(home / "raw" / path)
    return ingest_help.ingest(home / "raw", home / "ws", **given).folder


def recipe(*epochs: int, **given: Any) -> TrainingConfig:
    """The smallest network, one phase per number of epochs."""
    fields: dict[str, Any] = {"model": "cnn_105k", "batch_size": 16, "seed": 5, **given}
    return TrainingConfig(phases=tuple(Phase(n, 0.002, "cosine") for n in epochs or (1,)), **fields)


def export_model(
    model: keras.Model,
    folder: Path,
    facts: ModelFacts,
    temperature: float,
    threshold: float,
    *,
    bias: float | Sequence[float] = 0.0,
    **given: Any,
) -> Path:
    """Exports a model under a calibration and a threshold that nobody had to fit."""
    from components.training.export import Serving, save
    from components.training.image_graph import ImageSize

    serving = Serving(model, ImageSize(facts.source_size, facts.stored_size), facts.classes)
    serving.set_calibration(temperature, np.broadcast_to(bias, serving.bias.shape).tolist())
    serving.threshold.assign(threshold)
    return save(serving, folder, facts, **given)


def python(code: str, *args: object, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, as a fresh start of training would."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, args)],
        cwd=ROOT, env=env, text=True, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL,
    )  # fmt: skip
