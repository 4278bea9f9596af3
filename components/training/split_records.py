"""A split's records in the order of its shards: as a stream, parsed in batches, or all of them in memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.core.machine import cores
from components.datasets.committed import Split
from components.datasets.example import RawRecords
from components.datasets.tfrecord import read_records
from components.errors import DataError
from components.training.image_graph import ImageSize, parse_training

PARSE_BATCH = 64
"""Records that are parsed at once where a split is read into memory; more do not fit a core's own cache."""

FETCH_BYTES = 8 << 20
MADV_POPULATE_WRITE = 23
"""From Linux' mman-common.h; Python 3.10 does not name it."""

READ_BUFFER = 4 << 20


def records(shards: tuple[Path, ...]) -> tf.data.Dataset:
    """Serialised records in the order of the shards."""
    return tf.data.TFRecordDataset([os.fspath(path) for path in shards], buffer_size=READ_BUFFER)


def parsed(batches: tf.data.Dataset, image_format: str, size: ImageSize) -> tf.data.Dataset:
    """Batches of serialised records as batches (uint8[B, H, W, 3], int32[B])."""
    return batches.map(lambda records: parse_training(records, image_format, size), num_parallel_calls=tf.data.AUTOTUNE)


def load(split: Split, image_format: str, size: ImageSize, n_classes: int) -> tuple[Any, npt.NDArray[np.int32]]:
    """Reads a split into memory.

    Args:
        split: The files.
        image_format: `raw` or `encoded`.
        size: Of the images.
        n_classes: Number of classes.

    Returns:
        A tensor uint8[N, H, W, 3] and labels int32[N], in the order of the shards.

    Raises:
        DataError: A record is damaged, there are more or fewer than the manifest says, or a label is none of the
            classes.
    """
    count = split.count
    images, labels = _aligned((count, *size.shape)), np.empty(count, np.int32)
    place = 0
    try:
        for pixels, numbers in _blocks(split, image_format, size, n_classes):
            stop = place + len(numbers)
            if stop > count:
                raise DataError(f"The shards of {split.name} hold more than the manifest's {count:,} records.")
            images[place:stop], labels[place:stop] = pixels, numbers
            place = stop
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, ValueError) as error:
        raise DataError(
            f"A record of {split.shards[0].parent} can't be read: {_first_line(error)}.",
            "Run histoline verify on the data set, then ingest again.",
        ) from error
    found = np.bincount(labels[:place], minlength=n_classes)
    if place != count or tuple(found) != split.by_class:
        raise DataError(
            f"{split.shards[0].parent} holds {place:,} records ({found.tolist()} by class); "
            f"the manifest says {count:,} ({list(split.by_class)}).",
            "Run histoline verify on the data set, then ingest again.",
        )
    # Shared with TensorFlow, not copied: the pixels are by far the largest thing in memory.
    shared = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return shared, labels


def _blocks(
    split: Split, image_format: str, size: ImageSize, n_classes: int
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]:
    """All images and labels of a split in the order of its shards, some at a time; each good until the next.

    Raises:
        ValueError, tf.errors.OpError: A record is damaged.
    """
    if image_format != "raw":
        batches = parsed(records(split.shards).batch(PARSE_BATCH), image_format, size).prefetch(tf.data.AUTOTUNE)
        yield from batches.as_numpy_iterator()
        return
    # Three times as fast as TensorFlow's parser, which copies each record several times.
    width, height = size.stored
    raw = RawRecords(width, height, n_classes)
    pixels, labels = np.empty((PARSE_BATCH, *size.shape), np.uint8), np.empty(PARSE_BATCH, np.int32)
    flat = memoryview(pixels.data).cast("B")
    held = 0
    for shard in split.shards:
        for offset, record in read_records(shard):
            try:
                start, labels[held] = raw.find(record)
            except ValueError as error:
                raise ValueError(f"the record at byte {offset} of {shard.name} {error}") from None
            flat[held * raw.size : (held + 1) * raw.size] = memoryview(record)[start : start + raw.size]
            held += 1
            if held == PARSE_BATCH:
                yield pixels, labels
                held = 0
    yield pixels[:held], labels[:held]


def _aligned(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An empty array that begins at a page, as TensorFlow's kernels like it, in huge pages where the system has them.

    Its memory is fetched by threads while the caller goes on: on a virtual machine whose host has to find it first,
    262 MB took 1.0 s in one thread and 0.55 s in two, longer than reading the records into them.
    """
    count = math.prod(shape)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    if sys.platform == "linux":
        starts = iter(range(0, count, FETCH_BYTES))
        for _ in range(cores()):
            threading.Thread(target=_fetch, args=(array, starts), daemon=True).start()
    return array.reshape(shape)


def _fetch(array: npt.NDArray[np.uint8], starts: Iterator[int]) -> None:
    """Has the system find memory for parts of an array; leaves what stands in it (Linux 5.14; else nothing happens)."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start in starts:
        madvise(array.ctypes.data + start, min(FETCH_BYTES, array.size - start), MADV_POPULATE_WRITE)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
