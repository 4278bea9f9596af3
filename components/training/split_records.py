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
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.core.array_types import Array
from components.core.machine import cores
from components.datasets.committed import Split
from components.datasets.example import RawRecords
from components.datasets.tfrecord import read_at, read_chosen, read_records
from components.errors import DataError
from components.training.image_graph import ImageSize, parse_training

PARSE_BATCH = 64
"""Records that are parsed at once where a split is read into memory; more do not fit a core's own cache."""

FETCH_BYTES = 8 << 20
MADV_POPULATE_WRITE = 23
"""From Linux' mman-common.h; Python 3.10 does not name it."""

READ_BUFFER = 4 << 20

BLOCK = 128
"""Records that are picked from a shard at once where a split takes only some of its records."""


def records(split: Split) -> tf.data.Dataset:
    """Serialised records in the order of the shards."""
    if split.offsets:
        return tf.data.Dataset.range(len(split.shards)).flat_map(lambda number: shard_records(split, number))
    return tf.data.TFRecordDataset([os.fspath(path) for path in split.shards], buffer_size=READ_BUFFER)


def shard_records(split: Split, number: tf.Tensor) -> tf.data.Dataset:
    """The records of one shard that belong to a split, serialised, in their order.

    Args:
        split: The files.
        number: Of the shard, int64 scalar.
    """
    if not split.offsets:
        names = tf.constant([os.fspath(path) for path in split.shards])
        return tf.data.TFRecordDataset(names[number], buffer_size=READ_BUFFER)
    blocks = tf.constant([-(-len(offsets) // BLOCK) for offsets in split.offsets], tf.int64)

    def read(shard: Any, block: Any) -> Array:
        chosen = split.offsets[shard][block * BLOCK : (block + 1) * BLOCK]
        return np.array([record for _, record in read_chosen(split.shards[shard], chosen.tolist())], object)

    def pick(block: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read, [number, block], tf.string), [None])

    return tf.data.Dataset.range(blocks[number]).map(pick).unbatch()


def record_bytes(split: Split) -> int:
    """About how long a record of a split is."""
    if split.offsets:
        return len(read_at(split.shards[0], int(split.offsets[0][0])))
    return sum(path.stat().st_size for path in split.shards) // max(1, split.count)


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
        batches = parsed(records(split).batch(PARSE_BATCH), image_format, size).prefetch(tf.data.AUTOTUNE)
        yield from batches.as_numpy_iterator()
        return
    # Three times as fast as TensorFlow's parser, which copies each record several times.
    width, height = size.stored
    raw = RawRecords(width, height, n_classes)
    pixels, labels = np.empty((PARSE_BATCH, *size.shape), np.uint8), np.empty(PARSE_BATCH, np.int32)
    flat = memoryview(pixels.data).cast("B")
    held = 0
    for number, shard in enumerate(split.shards):
        found = read_chosen(shard, split.offsets[number].tolist()) if split.offsets else read_records(shard)
        for offset, record in found:
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
