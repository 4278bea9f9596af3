"""TensorBoard's points of a run, one per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf


def write_summaries(run_dir: Path, epoch: int, logs: Mapping[str, float], rate: float) -> None:
    """Adds an epoch to a run's curves; Keras' own callback would begin anew with each phase.

    Args:
        run_dir: Of the run; gets tensorboard/train and tensorboard/validation.
        epoch: Its number over all phases, from 1.
        logs: Keras' names to values; those that begin with `val_` are of the eval split.
        rate: Learning rate.
    """
    parts = {
        "train": {**{k: v for k, v in logs.items() if not k.startswith("val_")}, "learning_rate": rate},
        "validation": {k[4:]: v for k, v in logs.items() if k.startswith("val_")},
    }
    for part, values in parts.items():
        writer = tf.summary.create_file_writer(str(run_dir / "tensorboard" / part))
        with writer.as_default(step=epoch):
            for name, value in values.items():
                tf.summary.scalar(f"epoch_{name}", value)
        writer.close()
