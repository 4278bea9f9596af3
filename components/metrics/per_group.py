"""Metrics per patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from components.metrics.point import Array, multiclass_rates, rates, roc_auc


def group_index(groups: npt.ArrayLike) -> tuple[Array, Array]:
    """Names of the groups, sorted, [G], and the position of each patch's group among them, [N]."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return names, index.reshape(-1)


def group_counts(cell: Array, index: Array, n_groups: int, n_cells: int) -> Array:
    """How many patches of each group fall into each cell, [G, K]; `cell` and `index` are integers [N]."""
    flat = np.bincount(index * n_cells + cell, minlength=n_groups * n_cells)
    return flat.reshape(n_groups, n_cells)


def per_group_metrics(
    labels: npt.ArrayLike, probability: npt.ArrayLike, groups: npt.ArrayLike, threshold: float | Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """Metrics of every patient on their own.

    Args:
        labels: Class numbers, [N].
        probability: P(positive) [N], or [N, C] for several classes.
        groups: Group of each patch, [N].
        threshold: The stored cut; needed in the binary case, unused for several classes (argmax).

    Returns:
        Group names [G], sorted, and columns [G]: `patches`, then for binary `positives`, `auc` and the
        threshold metrics, for several classes `accuracy`, `balanced_accuracy` and `macro_f1`. NaN where a
        patient has no such figure, for instance an AUC for a patient with patches of one class only.

    Raises:
        ValueError: Binary without a threshold.
    """
    y, p = np.asarray(labels).astype(int), np.asarray(probability)
    names, index = group_index(groups)
    if p.ndim == 2:
        n_classes = p.shape[1]
        confusion = group_counts(y * n_classes + p.argmax(axis=1), index, names.size, n_classes * n_classes)
        per_class = multiclass_rates(confusion.reshape(names.size, n_classes, n_classes))
        # Agreement beyond chance means nothing where a patient has one class.
        spread = {name: per_class[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")}
        return names, {"patches": confusion.sum(axis=1), **spread}
    if threshold is None:
        raise ValueError("per-patient metrics of a binary task need the stored threshold")
    tn, fp, fn, tp = group_counts(y * 2 + (p >= threshold), index, names.size, 4).T
    order = np.argsort(index, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(index, minlength=names.size))[:-1])
    auc = np.array([roc_auc(y[patient], p[patient]) for patient in rows])
    return names, {"patches": tn + fp + fn + tp, "positives": tp + fn, "auc": auc, **rates(tp, fp, tn, fn)}
