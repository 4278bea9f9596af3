"""Metrics per patient, and the recognition rates that BreakHis results are published in."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from components.metrics.point import Array, multiclass_rates, rates, ratio, roc_auc


def group_index(groups: npt.ArrayLike) -> tuple[Array, Array]:
    """Names of the groups, sorted, [G], and the position of each patch's group among them, [N]."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return names, index.reshape(-1)


def group_counts(cell: Array, index: Array, n_groups: int, n_cells: int) -> Array:
    """How many patches of each group fall into each cell, [G, K]; `cell` and `index` are integers [N]."""
    flat = np.bincount(index * n_cells + cell, minlength=n_groups * n_cells)
    return flat.reshape(n_groups, n_cells)


def per_group_metrics(
    labels: npt.ArrayLike, probability: npt.ArrayLike, groups: npt.ArrayLike, threshold: float | None = None
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
        return names, {"patches": confusion.sum(axis=1), **per_class}
    if threshold is None:
        raise ValueError("per-patient metrics of a binary task need the stored threshold")
    tn, fp, fn, tp = group_counts(y * 2 + (p >= threshold), index, names.size, 4).T
    order = np.argsort(index, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(index, minlength=names.size))[:-1])
    auc = np.array([roc_auc(y[patient], p[patient]) for patient in rows])
    return names, {"patches": tn + fp + fn + tp, "positives": tp + fn, "auc": auc, **rates(tp, fp, tn, fn)}


@dataclasses.dataclass(frozen=True)
class RecognitionRate:
    """Image and patient recognition rate of Spanhol et al. 2016.

    Attributes:
        image: Fraction of all images that are recognised, N_rec / N_all.
        patient: Mean over patients of the patient score N_rec / N_P, in which each patient counts the same.
        images: N_all.
        patients: Number of patients.
    """

    image: float
    patient: float
    images: int
    patients: int


def recognition_rates(
    labels: npt.ArrayLike, predicted: npt.ArrayLike, groups: npt.ArrayLike, magnification: npt.ArrayLike
) -> dict[str, RecognitionRate]:
    """Recognition rates per magnification and over all of them.

    F. A. Spanhol, L. S. Oliveira, C. Petitjean, L. Heutte: A Dataset for Breast Cancer Histopathological
    Image Classification. IEEE Transactions on Biomedical Engineering 63(7), 2016,
    doi:10.1109/TBME.2015.2496264: with N_P images of patient P of which N_rec are classified correctly,
    patient score = N_rec / N_P, patient recognition rate = sum of patient scores / number of patients, image
    recognition rate = N_rec / N_all.

    Args:
        labels: Class numbers, [N].
        predicted: Predicted class numbers (at the stored threshold, or argmax), [N].
        groups: Patient of each image, [N].
        magnification: Objective magnification of each image, [N].

    Returns:
        "40", "100", ... in rising order, then "all".
    """
    hit = np.asarray(labels) == np.asarray(predicted)
    groups, magnification = np.asarray(groups), np.asarray(magnification)
    chosen = {str(level): magnification == level for level in np.unique(magnification)}
    chosen["all"] = np.ones(hit.size, bool)
    result = {}
    for name, rows in chosen.items():
        patients, index = group_index(groups[rows])
        score = ratio(np.bincount(index, weights=hit[rows]), np.bincount(index))
        result[name] = RecognitionRate(
            image=float(ratio(hit[rows].sum(), rows.sum())),
            patient=float(ratio(score.sum(), patients.size)),
            images=int(rows.sum()),
            patients=int(patients.size),
        )
    return result
