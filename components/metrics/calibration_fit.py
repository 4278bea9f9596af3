"""How the logits of a model are scaled and shifted so that its probabilities mean what they say.

Binary: sigmoid(z / T + b), Platt scaling (Platt 1999, Probabilistic Outputs for Support Vector Machines). Several
classes: softmax(z / T + b) with one bias per class, vector scaling with one common scale (Guo et al. 2017, On
Calibration of Modern Neural Networks; Alexandari et al. 2020 call it bias-corrected temperature scaling). A
temperature alone is the special case without a bias; it cannot undo class weights, which move every logit by the
logarithm of the class's weight (Elkan 2001, The Foundations of Cost-Sensitive Learning; Saerens et al. 2002).
See docs/decisions/0034-scale-and-bias.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from components.errors import DataError
from components.metrics.calibration import probability_of, scores_from_probability
from components.metrics.per_group import group_index
from components.metrics.point import Array

TEMPERATURE_RANGE = (0.05, 20.0)
BIAS_LIMIT = 5.0
"""Largest bias: odds moved by a factor of 148."""

BIAS_SPREAD = 0.5
"""Standard deviation of the bias around what the class weights explain; 0.5 did best in the simulations of 0034."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fitted scale and bias.

    Attributes:
        temperature: Divides the logits; 1 changes nothing, more than 1 makes probabilities less extreme.
        bias: Added to them after that: one number for a binary task, else one per class, whose sum is 0.
        note: Empty, or why the temperature is not an optimum: `no_optimum` (likelihood has no maximum, as where the
            split is classified without an error or all logits are the same: 1 is kept), `at_bound` (no better than
            chance: the largest value is taken).
        expected: The bias that the class weights explain, of the same shape.
    """

    temperature: float
    bias: tuple[float, ...]
    note: str = ""
    expected: tuple[float, ...] = ()


def weights_bias(weights: Mapping[int, float] | None, n_classes: int) -> tuple[float, ...]:
    """The bias that takes the weights of training back: minus the logarithm of each class's weight.

    A loss in which class k weighs w_k is smallest where the odds are w_k times the true ones.

    Args:
        weights: Class number to weight, None for equal weights; a class that weighs 0 was not there.
        n_classes: Two give one number, for the logit of class 1; more give one per class, whose sum is 0.
    """
    given = weights or {}
    moved = np.array([np.log(given[k]) if given.get(k) else 0.0 for k in range(n_classes)])
    if n_classes == 2:
        return (float(np.clip(moved[0] - moved[1], -BIAS_LIMIT, BIAS_LIMIT)),)
    return tuple(float(b) for b in np.clip(moved.mean() - moved, -BIAS_LIMIT, BIAS_LIMIT))


def fit_calibration(
    labels: npt.ArrayLike,
    probability: npt.ArrayLike,
    groups: npt.ArrayLike,
    expected: Sequence[float] | None = None,
) -> Calibration:
    """Temperature and bias that are likeliest on the eval split, the bias held near what is expected of it.

    The mean log likelihood of a patch counts once per *group* (patches of one patient are no independent witnesses),
    against a Gaussian prior of the bias around `expected` with standard deviation 0.5: five patients hardly move it, a
    hundred decide. Convex in 1/T and bias together, both bounded ([0.05, 20] and [-5, 5]). The order of the
    probabilities, and with it AUC, stays as it is in a binary task.

    Args:
        labels: Class numbers, [N].
        probability: P(positive) [N], or [N, C].
        groups: Group of each patch, [N].
        expected: From `weights_bias`; None for no bias.

    Raises:
        DataError: No patches, or probabilities that are not finite.
    """
    y, p = np.asarray(labels).astype(int), np.asarray(probability)
    if not p.size or not np.isfinite(p).all():
        raise DataError(
            "Calibration of the eval split failed: it holds no patches, or the model gave probabilities that"
            " are not finite.",
            "Check the eval split, and the training history for a loss that diverged.",
        )
    scores = scores_from_probability(p)
    if scores.ndim == 2:
        scores = scores - scores.mean(axis=1, keepdims=True)
    width = 1 if scores.ndim == 1 else scores.shape[1]
    prior = np.zeros(width) if expected is None else np.asarray(expected, float)
    fit = _Fit(y, scores, group_index(groups)[0].size, prior)
    temperature, bias, note = fit.solve()
    return Calibration(temperature, tuple(map(float, bias)), note, tuple(map(float, prior)))


class _Fit:
    """The penalised likelihood of 1/T and bias, and its maximum."""

    def __init__(self, labels: Array, scores: Array, groups: int, prior: Array) -> None:
        self._y, self._scores, self._prior = labels, scores, prior
        self._target = labels.astype(float) if scores.ndim == 1 else np.eye(scores.shape[1])[labels]
        self._share = groups / len(labels)

    def solve(self) -> tuple[float, Array, str]:
        """Temperature, bias and note."""
        low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
        if self._separated():
            return 1.0, self._best(1.0, 1.0)[1], "no_optimum"
        scale, bias = self._best(low, high)
        if scale >= high * (1 - 1e-6):
            return 1.0, self._best(1.0, 1.0)[1], "no_optimum"
        return 1 / scale, bias, "at_bound" if scale <= low * (1 + 1e-6) else ""

    def _separated(self) -> bool:
        """Whether likelihood grows without end, or does not depend on the scale at all."""
        s, y = self._scores, self._y
        if np.ptp(s, axis=0).max() == 0:
            return True
        if s.ndim == 1:
            positive, negative = s[y == 1], s[y == 0]
            return not positive.size or not negative.size or bool(negative.max() <= positive.min())
        others = np.where(np.eye(s.shape[1], dtype=bool)[y], -np.inf, s).max(axis=1)
        return bool((s[np.arange(y.size), y] >= others).all())

    def _best(self, low: float, high: float) -> tuple[float, Array]:
        """The likeliest scale between two limits, and its bias."""
        from scipy.optimize import minimize

        start = np.concatenate([[np.clip(1.0, low, high)], self._prior])
        bounds = [(low, high)] + [(-BIAS_LIMIT, BIAS_LIMIT)] * len(self._prior)
        options = {"maxiter": 500, "ftol": 1e-15, "gtol": 1e-9}
        found = minimize(self._loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        return float(found[0]), np.asarray(found[1:])

    def _loss(self, x: Array) -> tuple[float, Array]:
        """Penalised loss and its gradient."""
        bias = x[1] if self._scores.ndim == 1 else x[1:]
        logits = x[0] * self._scores + bias
        if logits.ndim == 1:
            total = float(np.sum(np.logaddexp(0.0, logits) - self._target * logits))
        else:
            top = logits.max(axis=1)
            whole = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            total = float(np.sum(whole - logits[np.arange(self._y.size), self._y]))
        gap = probability_of(logits) - self._target
        off = (x[1:] - self._prior) / BIAS_SPREAD
        slopes = np.concatenate([[np.sum(gap * self._scores)], np.atleast_1d(gap.sum(axis=0))]) * self._share
        slopes[1:] += off / BIAS_SPREAD
        return self._share * total + 0.5 * float(off @ off), slopes
