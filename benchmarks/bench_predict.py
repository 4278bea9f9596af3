"""`histoline predict` against a bare batched `model.predict` on decoded arrays.

    python benchmarks/bench_predict.py [--patches 40000] [--repeats 3] [--batches 32,128,512]

Both use the same weights of `cnn_105k` (50x50) in one process, in turn, the order turned round each time.
Bare: `model.predict` on a uint8 array in memory that holds all decoded patches; the best of several batch sizes. Beside
it, to tell the graph's own cost: the SavedModel's `serving_default` on serialised Examples in memory.
Ours: the whole job on Beam's embedded runner, from listing the folder (or reading the data set's manifest) over
reading, decoding and preparing to the committed table, from raw PNG files and from a data set. Left out on both sides:
interpreter, imports, loading the model and its first trace (an untimed run of each comes first).
Prints JSON lines; noisy machines are told by the load that is printed along.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
from common import Criteria, emit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 128
BAR = 0.8


def prepare(patches: int) -> tuple[Path, Path]:
    """Draws patches and ingests them; returns (raw folder, committed data set)."""
    raw = common.ensure_data("idc", patches, 60)
    workspace = common.WORK / f"predict-{patches}"
    common.python(["-m", "pipelines.ingest", "idc", "--input", str(raw), "--workspace", str(workspace), "--json"])
    latest = json.loads((workspace / "datasets" / "idc" / "binary" / "latest.json").read_text())
    return raw, workspace / latest["dataset_dir"]


def export(data: Path, folder: Path) -> Any:
    """Exports an untrained `cnn_105k`; returns the Keras model with the same weights."""
    import keras

    from components.datasets.committed import open_dataset
    from components.training import models
    from components.training.export import ModelFacts
    from components.training.recipe import TrainingConfig
    from tests.support.training_help import export_model

    found = open_dataset(data)
    config = TrainingConfig(dataset="idc", model="cnn_105k")
    keras.utils.set_random_seed(0)
    model = models.build("cnn_105k", (50, 50, 3), 2, {})
    export_model(model, folder, ModelFacts.of(config, found), 1.0, 0.5)
    return model


def decoded(raw: Path, patches: list[dict[str, Any]]) -> Any:
    """uint8[N, 50, 50, 3] of the patches of a data set, from their files."""
    import numpy as np

    from components.images.decode import decode_rgb8, fit

    return np.stack([fit(decode_rgb8((raw / p["path"]).read_bytes(), ".png"), (50, 50), (50, 50)) for p in patches])


def contenders(raw: Path, data: Path, batches: list[int]) -> dict[str, Callable[[], int]]:
    """Each gives its number of probabilities."""
    import pyarrow.parquet as pq
    import tensorflow as tf

    from components.prediction.parts import raw_example
    from pipelines.predict import parallel_parts, run

    folder = common.WORK / "predict-model"
    model = export(data, folder)
    images = decoded(raw, pq.read_table(data / "patches.parquet", columns=["path"]).to_pylist())
    examples = [raw_example(image) for image in images]
    served = tf.saved_model.load(str(folder))
    out = common.WORK / "predict-out"

    def bare(batch: int) -> Callable[[], int]:
        return lambda: len(model.predict(images, batch_size=batch, verbose=0))

    def signature() -> int:
        answer = served.signatures["serving_default"]
        starts = range(0, len(examples), BATCH)
        return sum(len(answer(examples=tf.constant(examples[at : at + BATCH]))["probability"].numpy()) for at in starts)

    def ours(given: Path) -> Callable[[], int]:
        def predict() -> int:
            shutil.rmtree(out, ignore_errors=True)
            options = dict.fromkeys(("version", "workspace", "groups_csv", "kaggle", "slide_maps", "task"), "")
            options |= {"model": str(folder), "input_root": str(given), "output": str(out / "a.parquet")}
            return int(run("", options, parallel_parts(0), ["--runner=FnApiRunner"])["predicted"])

        return predict

    found: dict[str, Callable[[], int]] = {f"model.predict, batch {batch}": bare(batch) for batch in batches}
    return found | {
        "serving_default on Examples": signature,
        "predict, raw PNG files": ours(raw),
        "predict, data set": ours(data),
    }


def main() -> None:
    """Runs all contenders and judges the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", default="32,128,512", help="Batch sizes of the bare model.predict.")
    common.add_json_option(parser)
    given = parser.parse_args()
    common.environment("bench_predict", given.repeats)
    raw, data = prepare(given.patches)
    common.warm(raw)
    common.warm(data)
    programs = contenders(raw, data, [int(batch) for batch in given.batches.split(",")])
    rates: dict[str, list[float]] = {name: [] for name in programs}
    costs: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(given.repeats + 1):
        for name in list(programs)[:: 1 if repeat % 2 == 0 else -1]:
            began, cpu = time.perf_counter(), time.process_time()
            count = programs[name]()
            rate, cpu = count / (time.perf_counter() - began), time.process_time() - cpu
            emit(run=name, repeat=repeat, patches=count, patches_per_s=rate, cpu_s=cpu, load=os.getloadavg()[0])
            if repeat:  # the first one traces and loads
                rates[name].append(rate)
                costs[name].append(cpu / count)
    bare = {name: values for name, values in rates.items() if name.startswith("model.predict")}
    best = max(bare, key=lambda name: max(bare[name]))
    criteria = Criteria()
    emit(best={name: max(values) for name, values in rates.items()}, reference=best)
    for name in ("predict, raw PNG files", "predict, data set"):
        ratio = max(rates[name]) / max(rates[best])
        medians = statistics.median(rates[name]) / statistics.median(rates[best])
        # Of CPU seconds a patch: what the ratio would be where both keep all cores busy, whoever else is at work.
        cpu = min(min(costs[other]) for other in bare) / min(costs[name])
        emit(ratios={"best": ratio, "medians": medians, "cpu": cpu}, of=name)
        common.figure(
            f"prediction/{given.patches}/{name}",
            f"{name}, {given.patches:,} patches / bare batched `model.predict` on decoded arrays",
            f"{ratio:.2f} of best, {medians:.2f} of medians",
        )
        criteria.judge(f"{name} / {best}", ratio, BAR, at_least=True)
    criteria.close()
    common.leave_figures(given.json)


if __name__ == "__main__":
    sys.path.insert(0, str(common.ROOT))
    main()
