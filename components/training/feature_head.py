"""Fits the head of `frozen_features`: weights for the layers of its graph, from features and labels alone.

Features are standardised for the fit, and that is folded into the weights: the served graph has no layer for it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.array_types import Array
from components.errors import DataError

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""L2 penalties per patch that cross-validation compares, the strongest first: each starts from the one before."""

HIDDEN_STRENGTHS = (0.1, 0.01, 0.001)
"""The same for a head with a hidden layer, each fit of which takes seconds."""

BATCH, STEPS, RATE = 128, 600, 0.003
"""Of a head with a hidden layer: so many steps of Adam, whatever the number of patches."""

STAGE_POWER = 0.5
"""A stage of F features is scaled by F to the power of minus this: all stages weigh the same."""

FOLDS, HIDDEN_FOLDS = 5, 3
LARGEST_ITERATIONS = 200
TOLERANCE = 1e-3
"""Of the gradient of the mean log loss; a smaller one changes no figure."""

Layers = tuple[tuple[Array, Array], ...]
"""Kernel and bias of each dense layer in turn, the last of which gives one logit per class."""


@dataclasses.dataclass(frozen=True)
class Head:
    """A fitted head.

    Attributes:
        layers: Its weights, float32.
        strength: L2 penalty per patch.
        scores: Penalty to mean log loss on patients that were left out; empty where none was compared.
        folds: How many parts of the patients were left out in turn.
    """

    layers: Layers
    strength: float
    scores: dict[float, float] = dataclasses.field(default_factory=dict)
    folds: int = 0


@dataclasses.dataclass(frozen=True)
class Samples:
    """What a head is fitted on.

    Attributes:
        features: float32[N, F].
        labels: int[N].
        groups: Patient (or slide) of each, [N].
        weights: Of each, with mean 1; None for equal ones.
        blocks: Widths of the stages that the features come from; empty for one.
    """

    features: Array
    labels: Array
    groups: Array
    weights: Array | None = None
    blocks: tuple[int, ...] = ()

    def take(self, places: Array) -> Samples:
        """Some of them."""
        weights = None if self.weights is None else self.weights[places]
        return dataclasses.replace(
            self,
            features=self.features[places],
            labels=self.labels[places],
            groups=self.groups[places],
            weights=weights,
        )

    def standards(self) -> tuple[Array, Array]:
        """What is taken off each feature, and what it is then divided by, [F].

        The deviation, times a factor by which a wide stage does not outweigh a narrow one under one penalty.
        """
        mean, std = self.features.mean(axis=0, dtype=np.float64), self.features.std(axis=0, dtype=np.float64)
        widths = np.repeat(self.blocks, self.blocks) if self.blocks else np.ones(len(mean))
        share = widths**STAGE_POWER
        return mean, np.where(std > 1e-6, std, 1.0) * share * np.sqrt(np.mean(share**-2.0))


