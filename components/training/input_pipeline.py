"""From a data set's shards to shuffled batches of uint8 images.

Two ways, chosen by size. A split that fits into memory is parsed once into one array; each epoch is then a fresh
permutation of all of it, gathered batch by batch (the fastest way measured, and a full shuffle). A larger one is
streamed: shards in random order, read side by side, shuffled as serialised records, parsed a batch at a time.

Order depends on seed and epoch alone, so an epoch can be taken up anywhere: a run that resumes sees what an unbroken
run would have seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.core.machine import cores
from components.datasets.committed import DatasetFiles, Split
from components.datasets.example import RawRecords
from components.datasets.tfrecord import read_records
from components.errors import DataError
from components.training.image_graph import ImageSize, parse_training

MEMORY_SHARE = 0.25
"""Share of the machine's free memory that the cached pixels of one split may take."""

SHUFFLE_BYTES = 256 << 20
"""Size of the buffer in which streamed records are shuffled."""

PARSE_BATCH = 64
"""Records that are parsed at once where a split is read into memory; more do not fit a core's own cache."""

FETCH_BYTES = 8 << 20
MADV_POPULATE_WRITE = 23
"""From Linux' mman-common.h; Python 3.10 does not name it."""

READ_BUFFER = 4 << 20
READERS = 8
"""Shards that are read side by side."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """Batches of one split.

    Attributes:
        split: The files.
        image_format: `raw` or `encoded`.
        size: Of the images.
        images: uint8[N, H, W, 3] of the whole split where it fits into memory, else None.
        labels: int32[N], likewise.
    """

    split: Split
    image_format: str
    size: ImageSize
    images: Any = None
    labels: npt.NDArray[np.int32] | None = None

    def steps(self, batch_size: int) -> int:
        """Training batches in an epoch: all full, so that graphs are compiled once and no replica is left empty.

        From memory the last one is filled up with images that are drawn again; streamed, what is left over after
        the last full batch is left out (each epoch something else).
        """
        if self.images is not None or self.split.count < batch_size:
            return -(-self.split.count // batch_size)
        return self.split.count // batch_size

    def training(
        self, batch_size: int, seed: int, *, epochs: range, balanced: bool = False
    ) -> tf.data.Dataset:
        """Shuffled batches, epoch after epoch.

        Args:
            batch_size: Images per batch.
            seed: Of the order.
            epochs: Numbers of the epochs, which with the seed decide on the order; `steps` batches each.
            balanced: Whether classes are drawn equally often.

        Returns:
            Batches (uint8[B, H, W, 3], int32[B]).
        """
        one = self._epoch_in_memory if self.images is not None else self._epoch_streamed
        numbers = tf.data.Dataset.range(epochs.start, epochs.stop)
        batches = numbers.flat_map(lambda epoch: one(epoch, batch_size, seed, balanced)).prefetch(tf.data.AUTOTUNE)
        options = tf.data.Options()
        # Nothing here can be fused, and the optimiser would copy all the pixels into its graph: 0.2 s for 262 MB.
        options.experimental_optimization.apply_default_optimizations = self.images is None
        return batches.with_options(options)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """All images once, in the order of the shards; the last batch may be smaller."""
        if self.images is not None:
            images, labels = self.images, tf.constant(self.labels)
            numbers = tf.data.Dataset.range(self.split.count).batch(batch_size)
            return numbers.map(lambda i: (tf.gather(images, i), tf.gather(labels, i))).prefetch(tf.data.AUTOTUNE)
        return self._parsed(_records(self.split.shards).batch(batch_size)).prefetch(tf.data.AUTOTUNE)

    def _epoch_in_memory(self, epoch: tf.Tensor, batch_size: int, seed: int, balanced: bool) -> tf.data.Dataset:
        labels = self.labels
        assert labels is not None

        def order(number: Any) -> npt.NDArray[np.int64]:
            return epoch_order(labels, seed, int(number), batch_size, balanced=balanced).reshape(-1, batch_size)

        places = tf.ensure_shape(tf.numpy_function(order, [epoch], tf.int64), [self.steps(batch_size), batch_size])
        images, targets = self.images, tf.constant(labels)
        return tf.data.Dataset.from_tensor_slices(places).map(
            lambda i: (tf.gather(images, i), tf.gather(targets, i)), num_parallel_calls=tf.data.AUTOTUNE
        )

    def _epoch_streamed(self, epoch: tf.Tensor, batch_size: int, seed: int, balanced: bool) -> tf.data.Dataset:
        count = self.split.count
        buffer = max(batch_size, min(count, SHUFFLE_BYTES // max(1, _record_bytes(self.split))))
        names = np.array([os.fspath(path) for path in self.split.shards])

        def shard_order(number: Any) -> npt.NDArray[np.object_]:
            shuffled: npt.NDArray[np.object_] = names[_rng(seed, int(number)).permutation(len(names))].astype(object)
            return shuffled

        shards = tf.ensure_shape(tf.numpy_function(shard_order, [epoch], tf.string), [len(names)])
        stream_seed = epoch + tf.constant(seed, tf.int64) * 1_000_003
        records = _interleave(shards)
        if balanced:
            present = [label for label, patches in enumerate(self.split.by_class) if patches]
            streams = [
                records.filter(_has_label(label))
                .repeat()
                .shuffle(max(1, buffer // len(present)), stream_seed + 1 + label)
                for label in present
            ]
            # Counted draws in place of sample_from_datasets: every batch and every epoch is balanced.
            records = tf.data.Dataset.choose_from_datasets(
                streams, tf.data.Dataset.range(len(streams)).repeat(), stop_on_empty_dataset=True
            ).take(self.steps(batch_size) * batch_size)
        else:
            records = records.shuffle(buffer, stream_seed, reshuffle_each_iteration=False)
        if count < batch_size:
            records = records.repeat().take(batch_size)
        return self._parsed(records.batch(batch_size, drop_remainder=True))

    def _parsed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        return batches.map(
            lambda records: parse_training(records, self.image_format, self.size),
            num_parallel_calls=tf.data.AUTOTUNE,
        )


def open_split(data: DatasetFiles, name: str, *, cache: bool | None = None) -> Reader:
    """Makes a split ready for reading.

    Args:
        data: The data set.
        name: `train`, `eval` or `test`.
        cache: Whether its pixels are kept in memory; None: where they fit (`MEMORY_SHARE` of what is free).

    Raises:
        DataError: The split is empty, a record is damaged, or a label is none of the classes.
    """
    split = data.splits[name]
    size = ImageSize(data.source_size, data.stored_size)
    if not split.count:
        raise DataError(
            f"The split {name} of {data.folder} holds no patches.", "Ingest again with a larger share for this split."
        )
    reader = Reader(split, data.image_format, size)
    if cache is None:
        cache = split.count * size.bytes <= MEMORY_SHARE * free_memory()
    return _load(reader, len(data.classes)) if cache else reader


def _load(reader: Reader, n_classes: int) -> Reader:
    count, size = reader.split.count, reader.size
    images, labels = _aligned((count, *size.shape)), np.empty(count, np.int32)
    place = 0
    try:
        for pixels, numbers in _blocks(reader, n_classes):
            stop = place + len(numbers)
            if stop > count:
                raise DataError(f"The shards of {reader.split.name} hold more than the manifest's {count:,} records.")
            images[place:stop], labels[place:stop] = pixels, numbers
            place = stop
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, ValueError) as error:
        raise DataError(
            f"A record of {reader.split.shards[0].parent} can't be read: {_first_line(error)}.",
            "Run histoline verify on the data set, then ingest again.",
        ) from error
    found = np.bincount(labels[:place], minlength=n_classes)
    if place != count or tuple(found) != reader.split.by_class:
        raise DataError(
            f"{reader.split.shards[0].parent} holds {place:,} records ({found.tolist()} by class); "
            f"the manifest says {count:,} ({list(reader.split.by_class)}).",
            "Run histoline verify on the data set, then ingest again.",
        )
    # Shared with TensorFlow, not copied: the pixels are by far the largest thing in memory.
    shared = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return dataclasses.replace(reader, images=shared, labels=labels)


def _blocks(reader: Reader, n_classes: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]:
    """All images and labels of a split in the order of its shards, some at a time; each good until the next.

    Raises:
        ValueError, tf.errors.OpError: A record is damaged.
    """
    if reader.image_format != "raw":
        batches = reader._parsed(_records(reader.split.shards).batch(PARSE_BATCH)).prefetch(tf.data.AUTOTUNE)
        yield from batches.as_numpy_iterator()
        return
    # Three times as fast as TensorFlow's parser, which copies each record several times.
    width, height = reader.size.stored
    raw = RawRecords(width, height, n_classes)
    pixels, labels = np.empty((PARSE_BATCH, *reader.size.shape), np.uint8), np.empty(PARSE_BATCH, np.int32)
    flat = memoryview(pixels.data).cast("B")
    held = 0
    for shard in reader.split.shards:
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


def epoch_order(
    labels: npt.NDArray[np.int32], seed: int, epoch: int, batch_size: int, *, balanced: bool = False
) -> npt.NDArray[np.int64]:
    """Which image stands where in an epoch.

    Args:
        labels: int32[N].
        seed: Of the recipe.
        epoch: Number of the epoch.
        batch_size: The order is filled up to whole batches by images from its beginning.
        balanced: Whether each class gets the same share (to within one); its images are then drawn equally often
            too (to within one).

    Returns:
        int64[ceil(N / batch_size) * batch_size]; the first N are a permutation unless balanced.
    """
    rng = _rng(seed, epoch)
    total = -(-len(labels) // batch_size) * batch_size
    if not balanced:
        return np.resize(rng.permutation(len(labels)), total)
    present = np.unique(labels)
    shares = np.full(len(present), total // len(present))
    shares[rng.permutation(len(present))[: total % len(present)]] += 1
    parts = []
    for label, share in zip(present, shares, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = [rng.permutation(members) for _ in range(-(-share // len(members)))]
        parts.append(np.concatenate(rounds)[:share] if rounds else members[:0])
    return rng.permutation(np.concatenate(parts))


def free_memory() -> int:
    """Bytes of memory that are free on this machine."""
    import psutil

    return int(psutil.virtual_memory().available)


def _rng(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))


def _records(shards: tuple[Path, ...]) -> tf.data.Dataset:
    """Serialised records in the order of the shards."""
    return tf.data.TFRecordDataset([os.fspath(path) for path in shards], buffer_size=READ_BUFFER)


def _interleave(shards: tf.Tensor) -> tf.data.Dataset:
    """Serialised records of all shards, read side by side; in the same order at every run."""
    return tf.data.Dataset.from_tensor_slices(shards).interleave(
        lambda shard: tf.data.TFRecordDataset(shard, buffer_size=READ_BUFFER),
        cycle_length=READERS, block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True,
    )  # fmt: skip


def _has_label(label: int) -> Callable[[tf.Tensor], tf.Tensor]:
    features = {"label": tf.io.FixedLenFeature([], tf.int64)}
    return lambda record: tf.equal(tf.io.parse_single_example(record, features)["label"], label)


def _record_bytes(split: Split) -> int:
    return sum(path.stat().st_size for path in split.shards) // max(1, split.count)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
