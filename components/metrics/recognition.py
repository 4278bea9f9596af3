"""The recognition rates that BreakHis results are published in, with intervals over patients."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from components.metrics.bootstrap import BootstrapPlan, percentile_interval, plan_resamples
from components.metrics.intervals import Interval
from components.metrics.point import ratio


@dataclasses.dataclass(frozen=True)
class RecognitionRate:
    """Image and patient recognition rate of Spanhol et al. 2016.

    Attributes:
        image: Fraction of all images that are recognised, N_rec / N_all.
        patient: Mean over patients of the patient score N_rec / N_P, in which each patient counts the same.
        images: N_all.
        patients: Number of patients.
        image_interval: Of `image`, by resampling patients.
        patient_interval: Of `patient`, likewise.
    """

    image: float
    patient: float
    images: int
    patients: int
    image_interval: Interval
    patient_interval: Interval


def recognition_rates(
    labels: npt.ArrayLike,
    predicted: npt.ArrayLike,
    groups: npt.ArrayLike,
    magnification: npt.ArrayLike,
    plan: BootstrapPlan | None = None,
) -> dict[str, RecognitionRate]:
    """Recognition rates per magnification and over all of them.

    F. A. Spanhol, L. S. Oliveira, C. Petitjean, L. Heutte: A Dataset for Breast Cancer Histopathological
    Image Classification. IEEE Transactions on Biomedical Engineering 63(7), 2016,
    doi:10.1109/TBME.2015.2496264: with N_P images of patient P of which N_rec are classified correctly,
    patient score = N_rec / N_P, patient recognition rate = sum of patient scores / number of patients, image
    recognition rate = N_rec / N_all. The intervals are ours: patients of all classes are resampled together, as the
    rates average over all patients.

    Args:
        labels: Class numbers, [N].
        predicted: Predicted class numbers (at the stored threshold, or argmax), [N].
        groups: Patient of each image, [N].
        magnification: Objective magnification of each image, [N].
        plan: How patients are resampled; None for the gate's own. Fewer patients than it asks of a class give no
            interval.

    Returns:
        "40", "100", ... in rising order, then "all".
    """
    hit = np.asarray(labels) == np.asarray(predicted)
    groups, magnification = np.asarray(groups), np.asarray(magnification)
    chosen = {str(level): magnification == level for level in np.unique(magnification)}
    chosen["all"] = np.ones(hit.size, bool)
    result = {}
    for name, rows in chosen.items():
        # One class for all: what is averaged over is patients, of whatever class.
        drawn = plan_resamples(np.zeros(int(rows.sum()), int), groups[rows], 1, plan or BootstrapPlan())
        hits, images = np.bincount(drawn.index, weights=hit[rows]), np.bincount(drawn.index)
        score, weights = ratio(hits, images), drawn.weights.astype(float)
        image, patient = float(ratio(hits.sum(), images.sum())), float(ratio(score.sum(), drawn.groups))
        result[name] = RecognitionRate(
            image=image,
            patient=patient,
            images=int(rows.sum()),
            patients=drawn.groups,
            image_interval=percentile_interval(image, ratio(weights @ hits, weights @ images), drawn),
            patient_interval=percentile_interval(patient, ratio(weights @ score, weights.sum(axis=1)), drawn),
        )
    return result
