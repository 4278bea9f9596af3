"""What looking at every batch's loss costs, and what several steps at once save: a small model, old way against new.

    python benchmarks/bench_training_steps.py [--steps 400] [--repeats 5] [--json FILE]

The old way is a callback that reads the loss after every batch. The new one notes on the device which batch had a loss
that is not finite and asks every 50 batches (`NanGuard`), alone and with `steps_per_execution`. All train the same
model on the same images in memory, in turn, the order turned round each time; the first epoch of each traces.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from typing import Any

import common
from common import Criteria, emit

BATCH = 16
SIDE = 32
AT_ONCE = (1, 10, 50)


def bench(steps: int, repeats: int, criteria: Criteria) -> None:
    """Steps per second of each way, and their ratios to the old one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np
    import tensorflow as tf

    from components.training import phases
    from components.training.augmentation import Augmentation
    from components.training.augmentation_layers import InputStatistics
    from components.training.callbacks import EpochCallbacks, NanGuard
    from components.training.fitted_model import training_model
    from components.training.recipe import TrainingConfig

    class EveryBatch(keras.callbacks.Callback):
        """The old way: Keras fetches the logs of each batch for it."""

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            assert math.isfinite((logs or {})["loss"])

    def small() -> keras.Model:
        keras.utils.set_random_seed(0)
        images = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(images))
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x))
        return keras.Model(images, keras.layers.Dense(2, activation="softmax", name="logits")(x))

    gpu = bool(tf.config.list_physical_devices("GPU"))
    config = TrainingConfig(batch_size=BATCH)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (steps * BATCH, SIDE, SIDE, 3)).astype("float32")
    y = rng.integers(0, 2, steps * BATCH)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True).prefetch(8)

    def contender(at_once: int | None) -> tuple[keras.Model, keras.callbacks.Callback]:
        model = small()
        fitted = training_model(model, Augmentation(), 0)
        if at_once is None:  # as it was: a plain model behind the same statistics
            images = keras.Input(model.input_shape[1:])
            fitted = keras.Model(images, model(InputStatistics()(images)))
        phases.compile_phase(
            model, fitted, config, 0, steps_per_epoch=steps, jit_compile=gpu, steps_per_execution=at_once or 1
        )
        return fitted, EveryBatch() if at_once is None else NanGuard()

    names = {None: "the loss of every batch", **{n: f"every 50 batches, {n} at once" for n in AT_ONCE}}
    contenders = {name: contender(at_once) for at_once, name in names.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for epoch in range(repeats + 1):
        for name in list(contenders)[:: 1 if epoch % 2 == 0 else -1]:
            fitted, guard = contenders[name]
            begun = time.perf_counter()
            callbacks = EpochCallbacks([guard], fitted) if isinstance(guard, NanGuard) else [guard]
            fitted.fit(batches, steps_per_epoch=steps, verbose=0, callbacks=callbacks)
            rate = steps / (time.perf_counter() - begun)
            emit(run=name, epoch=epoch, steps_per_s=rate, load=os.getloadavg()[0])
            if epoch:
                rates[name].append(rate)
    old = rates[names[None]]
    for at_once in AT_ONCE:
        new = rates[names[at_once]]
        best, medians = max(new) / max(old), statistics.median(new) / statistics.median(old)
        emit(ratios={"best": best, "medians": medians}, of=names[at_once])
        common.figure(
            f"reading/steps/{'gpu' if gpu else 'cpu'}/{at_once}",
            f"training steps of a small model ({'GPU' if gpu else 'CPU'}), loss asked for every 50 batches, "
            f"{at_once} step{'s' if at_once > 1 else ''} at once / loss of every batch",
            f"{best:.2f} of best, {medians:.2f} of medians",
        )
        criteria.judge(f"{names[at_once]} / {names[None]}", best, 0.95, at_least=True)


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    common.add_json_option(parser)
    given = parser.parse_args()
    common.environment("bench_training_steps", given.repeats)
    criteria = Criteria()
    bench(given.steps, given.repeats, criteria)
    criteria.close()
    common.leave_figures(given.json)


if __name__ == "__main__":
    sys.path.insert(0, str(common.ROOT))
    main()
