"""Sensitivity, specificity and predictive values of a binary model as its threshold moves, each with its interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from components.metrics.bootstrap import BootstrapPlan, percentile_interval, plan_resamples
from components.metrics.intervals import Interval
from components.metrics.per_group import group_counts
from components.metrics.point import rates
from components.metrics.resampled import weighted_counts

STEPS = (0.01, 0.02, 0.05, *(round(0.05 * k, 2) for k in range(2, 19)), 0.95, 0.98, 0.99)
"""Thresholds on P(positive) that are looked at beside the stored one."""

SHOWN = ("sensitivity", "specificity", "ppv", "npv")


@dataclasses.dataclass(frozen=True)
class ThresholdStep:
    """What a model does at one threshold.

    Attributes:
        threshold: P(positive) from which a patch is called positive.
        stored: Whether it is the model's own.
        called: Patches called positive.
        missed: Positive patches called negative.
        false_alarms: Negative patches called positive.
        figures: `SHOWN`, each with its interval over groups.
    """

    threshold: float
    stored: bool
    called: int
    missed: int
    false_alarms: int
    figures: Mapping[str, Interval]


def threshold_steps(
    labels: npt.ArrayLike,
    probability: npt.ArrayLike,
    groups: npt.ArrayLike,
    stored: float,
    plan: BootstrapPlan,
    steps: Sequence[float] = STEPS,
    own: npt.ArrayLike | None = None,
) -> list[ThresholdStep]:
    """What a model would do at each of several thresholds and at its own.

    All thresholds share the same resamples of groups, those that the figures at the stored threshold have; the
    intervals hold for each threshold by itself.

    Args:
        labels: 0 or 1, [N].
        probability: P(positive), [N] float32.
        groups: Group of each patch, [N].
        stored: Threshold of the model.
        plan: How resamples are drawn.
        steps: Further thresholds.
        own: Threshold of each patch by which the stored step calls it, [N], where several models have scored the
            patches (folds), each with its own; None: all by `stored`.

    Returns:
        By rising threshold; a step that equals the stored threshold stands once.
    """
    y, p = np.asarray(labels).astype(int), np.asarray(probability)
    resamples = plan_resamples(y, groups, 2, plan)
    found = []
    for cut in sorted({np.float32(step) for step in steps} | {np.float32(stored)}):
        is_stored = bool(cut == np.float32(stored))
        by = np.asarray(own, np.float32) if is_stored and own is not None else cut
        counts = group_counts(y * 2 + (p >= by), resamples.index, resamples.groups, 4)
        tn, fp, fn, tp = counts.sum(axis=0)
        point = rates(tp, fp, tn, fn)
        tn_r, fp_r, fn_r, tp_r = weighted_counts(resamples.weights, counts).T
        drawn = rates(tp_r, fp_r, tn_r, fn_r)
        found.append(
            ThresholdStep(
                threshold=stored if is_stored else round(float(cut), 6),
                stored=is_stored,
                called=int(tp + fp),
                missed=int(fn),
                false_alarms=int(fp),
                figures={name: percentile_interval(float(point[name]), drawn[name], resamples) for name in SHOWN},
            )
        )
    return found
