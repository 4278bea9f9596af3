"""The colour baseline learns colour, says probabilities, and is the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from components.errors import DataError
from components.metrics import point
from components.metrics.colour_baseline import fit_baseline
from schemas.tables import COLOUR_COLUMNS


def coloured(seed: int, n: int, n_classes: int):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    x = rng.normal(size=(n, len(COLOUR_COLUMNS))).astype(np.float32)
    x[:, 0] += 2 * y
    return x, y


def test_it_learns_colour_and_is_deterministic():
    x, y = coloured(0, 800, 2)
    test_x, test_y = coloured(1, 400, 2)
    first, again = (fit_baseline(x, y, 2, seed=3).predict(test_x) for _ in range(2))
    assert first.shape == (400,) and first.dtype == np.float32
    assert (first == again).all()
    assert point.roc_auc(test_y, first) > 0.8


def test_several_classes_and_a_class_that_training_lacks():
    x, y = coloured(2, 600, 3)
    p = fit_baseline(x, np.where(y == 2, 3, y), 5).predict(x)
    assert p.shape == (600, 5)
    assert p.sum(axis=1) == pytest.approx(np.ones(600), abs=1e-5)
    assert (p[:, [2, 4]] == 0).all() and (p[:, 3] > 0).any()


def test_balanced_it_weighs_classes_as_the_network_does(monkeypatch):
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.utils.class_weight import compute_sample_weight

    x, y = coloured(2, 600, 2)
    keep = (y == 0) | (np.arange(600) % 8 == 0)
    x, y, new = x[keep], y[keep], coloured(5, 600, 2)[0]
    given, fit = [], HistGradientBoostingClassifier.fit

    def watched(self, x, y, weights=None):
        given.append(weights)
        return fit(self, x, y, weights)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", watched)
    plain, balanced = (fit_baseline(x, y, 2, balanced=on).predict(new) for on in (False, True))
    assert given[0] is None and given[1] == pytest.approx(compute_sample_weight("balanced", y))
    assert balanced.mean() > plain.mean() + 0.02, "the rare class is called more often"


def test_one_class_in_training_is_stated_with_certainty():
    x, _ = coloured(3, 30, 2)
    assert (fit_baseline(x, np.ones(30), 2).predict(x) == 1).all()
    assert (fit_baseline(x, np.zeros(30), 2).predict(x) == 0).all()


def test_wrong_input_is_told():
    x, y = coloured(4, 30, 2)
    with pytest.raises(DataError, match="colour features"):
        fit_baseline(x[:, :6], y, 2)
    with pytest.raises(DataError, match="empty"):
        fit_baseline(x[:0], y[:0], 2)
    assert fit_baseline(x, y, 2).predict(x[:0]).shape == (0,)


def test_importing_it_does_not_import_scikit_learn():
    import subprocess
    import sys

    code = (
        "import sys, components.metrics.colour_baseline, components.promotion.gate;"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
