"""From a data set's shards to shuffled batches of uint8 images.

Two ways, chosen by size. A split that fits into memory is parsed once into one array; each epoch is then a fresh
permutation of all of it, gathered batch by batch (the fastest way measured, and a full shuffle). A larger one is
streamed: shards in random order, read side by side, shuffled as serialised records, parsed a batch at a time.

Order depends on seed and epoch alone, so an epoch can be taken up anywhere: a run that resumes sees what an unbroken
run would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.datasets.committed import DatasetFiles, Split
from components.errors import DataError
from components.training.class_cap import CappedClasses, capped_classes
from components.training.image_graph import ImageSize
from components.training.recipe_parts import ClassCap
from components.training.split_records import load, parsed, record_bytes, records, shard_records

MEMORY_SHARE = 0.25
"""Share of the machine's free memory that the cached pixels of one split may take."""

SHUFFLE_BYTES = 256 << 20
"""Size of the buffer in which streamed records are shuffled."""

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
        capped: Draws the patches of each training epoch; None for all of them.
    """

    split: Split
    image_format: str
    size: ImageSize
    images: Any = None
    labels: npt.NDArray[np.int32] | None = None
    capped: CappedClasses | None = None

    @property
    def by_class(self) -> tuple[int, ...]:
        """Images of a training epoch by class in label order."""
        return self.split.by_class if self.capped is None else self.capped.by_class

    def steps(self, batch_size: int) -> int:
        """Training batches in an epoch: all full, so that graphs are compiled once and no replica is left empty.

        From memory, and of capped classes, the last one is filled up with images that are drawn again; streamed,
        what is left over after the last full batch is left out (each epoch something else).
        """
        count = sum(self.by_class)
        if self.images is not None or self.capped is not None or count < batch_size:
            return -(-count // batch_size)
        return count // batch_size

    def training(self, batch_size: int, seed: int, *, epochs: range, balanced: bool = False) -> tf.data.Dataset:
        """Shuffled batches, epoch after epoch.

        Args:
            batch_size: Images per batch.
            seed: Of the order.
            epochs: Numbers of the epochs, which with the seed decide on the order; `steps` batches each.
            balanced: Whether classes are drawn equally often.

        Returns:
            Batches (uint8[B, H, W, 3], int32[B]).
        """
        one = self._epoch_streamed if self.images is None and self.capped is None else self._epoch_by_place
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
        return self._parsed(records(self.split).batch(batch_size)).prefetch(tf.data.AUTOTUNE)

    def _epoch_by_place(self, epoch: tf.Tensor, batch_size: int, seed: int, balanced: bool) -> tf.data.Dataset:
        """An epoch whose images are picked one by one, from memory or by their places in the shards."""

        def order(number: Any) -> npt.NDArray[np.int64]:
            return self._places(seed, int(number), batch_size, balanced).reshape(-1, batch_size)

        places = tf.ensure_shape(tf.numpy_function(order, [epoch], tf.int64), [self.steps(batch_size), batch_size])
        batches = tf.data.Dataset.from_tensor_slices(places)
        if self.images is None:
            capped = self.capped
            assert capped is not None
            found = batches.map(
                lambda i: tf.ensure_shape(tf.numpy_function(capped.read, [i], tf.string), [batch_size]),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            return self._parsed(found)
        images, targets = self.images, tf.constant(self.labels)
        return batches.map(lambda i: (tf.gather(images, i), tf.gather(targets, i)), num_parallel_calls=tf.data.AUTOTUNE)

    def _places(self, seed: int, epoch: int, batch_size: int, balanced: bool) -> npt.NDArray[np.int64]:
        """Which image of the split stands where in an epoch."""
        if self.capped is None:
            assert self.labels is not None
            return epoch_order(self.labels, seed, epoch, batch_size, balanced=balanced)
        members = self.capped.members(seed, epoch)
        return members[epoch_order(self.capped.labels[members], seed, epoch, batch_size, balanced=balanced)]

    def _epoch_streamed(self, epoch: tf.Tensor, batch_size: int, seed: int, balanced: bool) -> tf.data.Dataset:
        count = self.split.count
        buffer = max(batch_size, min(count, SHUFFLE_BYTES // max(1, record_bytes(self.split))))
        files = len(self.split.shards)

        def shard_order(number: Any) -> npt.NDArray[np.int64]:
            return _rng(seed, int(number)).permutation(files)

        shards = tf.ensure_shape(tf.numpy_function(shard_order, [epoch], tf.int64), [files])
        stream_seed = epoch + tf.constant(seed, tf.int64) * 1_000_003
        stream = _interleave(self.split, shards)
        if balanced:
            present = [label for label, patches in enumerate(self.split.by_class) if patches]
            streams = [
                stream.filter(_has_label(label))
                .repeat()
                .shuffle(max(1, buffer // len(present)), stream_seed + 1 + label)
                for label in present
            ]
            # Counted draws in place of sample_from_datasets: every batch and every epoch is balanced.
            stream = tf.data.Dataset.choose_from_datasets(
                streams, tf.data.Dataset.range(len(streams)).repeat(), stop_on_empty_dataset=True
            ).take(self.steps(batch_size) * batch_size)
        else:
            stream = stream.shuffle(buffer, stream_seed, reshuffle_each_iteration=False)
        if count < batch_size:
            stream = stream.repeat().take(batch_size)
        return self._parsed(stream.batch(batch_size, drop_remainder=True))

    def _parsed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        return parsed(batches, self.image_format, self.size)


def open_split(data: DatasetFiles, name: str, *, cache: bool | None = None, cap: ClassCap | None = None) -> Reader:
    """Makes a split ready for reading.

    Args:
        data: The data set.
        name: `train`, `eval` or `test`.
        cache: Whether its pixels are kept in memory; None: where they fit (`MEMORY_SHARE` of what is free).
        cap: How many training patches of each class an epoch takes; only for `train`.

    Raises:
        DataError: The split is empty, a record is damaged, or a label is none of the classes.
    """
    split = data.splits[name]
    size = ImageSize(data.source_size, data.stored_size)
    if not split.count:
        raise DataError(
            f"The split {name} of {data.folder} holds no patches.", "Ingest again with a larger share for this split."
        )
    reader = Reader(split, data.image_format, size, capped=capped_classes(data, cap) if cap is not None else None)
    if cache is None:
        cache = fits(data, name)
    if not cache:
        return reader
    images, labels = load(split, reader.image_format, size, len(data.classes))
    return dataclasses.replace(reader, images=images, labels=labels)


def fits(data: DatasetFiles, name: str) -> bool:
    """Whether a split's pixels may be kept in the memory of this machine, as it is now."""
    size = ImageSize(data.source_size, data.stored_size)
    return data.splits[name].count * size.bytes <= MEMORY_SHARE * free_memory()


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


def _interleave(split: Split, shards: tf.Tensor) -> tf.data.Dataset:
    """Serialised records of all shards, read side by side; in the same order at every run."""
    return tf.data.Dataset.from_tensor_slices(shards).interleave(
        lambda number: shard_records(split, number),
        cycle_length=READERS, block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True,
    )  # fmt: skip


def _has_label(label: int) -> Callable[[tf.Tensor], tf.Tensor]:
    features = {"label": tf.io.FixedLenFeature([], tf.int64)}
    return lambda record: tf.equal(tf.io.parse_single_example(record, features)["label"], label)

