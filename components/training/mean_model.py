"""One SavedModel that answers with the mean of several exported ones, on the logit scale.

A member counts with what it serves: its own temperature and bias are applied first. The mean has a temperature, a bias
and a threshold of its own, and is saved as every model is (`components.training.export.save`). Members are read from
their SavedModels with plain TensorFlow; their families and input sizes may differ, each prepares images for itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.errors import DataError, UsageError
from components.training.export import FACTS
from components.training.serving_graph import ServingGraph

SAME = ("task", "classes", "source_size", "stored_size")
"""What members must agree on: the same files and records go to each of them."""

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.float32(1) - np.finfo(np.float32).epsneg)
"""Probabilities between 0 and 1 that float32 still tells from them; a member that is surer counts as these."""


class MeanServing(ServingGraph):
    """The graph of a mean; `load_mean` reads its members.

    Args:
        members: Loaded SavedModels of ours.
        classes: Names in label order; two make it binary.
    """

    def __init__(self, members: Sequence[Any], classes: Sequence[str]) -> None:
        super().__init__(classes)
        # The variables are kept, not the loaded objects: these would bring all their functions along.
        self.weights = [weight for member in members for weight in member.weights]
        answers = [member.signatures["serving_default"] for member in members]
        kept = {id(weight) for weight in self.weights}
        self.constants = [v for answer in answers for v in answer.variables if id(v) not in kept]
        self._of_examples = answers
        self._of_files = [member.signatures["serve_bytes"] for member in members]
        self._explain: list[Any] = [member.explain for member in members if hasattr(member, "explain")]
        self._members = _Untracked(members)

    @property
    def explains(self) -> bool:
        """Whether every member can show where it looked."""
        return len(self._explain) == len(self._of_examples)

    def pixel_logits(self, images: tf.Tensor) -> tf.Tensor:
        """See `ServingGraph`."""
        return self._logits_of_examples(tf.constant([_record(image) for image in np.asarray(images)]))

    def _logits_of_examples(self, examples: tf.Tensor) -> tf.Tensor:
        return self._mean([answer(examples=examples) for answer in self._of_examples])

    def _logits_of_files(self, images: tf.Tensor) -> tf.Tensor:
        return self._mean([answer(images=images) for answer in self._of_files])

    def _maps_of_examples(self, examples: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """The mean of the members' maps, each on a scale on which the strongest place of an image is 1."""
        total = tf.constant(0.0)
        for explain in self._explain:
            maps = explain(examples, classes)
            total += tf.math.divide_no_nan(maps, tf.reduce_max(tf.abs(maps), axis=(1, 2), keepdims=True))
        return total / len(self._explain)

    def _mean(self, answers: Sequence[Mapping[str, tf.Tensor]]) -> tf.Tensor:
        # In float64, since float32 would lose what the members' own answers still tell apart.
        probability = tf.cast(tf.stack([answer["probability"] for answer in answers]), tf.float64)
        probability = tf.clip_by_value(probability, SMALLEST, LARGEST)
        if self._binary:
            odds = tf.reduce_mean(tf.math.log(probability) - tf.math.log1p(-probability), axis=0)
            logits = tf.stack([tf.zeros_like(odds), odds], axis=1)
        else:
            logits = tf.reduce_mean(tf.math.log(probability), axis=0)
        return tf.cast(logits, tf.float32)


class _Untracked:
    """Holds loaded models, to which their functions refer only weakly, out of sight of tf.Module's tracking."""

    def __init__(self, members: Sequence[Any]) -> None:
        self._members = members


def _record(pixels: Any) -> bytes:
    """An Example with nothing but pixels."""
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels.tobytes()]))
    record: bytes = tf.train.Example(features=tf.train.Features(feature={"image/raw": value})).SerializeToString()
    return record


def load_mean(folders: Sequence[Path]) -> MeanServing:
    """Reads exported models and makes their mean, uncalibrated: temperature 1, bias 0, threshold 0.5.

    Args:
        folders: Of SavedModels that `components.training.export.save` wrote; a mean may be one of them.

    Raises:
        UsageError: None, or models of different tasks, classes or image sizes.
        DataError: One is missing or damaged.
    """
    if not folders:
        raise UsageError("A mean of models needs at least one model.")
    facts = [member_facts(folder) for folder in folders]
    for folder, other in zip(folders, facts, strict=True):
        for field in SAME:
            if other[field] != facts[0][field]:
                raise UsageError(
                    f"{folder} has another {field.replace('_', ' ')} than {folders[0]}: {other[field]}, not"
                    f" {facts[0][field]}; they have no mean.",
                    "Choose models that were trained on the same data set.",
                )
    members = []
    for folder in folders:
        try:
            members.append(tf.saved_model.load(os.fspath(folder)))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                f"The model {folder} can't be loaded: {str(error).splitlines()[0]}", "Train it again."
            ) from error
    return MeanServing(members, facts[0]["classes"])


def member_facts(folder: Path) -> dict[str, Any]:
    """What an exported model says of itself, with what `load_mean` compares.

    Raises:
        DataError: The model is gone, or does not say it.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        for field in SAME:
            facts[field]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} holds no exported model that says what it is ({FACTS}).",
            "Name runs whose models are still there: histoline runs list.",
        ) from error
    return facts
