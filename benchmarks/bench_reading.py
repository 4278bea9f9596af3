"""Reading shuffled batches against Keras' directory loader, and training from records against arrays in memory.

    python benchmarks/bench_reading.py [--patches 50000] [--repeats 3] [--only reading,training]

Reading: the same drawn IDC patches, as PNG files in class folders for `keras.utils.image_dataset_from_directory` and
as ingested shards for `components.training.input_pipeline`; batches of 64, shuffled anew each epoch, taken one by one.
A first epoch counts from opening (listing, or reading shards into memory) to the last batch. Keras delivers float32,
ours uint8, which the model casts in its graph.

Training: `cnn_105k`, batches of 64, no augmentation. `model.fit` on uint8 arrays in memory, against the training model,
reader and callbacks of `histoline train`. The first epoch (tracing) is left out; epochs alternate between contenders.
Prints JSON lines; noisy machines are told by the load that is printed along.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
from common import Criteria, emit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 64
LATER_EPOCHS = 3
PATIENTS = 60


def prepare(patches: int) -> tuple[Path, Path]:
    """Draws patches and ingests them; returns (class folders of PNG files, committed data set)."""
    raw = common.ensure_data("idc", patches, PATIENTS)
    workspace = common.WORK / f"reading-{patches}"
    ingest = ["-m", "pipelines.ingest", "idc", "--input", str(raw), "--workspace", str(workspace), "--json"]
    common.python(ingest)
    latest = json.loads((workspace / "datasets" / "idc" / "binary" / "latest.json").read_text())
    folder = workspace / latest["dataset_dir"]
    classes = common.WORK / f"reading-{patches}-classes"
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "patches.parquet", columns=["path", "label", "split"])
    for row in table.to_pylist():
        if row["split"] == "train":  # what both read: the same images
            link = classes / str(row["label"]) / Path(row["path"]).name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                os.link(raw / row["path"], link)
    return classes, folder


def directory_loader(classes: Path) -> Iterator[int]:
    """Opens Keras' loader, then reads an epoch each time; yields the number of images."""
    import keras

    dataset = keras.utils.image_dataset_from_directory(
        classes, labels="inferred", label_mode="int", batch_size=BATCH, image_size=(50, 50), shuffle=True, seed=1,
        verbose=False,
    )  # fmt: skip
    while True:
        yield consume(iter(dataset))


def records_loader(folder: Path, cache: bool) -> Iterator[int]:
    """The same with ours, which goes through all epochs of a phase in one pipeline, as training does."""
    from components.datasets.committed import open_dataset
    from components.training.input_pipeline import open_split

    reader = open_split(open_dataset(folder), "train", cache=cache)
    batches = iter(reader.training(BATCH, 1, epochs=range(LATER_EPOCHS + 1)))
    while True:
        yield consume(itertools.islice(batches, reader.steps(BATCH)))


def consume(batches: Iterator[Any]) -> int:
    """Takes all batches and returns the number of images."""
    return sum(int(labels.shape[0]) for _, labels in batches)


def bench_reading(patches: int, classes: Path, folder: Path, repeats: int, criteria: Criteria) -> None:
    """First and later epochs of each loader."""
    contenders: dict[str, Callable[[], Iterator[int]]] = {
        "keras": lambda: directory_loader(classes),
        "records": lambda: records_loader(folder, cache=True),
        "records, streamed": lambda: records_loader(folder, cache=False),
    }
    common.warm(classes)
    common.warm(folder)
    images = [next(contender()) for contender in contenders.values()][0]  # also what TensorFlow does once in a process
    first: dict[str, list[float]] = {name: [] for name in contenders}
    later: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for name in list(contenders)[:: 1 if repeat % 2 == 0 else -1]:
            began = time.perf_counter()
            epochs = contenders[name]()
            for rates in (first[name], *[later[name]] * LATER_EPOCHS):
                rates.append(next(epochs) / (time.perf_counter() - began))
                began = time.perf_counter()
            emit(
                run=name, repeat=repeat + 1, first_epoch_images_per_s=first[name][-1],
                later_images_per_s=later[name][-LATER_EPOCHS:], load=os.getloadavg()[0],
            )  # fmt: skip
            del epochs  # so that freeing its memory is not charged to the next one
    for name in ("records", "records, streamed"):
        ratios = {
            "first": max(first[name]) / max(first["keras"]),
            "later": max(later[name]) / max(later["keras"]),
            "first, medians": statistics.median(first[name]) / statistics.median(first["keras"]),
            "later, medians": statistics.median(later[name]) / statistics.median(later["keras"]),
        }
        emit(ratios=ratios, of=f"{name} / keras.utils.image_dataset_from_directory")
        common.figure(
            f"reading/{patches}/{name}",
            f"{name}, {images:,} images, shuffled batches of {BATCH} / `keras.utils.image_dataset_from_directory`",
            f"{ratios['first']:.1f} times in the first epoch, {ratios['later']:.0f} times in later ones",
        )
        if name == "records":
            criteria.judge("reading, first epoch / Keras' loader", ratios["first"], 5, at_least=True)
            criteria.judge("reading, later epochs / Keras' loader", ratios["later"], 20, at_least=True)


