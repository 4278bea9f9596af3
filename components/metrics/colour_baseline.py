"""The trivial baseline: gradient boosting on a patch's colour features.

Stain colour alone says much about a patch (on a subset of IDC, RGB mean and deviation reach an AUC near
0.87). A model that does not beat this has learnt no morphology.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.errors import DataError
from schemas.tables import COLOUR_COLUMNS


@dataclasses.dataclass(frozen=True)
class ColourBaseline:
    """A fitted baseline.

    Attributes:
        estimator: scikit-learn classifier, None where the train split holds one class only.
        classes: Class numbers seen in training, in the order of the estimator's columns.
        n_classes: Classes of the task.
    """

    estimator: Any
    classes: tuple[int, ...]
    n_classes: int

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Probabilities of patches.

        Args:
            features: [N, 10], columns as in `COLOUR_COLUMNS`.

        Returns:
            P(positive) [N] for two classes, else [N, C]; a class that training did not hold has probability
            0.
        """
        x = _checked(features)
        probability = np.zeros((len(x), self.n_classes), np.float32)
        if len(x) and self.estimator is None:
            probability[:, self.classes[0]] = 1.0
        elif len(x):
            from threadpoolctl import threadpool_limits

            with threadpool_limits(1):
                probability[:, list(self.classes)] = self.estimator.predict_proba(x)
        return probability[:, 1] if self.n_classes == 2 else probability


def _checked(features: npt.ArrayLike) -> npt.NDArray[np.float32]:
    x = np.asarray(features, np.float32)
    if x.ndim != 2 or x.shape[1] != len(COLOUR_COLUMNS):
        raise DataError(
            f"The colour baseline needs {len(COLOUR_COLUMNS)} colour features per patch but was given an"
            f" array of shape {x.shape}.",
            "Ingest the data set again with this version, which writes all of them.",
        )
    return x


def fit_baseline(
    features: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int, seed: int = 0, *, balanced: bool = False
) -> ColourBaseline:
    """Fits the baseline on the train split.

    Histogram gradient boosting with a fixed number of small trees and no early stopping: nothing is tuned, so
    that the bar does not move from run to run.

    Args:
        features: [N, 10], columns as in `COLOUR_COLUMNS`.
        labels: Class numbers, [N].
        n_classes: Classes of the task.
        seed: Of the estimator; same input and seed, same model.
        balanced: Weigh patches by the inverse of their class's share, as a recipe's balanced class weights do for the
            network (Keras' `class_weight`): total / (classes present * patches of the class).

    Raises:
        DataError: No patches, or another number of features.
    """
    x, y = _checked(features), np.asarray(labels).astype(int)
    if not len(x):
        raise DataError(
            "The colour baseline cannot be fitted: the train split is empty.", "Check the split ledger."
        )
    classes = tuple(int(label) for label in np.unique(y))
    if len(classes) == 1:
        return ColourBaseline(None, classes, n_classes)
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    estimator = HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.1,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        early_stopping=False,
        random_state=seed,
    )
    counts = np.bincount(y)
    weights = y.size / (len(classes) * counts[y]) if balanced else None
    # One thread: with trees this small threads mostly wait for each other, on a busy machine for minutes.
    with threadpool_limits(1):
        return ColourBaseline(estimator.fit(x, y, weights), classes, n_classes)
