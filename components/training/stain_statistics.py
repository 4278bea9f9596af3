"""What a training split says of its stains: the target of normalisation, and the spread that augmentation draws from.

Both are measured on the first records of every shard. A split is permuted before it is cut into shards, so these are a
random sample, and the same one on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.core.array_types import Array
from components.datasets.committed import Split
from components.errors import DataError
from components.training.colour_spaces import TISSUE_SHARE, TO_SPACE, moments, tissue
from components.training.image_graph import ImageSize, parse_training
from components.training.split_records import shard_records
from components.training.stain_normalisation import SMALLEST_STD, stains_of
from components.training.stain_targets import SPACES, StainSpread, StainTarget, Vector

SAMPLE = 512
"""Patches of a split that are looked at."""

BATCH_PIXELS = 1 << 20
"""Pixels that are looked at at once."""

POOLED = 512
"""Tissue pixels of each patch in the pool from which Macenko's two stains are found."""

FEWEST = 8
"""Patches with tissue below which nothing is measured."""

DIGITS = 4


def target(split: Split, image_format: str, size: ImageSize, method: str) -> StainTarget | None:
    """What the images of a split are normalised to, so that its usual patch stays about as it is.

    For `reinhard` the mean over the patches of their own mean and deviation; for `macenko` the stains of all patches'
    pixels together, and the median of the patches' own 99th percentiles.

    Args:
        split: The training split.
        image_format: `raw` or `encoded`.
        size: Of its images.
        method: One of `NORMALISATIONS`.

    Returns:
        None for the method `none`.

    Raises:
        DataError: Too few patches with tissue.
    """
    if method == "none":
        return None
    if method == "reinhard":
        mean, std = _moments(split, image_format, size, "lab")
        return StainTarget("reinhard", (_vector(mean.mean(axis=0)), _vector(std.mean(axis=0))))
    pool, highest = [], []
    for levels in _sample(split, image_format, size):
        _, _, tops, able = (np.asarray(found) for found in stains_of(levels))
        highest.append(tops[able])
        pool.append(levels[able][:, :: max(1, levels.shape[1] // POOLED)].reshape(-1, 3))
    amounts = np.concatenate(highest)
    _enough(split, len(amounts))
    stains, _, _, able = (np.asarray(found) for found in stains_of(np.concatenate(pool)[None]))
    if not able[0]:
        raise DataError(
            f"The patches of {split.name} show one stain only, so there is nothing to normalise to.",
            "Set stain_normalisation to reinhard or none.",
        )
    median = np.median(amounts, axis=0)
    return StainTarget(
        "macenko",
        (_vector(stains[0, 0]), _vector(stains[0, 1])),
        tuple(round(float(amount), DIGITS) for amount in median),
    )


def spreads(split: Split, image_format: str, size: ImageSize, choice: str) -> tuple[StainSpread, ...]:
    """How the patches of a split differ, in the colour spaces that a recipe's `stain_augmentation` names.

    Args:
        split: The training split.
        image_format: `raw` or `encoded`.
        size: Of its images.
        choice: One of `AUGMENTATIONS`.

    Raises:
        DataError: Too few patches with tissue.
    """
    wanted = {"none": (), "both": SPACES}.get(choice, (choice,))
    found = []
    for space in wanted:
        mean, std = _moments(split, image_format, size, space)
        numbers = (mean.mean(axis=0), mean.std(axis=0), std.mean(axis=0), std.std(axis=0))
        found.append(StainSpread(space, *(_vector(number) for number in numbers)))
    return tuple(found)


def _moments(split: Split, image_format: str, size: ImageSize, space: str) -> tuple[Array, Array]:
    """Mean and deviation over the tissue of each patch that has some, [M, 3] each."""
    means, stds = [], []
    for levels in _sample(split, image_format, size):
        weights = tissue(levels)
        lightness = moments(TO_SPACE["lab"](levels), weights)[1][:, 0, 0]
        able = (np.asarray(weights).mean(axis=1) >= TISSUE_SHARE) & (np.asarray(lightness) >= SMALLEST_STD)
        mean, std = moments(TO_SPACE[space](levels), weights)
        means.append(np.asarray(mean)[able, 0])
        stds.append(np.asarray(std)[able, 0])
    mean, std = np.concatenate(means), np.concatenate(stds)
    _enough(split, len(mean))
    return mean, std


def _sample(split: Split, image_format: str, size: ImageSize) -> Iterator[npt.NDArray[np.float32]]:
    """Grey levels float32[N, P, 3], some patches at a time."""
    each = -(-SAMPLE // len(split.shards))
    numbers = tf.data.Dataset.range(len(split.shards))
    records = numbers.flat_map(lambda number: shard_records(split, number).take(each)).take(SAMPLE)
    height, width, _ = size.shape
    for batch in records.batch(max(1, BATCH_PIXELS // (height * width))):
        images = parse_training(batch, image_format, size)[0].numpy()
        yield images.reshape(len(images), height * width, 3).astype(np.float32)


def _enough(split: Split, count: int) -> None:
    if count < FEWEST:
        raise DataError(
            f"Only {count} of the sampled patches of {split.name} show tissue in more than one colour; measuring its "
            f"stains takes {FEWEST}.",
            "Set stain_normalisation and stain_augmentation to none.",
        )


def _vector(values: Array) -> Vector:
    first, second, third = (round(float(value), DIGITS) for value in values)
    return first, second, third