class _Clock:
    """Seconds of each epoch."""

    def __new__(cls) -> Any:
        import keras

        class Clock(keras.callbacks.Callback):
            seconds: list[float] = []

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.began = time.perf_counter()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.seconds = [*self.seconds, time.perf_counter() - self.began]

        return Clock()


def bench_training(patches: int, folder: Path, repeats: int, criteria: Criteria) -> None:
    """Images per second of one epoch's training."""
    import keras
    import numpy as np

    from components.datasets.committed import open_dataset
    from components.training import models, phases
    from components.training.callbacks import EpochCallbacks, EpochLine, NanGuard, SeedPerEpoch
    from components.training.fitted_model import training_model
    from components.training.input_pipeline import open_split
    from components.training.recipe import TrainingConfig

    reader = open_split(open_dataset(folder), "train", cache=True)
    images, labels = np.asarray(reader.images), np.asarray(reader.labels)
    config = TrainingConfig(model="cnn_105k", batch_size=BATCH)
    steps = reader.steps(BATCH)

    keras.utils.set_random_seed(0)
    plain = models.build("cnn_105k", (50, 50, 3), 2)
    phases.compile_phase(plain, plain, config, 0, steps_per_epoch=steps)
    ours = models.build("cnn_105k", (50, 50, 3), 2)
    training = training_model(ours, config.augmentation, 0)
    phases.compile_phase(ours, training, config, 0, steps_per_epoch=steps)

    def fit_arrays(epoch: int) -> float:
        clock = _Clock()
        plain.fit(images, labels, batch_size=BATCH, epochs=1, verbose=0, callbacks=[clock])
        return len(images) / clock.seconds[0]

    def fit_records(epoch: int) -> float:
        clock = _Clock()
        training.fit(
            reader.training(BATCH, 0, epochs=range(epoch, epoch + 1)), steps_per_epoch=steps, epochs=1, verbose=0,
            callbacks=EpochCallbacks(
                [SeedPerEpoch(0), NanGuard(), EpochLine(len(images), 1, emit=lambda line: None), clock], training
            ),
        )  # fmt: skip
        return steps * BATCH / clock.seconds[0]

    contenders = {"model.fit on arrays": fit_arrays, "from records": fit_records}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for epoch in range(repeats + 1):
        for name in list(contenders)[:: 1 if epoch % 2 == 0 else -1]:
            rate = contenders[name](epoch)
            emit(run=name, epoch=epoch, images_per_s=rate, load=os.getloadavg()[0])
            if epoch:  # the first one traces
                rates[name].append(rate)
    a, b = rates["from records"], rates["model.fit on arrays"]
    ratios = {"best": max(a) / max(b), "medians": statistics.median(a) / statistics.median(b)}
    emit(ratios=ratios, of="training cnn_105k")
    common.figure(
        f"reading/{patches}/training",
        f"training `cnn_105k` from records, {len(images):,} images / `model.fit` on arrays in memory",
        f"{ratios['best']:.2f} of best, {ratios['medians']:.2f} of medians",
    )
    criteria.judge("training cnn_105k from records / model.fit on arrays", max(a) / max(b), 0.95, at_least=True)


def main() -> None:
    """Runs the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="reading,training")
    common.add_json_option(parser)
    given = parser.parse_args()
    common.environment("bench_reading", given.repeats)
    criteria = Criteria()
    classes, folder = prepare(given.patches)
    if "reading" in given.only:
        bench_reading(given.patches, classes, folder, given.repeats, criteria)
    if "training" in given.only:
        bench_training(given.patches, folder, given.repeats, criteria)
    criteria.close()
    common.leave_figures(given.json)


if __name__ == "__main__":
    sys.path.insert(0, str(common.ROOT))
    main()
