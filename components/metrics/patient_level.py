"""Figures in which a patient counts once: one decision per patient, and patches weighed by their patient."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from components.metrics.bootstrap import Resamples, percentile_interval
from components.metrics.calibration import probability_of, scores_from_probability
from components.metrics.intervals import Interval
from components.metrics.per_group import group_index
from components.metrics.point import Array, ratio
from components.metrics.resampled import weighted_auc

SEVERAL_LABELS = "several_labels"


@dataclasses.dataclass(frozen=True)
class Patients:
    """One row per patient.

    Attributes:
        names: Groups, sorted, [G].
        labels: Class number of each, [G].
        probability: From the mean logit of its patches: P(positive) [G], or [G, C].
    """

    names: Array
    labels: Array
    probability: Array


def patients(labels: npt.ArrayLike, probability: npt.ArrayLike, groups: npt.ArrayLike) -> Patients | None:
    """Patches put together to patients, where every patient has one label.

    The mean of the logits is the logarithm of the geometric mean of the odds: one patch that is very sure does not
    outvote all others, as it would in the mean of the probabilities.

    Args:
        labels: Class numbers of the patches, [N].
        probability: P(positive) [N], or [N, C].
        groups: Patient of each patch, [N].

    Returns:
        None where a patient has patches of several labels, or there are no patches.
    """
    y = np.asarray(labels).astype(int)
    names, index = group_index(groups)
    size = np.bincount(index, minlength=names.size)
    mean_label = ratio(np.bincount(index, weights=y, minlength=names.size), size)
    if not y.size or (mean_label[index] != y).any():
        return None
    scores = scores_from_probability(probability)
    columns = scores[:, None] if scores.ndim == 1 else scores
    means = np.stack([np.bincount(index, weights=column, minlength=names.size) / size for column in columns.T], axis=1)
    return Patients(names, mean_label.astype(int), probability_of(means[:, 0] if scores.ndim == 1 else means))


def patient_weighted_auc(labels: npt.ArrayLike, scores: npt.ArrayLike, resamples: Resamples) -> Interval:
    """AUC in which the patches of each patient together weigh the same, with its interval.

    In the pooled AUC a patient with a thousand patches weighs ten times as much as one with a hundred.

    Args:
        labels: 0 or 1, [N].
        scores: [N].
        resamples: Of the same patches.
    """
    auc, each = weighted_auc(np.asarray(labels), np.asarray(scores), resamples.index), _shares(resamples.index)
    values = auc(resamples.weights * each) if len(resamples.weights) else np.zeros(0)
    return percentile_interval(float(auc(each[None, :])[0]), values, resamples)


def patient_weighted_auc_point(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """The same without an interval; NaN where a class is missing."""
    _, index = group_index(groups)
    return float(weighted_auc(np.asarray(labels), np.asarray(scores), index)(_shares(index)[None, :])[0])


def _shares(index: Array) -> Array:
    """Weight of one patch of each group, [G], so that the groups weigh the same."""
    return ratio(1.0, np.bincount(index))