def fit_head(samples: Samples, n_classes: int, *, strength: float = 0.0, units: int = 0, seed: int = 0) -> Head:
    """Fits a head, choosing its penalty where none is given.

    Args:
        samples: Of the training split.
        n_classes: Classes of the task; one that `samples` lacks gets a logit that never wins.
        strength: L2 penalty per patch; 0 to choose it by cross-validation over groups.
        units: Hidden units; 0 for a linear head.
        seed: Of the folds, and of a hidden layer's first weights.

    Raises:
        DataError: Only one class.
    """
    if len(np.unique(samples.labels)) < 2:
        raise DataError("The training split holds one class only: a head has nothing to tell apart.", "Ingest more.")
    from threadpoolctl import threadpool_limits

    def fit(part: Samples, strengths: Sequence[float]) -> list[Layers]:
        if units:
            return [_mlp(part, n_classes, one, units, seed) for one in strengths]
        return _linear(part, n_classes, strengths)

    # More threads than cores that are free only wait for each other.
    with threadpool_limits(1, user_api="openmp"):
        if strength:
            return Head(fit(samples, (strength,))[0], strength)
        compared, folds = (HIDDEN_STRENGTHS, HIDDEN_FOLDS) if units else (STRENGTHS, FOLDS)
        scores, used = _cross_validate(samples, fit, compared, folds, seed)
        best = min(scores, key=lambda one: scores[one]) if scores else compared[len(compared) // 2]
        path = [one for one in compared if one > best and not units]  # each fit starts from the one before
        return Head(fit(samples, [*path, best])[-1], best, scores, used)


def predict(layers: Sequence[tuple[Array, Array]], features: Array) -> Array:
    """Logits [N, C] of features [N, F], as the graph computes them."""
    x = features
    for number, (kernel, bias) in enumerate(layers):
        x = x @ kernel + bias
        if number < len(layers) - 1:
            x = np.maximum(x, 0)
    return x


def log_loss(logits: Array, labels: Array, weights: Array | None = None) -> float:
    """Mean cross-entropy of logits [N, C]."""
    from scipy.special import logsumexp

    each = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return float(np.average(each, weights=weights))


def _cross_validate(
    samples: Samples,
    fit: Callable[[Samples, Sequence[float]], list[Layers]],
    compared: Sequence[float],
    folds: int,
    seed: int,
) -> tuple[dict[float, float], int]:
    """Penalty to mean log loss on the patients that each fold leaves out, and how many folds; none of one patient."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, len(np.unique(samples.groups)))
    if folds < 2:
        return {}, 0
    losses: dict[float, list[float]] = {one: [] for one in compared}
    sizes = []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for inside, outside in splitter.split(samples.features, samples.labels, samples.groups):
        part, rest = samples.take(inside), samples.take(outside)
        if len(np.unique(part.labels)) < 2 or not len(outside):
            continue
        sizes.append(len(outside))
        for one, layers in zip(compared, fit(part, compared), strict=True):
            losses[one].append(log_loss(predict(layers, rest.features), rest.labels, rest.weights))
    if not sizes:
        return {}, 0
    return {one: float(np.average(each, weights=sizes)) for one, each in losses.items()}, len(sizes)


def _linear(samples: Samples, n_classes: int, strengths: Sequence[float]) -> list[Layers]:
    """Logistic regression under each penalty in turn, each from where the one before ended."""
    from sklearn.linear_model import LogisticRegression

    mean, std = samples.standards()
    x = (samples.features - mean.astype(np.float32)) / std.astype(np.float32)
    classes = np.unique(samples.labels)
    model = LogisticRegression(max_iter=LARGEST_ITERATIONS, tol=TOLERANCE, warm_start=True)
    made: list[Layers] = []
    for strength in strengths:
        # scikit-learn's C weighs the sum over patches against half of the squared weights.
        model.set_params(C=1.0 / (strength * len(x)))
        model.fit(x, samples.labels, samples.weights)
        kernel, bias = np.asarray(model.coef_, np.float64).T, np.asarray(model.intercept_, np.float64)
        if len(classes) == 2:
            kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
        made.append((_folded(*_all_classes(kernel, bias, classes, n_classes), mean, std),))
    return made


def _mlp(samples: Samples, n_classes: int, strength: float, units: int, seed: int) -> Layers:
    """One hidden layer of rectified units under a penalty."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    mean, std = samples.standards()
    x, labels = (samples.features - mean.astype(np.float32)) / std.astype(np.float32), samples.labels
    if samples.weights is not None:  # this estimator takes none: patches are drawn by weight instead
        share = samples.weights / samples.weights.sum()
        drawn = np.random.default_rng(seed).choice(len(share), len(share), p=share)
        x, labels = x[drawn], labels[drawn]
    size = min(BATCH, len(x))
    epochs = -(-STEPS // -(-len(x) // size))
    # scikit-learn divides its penalty by the size of the batch.
    model: Any = MLPClassifier(
        (units,),
        alpha=strength * size,
        batch_size=size,
        learning_rate_init=RATE,
        max_iter=epochs,
        tol=0,
        n_iter_no_change=epochs,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is meant
        model.fit(x, labels)
    (first, last), (first_bias, last_bias) = model.coefs_, model.intercepts_
    if last.shape[1] == 1:
        last, last_bias = np.concatenate([-last, last], axis=1) / 2, np.concatenate([-last_bias, last_bias]) / 2
    last, last_bias = _all_classes(last, last_bias, model.classes_, n_classes)
    return _folded(first, first_bias, mean, std), (last.astype(np.float32), last_bias.astype(np.float32))


NEVER = -30.0
"""Logit of a class that training did not hold, beside those of the others."""


def _all_classes(kernel: Array, bias: Array, classes: Array, n_classes: int) -> tuple[Array, Array]:
    """Columns for every class of the task."""
    whole, offsets = np.zeros((len(kernel), n_classes)), np.full(n_classes, NEVER)
    whole[:, classes], offsets[classes] = kernel, bias
    return whole, offsets


def _folded(kernel: Array, bias: Array, mean: Array, std: Array) -> tuple[Array, Array]:
    """Weights on standardised features as weights on the features themselves."""
    own: npt.NDArray[np.float64] = kernel / std[:, None]
    return own.astype(np.float32), (bias - mean @ own).astype(np.float32)
