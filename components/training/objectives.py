"""What training minimises and watches: losses, metrics, weights of classes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from components.training.recipe import TrainingConfig


class Crossentropy(keras.losses.Loss):
    """Categorical cross-entropy of labels given as numbers, with label smoothing and focal loss.

    Keras offers both for one-hot labels only. Focal loss (Lin et al. 2017, doi 10.1109/ICCV.2017.324) multiplies each
    class's term by (1 - p)^gamma; its second parameter, a weight per class, is what `class_weights` is for.

    Args:
        smoothing: Share of each label that is spread evenly over all classes.
        gamma: Exponent of the focal loss; 0 for plain cross-entropy.
        **kwargs: To `keras.losses.Loss`.
    """

    def __init__(self, smoothing: float = 0.0, gamma: float = 0.0, **kwargs: Any) -> None:
        super().__init__(name="crossentropy", **kwargs)
        self.smoothing = smoothing
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss per image, [N], of labels [N] or [N, 1] and probabilities [N, C]."""
        classes = y_pred.shape[-1]
        target = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes, dtype=y_pred.dtype)
        if not self.gamma:
            return keras.losses.categorical_crossentropy(target, y_pred, label_smoothing=self.smoothing)
        target = target * (1.0 - self.smoothing) + self.smoothing / classes
        p = ops.clip(y_pred, keras.config.epsilon(), 1.0 - keras.config.epsilon())
        return ops.sum(-target * ops.power(1.0 - p, self.gamma) * ops.log(p), axis=-1)


def make_loss(config: TrainingConfig) -> keras.losses.Loss:
    """Sparse categorical cross-entropy, binary and subtype alike, as the recipe changes it."""
    if config.label_smoothing or config.focal:
        return Crossentropy(config.label_smoothing, config.focal)
    return keras.losses.SparseCategoricalCrossentropy()


class PositiveAUC(keras.metrics.AUC):
    """Area under the ROC curve of P(class 1) of a softmax with two outputs; 200 cuts, so only about exact."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes labels [N] and probabilities [N, 2]."""
        super().update_state(ops.reshape(y_true, (-1,)), y_pred[:, 1], sample_weight)


class MacroF1(keras.metrics.F1Score):
    """Unweighted mean of the classes' F1 at the most probable class; a class that never occurs counts as 0.

    Args:
        n_classes: Number of classes.
        **kwargs: To `keras.metrics.F1Score`.
    """

    def __init__(self, n_classes: int, **kwargs: Any) -> None:
        super().__init__(average="macro", **kwargs)
        self.n_classes = n_classes

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes labels [N] and probabilities [N, C]."""
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        super().update_state(ops.one_hot(labels, self.n_classes), y_pred, sample_weight)


def make_metrics(config: TrainingConfig, n_classes: int) -> list[keras.metrics.Metric]:
    """What the history holds beside the loss: accuracy and `auc` (binary) or `macro_f1` (subtype)."""
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    if config.task == "binary":
        return [accuracy, PositiveAUC(name="auc")]
    return [accuracy, MacroF1(n_classes, name="macro_f1")]


def class_weights(config: TrainingConfig, counts: list[int]) -> dict[int, float] | None:
    """Weights for `fit`: total / (classes present * count), which leaves the mean weight of an image at 1.

    Args:
        config: The recipe.
        counts: Training patches of an epoch per class in label order.

    Returns:
        Class to weight; None where the recipe asks for none. A class without a patch weighs 0.
    """
    return _towards([1] * len(counts), counts) if config.class_weights == "balanced" else None


def moved_prior(config: TrainingConfig, split: list[int], epoch: list[int]) -> dict[int, float] | None:
    """By how much training weighs each class beside its share of the training split, for calibration to take back.

    Class weights, balanced sampling and a cap on classes (`max_train_per_class`) all do.

    Args:
        config: The recipe.
        split: Patches of the training split per class in label order.
        epoch: Those of an epoch.

    Returns:
        Class to weight, 1 in the mean over patches; None where classes weigh what they are.
    """
    if "balanced" in (config.class_weights, config.sampling):
        return _towards([1] * len(split), split)
    return None if epoch == split else _towards(epoch, split)


def _towards(shares: list[int], counts: list[int]) -> dict[int, float]:
    """Weights that give the classes present certain shares, at a mean weight of 1."""
    given = sum(share for share, count in zip(shares, counts, strict=True) if count)
    total = sum(counts)
    pairs = enumerate(zip(shares, counts, strict=True))
    return {i: total * share / (given * count) if count else 0.0 for i, (share, count) in pairs}
