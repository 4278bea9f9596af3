"""Reading a fold, whose records are picked from the shards of all splits, against reading a split.

    python benchmarks/bench_folds.py DATASET_DIR [--repeats N]

Both read the same number of patches, in turn: from memory (the first epoch, which loads them) and streamed. Prints one
JSON line a measurement, and the ratio of fold to split; 1 is as fast, and 0.9 is what is allowed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import emit

BATCH = 64


def work(data: object, name: str, cache: bool) -> float:
    """Images per second of opening a training split and reading one epoch of it."""
    from components.datasets.committed import DatasetFiles
    from components.training.input_pipeline import open_split

    assert isinstance(data, DatasetFiles)
    began = time.perf_counter()
    reader = open_split(data, name, cache=cache)
    batches = itertools.islice(iter(reader.training(BATCH, 1, epochs=range(1))), reader.steps(BATCH))
    images = sum(int(labels.shape[0]) for _, labels in batches)
    return images / (time.perf_counter() - began)


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="folder of a committed data set")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    from components.datasets.committed import open_dataset
    from components.datasets.fold_view import regroup

    data = open_dataset(options.dataset)
    wanted = data.splits["train"].count
    sizes = {
        split: data.table(split, ["group_id"])["group_id"].value_counts().to_pylist() for split in data.splits
    }
    # Groups of all splits by turns, until the fold's training part is as large as the split's.
    turns = itertools.zip_longest(*(sizes[split] for split in ("test", "eval", "train")))
    split_of, taken = {}, 0
    for group in (each for turn in turns for each in turn if each is not None):
        split_of[group["values"]] = "train" if taken < wanted else "test"
        taken += group["counts"]
    fold = regroup(data, split_of)
    contenders: dict[str, Callable[[bool], float]] = {
        "split": lambda cache: work(data, "train", cache), "fold": lambda cache: work(fold, "train", cache),
    }  # fmt: skip
    for cache in (True, False):
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for repeat in range(options.repeats + 1):
            for name in list(contenders)[:: 1 if repeat % 2 == 0 else -1]:
                rate = contenders[name](cache)
                if repeat:  # the first warms up
                    rates[name].append(rate)
        medians = {name: statistics.median(found) for name, found in rates.items()}
        emit(
            how="memory" if cache else "streamed", patches=[wanted, fold.splits["train"].count],
            images_per_s=medians, ratio=medians["fold"] / medians["split"], load=os.getloadavg()[0],
        )  # fmt: skip


if __name__ == "__main__":
    main()
