"""What every exported graph is, wherever its logits come from: calibration, threshold, and the signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")
IMAGES = tf.TensorSpec([None], tf.string, name="images")


class ServingGraph(tf.Module):
    """Logits to answers; `components.training.export.save` writes it. What gives the logits is up to the subclass.

    Attributes:
        weights: Variables of the network, or of several.
        constants: Further variables that the graph reads; nobody sets them any more.
        temperature: Divides the logits.
        bias: Added after that: a number for binary, one per class for subtype.
        threshold: P(positive) from which a patch is positive; binary only.

    Args:
        classes: Names in label order; two make it binary.
    """

    # The first argument of every tf.function must be called self, or export takes it for an input. No function has a
    # Python loop or branch over tensors: without AutoGraph, which looks for them, an export takes half the time.

    weights: list[Any]
    constants: list[Any]

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(name="histoline")
        self.constants = []
        self.temperature = tf.Variable(1.0, trainable=False, name="temperature")
        self.bias = tf.Variable(0.0 if len(classes) == 2 else [0.0] * len(classes), trainable=False, name="bias")
        self.threshold = tf.Variable(0.5, trainable=False, name="threshold")
        self._binary = len(classes) == 2
        self._names = tuple(classes)

    def set_calibration(self, temperature: float, bias: float | Sequence[float]) -> None:
        """Sets what logits are divided by, and what is then added: a number for binary, else one per class."""
        self.temperature.assign(temperature)
        self.bias.assign(np.reshape(np.asarray(bias, np.float32), self.bias.shape))

    def calibration(self) -> tuple[float, float | list[float]]:
        """Temperature and bias as the graph has them."""
        return float(self.temperature.numpy()), self.bias.numpy().tolist()

    @tf.function(input_signature=[EXAMPLES], autograph=False)
    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers serialised Examples, string[N]."""
        return self._answer(self._logits_of_examples(examples))

    @tf.function(input_signature=[IMAGES], autograph=False)
    def serve_bytes(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers PNG, JPEG or BMP files, string[N]."""
        return self._answer(self._logits_of_files(images))

    @tf.function(input_signature=[EXAMPLES], autograph=False)
    def bulk_inference(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers serialised Examples, string[N], in numbers alone: TFX's BulkInferrer fails on strings."""
        answer = self.serve_examples(examples)
        return {name: answer[name] for name in ("probability", "label")}

    @tf.function(input_signature=[EXAMPLES, tf.TensorSpec([None], tf.int64, name="classes")], autograph=False)
    def explain(self, examples: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Where serialised Examples spoke for a class each, float32[N, H, W]: see `gradient_maps`. No signature."""
        return self._maps_of_examples(examples, classes)

    @property
    def explains(self) -> bool:
        """Whether `explain` can show anything."""
        raise NotImplementedError

    def pixel_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Stored images, uint8[N, H, W, 3], to float32[N, C]; for calibration, not exported as a signature."""
        raise NotImplementedError

    def probability(self, logits: tf.Tensor) -> tf.Tensor:
        """What the graph answers to logits, float32[N, C], with temperature and bias as they are now."""
        return self._answer(logits)["probability"]

    def _logits_of_examples(self, examples: tf.Tensor) -> tf.Tensor:
        """Serialised Examples to float32[N, C]."""
        raise NotImplementedError

    def _logits_of_files(self, images: tf.Tensor) -> tf.Tensor:
        """Image files to float32[N, C]."""
        raise NotImplementedError

    def _maps_of_examples(self, examples: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """What `explain` answers."""
        raise NotImplementedError

    def _answer(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = logits / self.temperature
        if self._binary:
            probability = tf.sigmoid(logits[:, 1] - logits[:, 0] + self.bias)
            label = tf.cast(probability >= self.threshold, tf.int64)
        else:
            probability = tf.nn.softmax(logits + self.bias)
            label = tf.argmax(probability, axis=1, output_type=tf.int64)
        return {
            "probability": tf.identity(probability, name="probability"),
            "label": label,
            "label_name": tf.gather(tf.constant(self._names), label),
        }
