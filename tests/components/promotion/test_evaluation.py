"""What an evaluation hands on to the colour baseline."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from components.promotion import scores
from schemas.tables import COLOUR_COLUMNS


@pytest.mark.parametrize(
    ("config", "balanced"),
    [
        ({"class_weights": "balanced", "sampling": "none"}, True),
        ({"class_weights": "none", "sampling": "balanced"}, True),
        ({"class_weights": "none", "sampling": "none"}, False),
        ({"model": "of an older run"}, False),
    ],
)
def test_the_colour_baseline_gets_the_recipes_class_weights(config, balanced, monkeypatch):
    rng = np.random.default_rng(0)
    table = pa.table({"label": rng.integers(0, 2, 60), **{name: rng.normal(size=60) for name in COLOUR_COLUMNS}})
    asked, fit = [], scores.fit_baseline

    def watched(*args, **options):
        asked.append(options["balanced"])
        return fit(*args, **options)

    monkeypatch.setattr(scores, "fit_baseline", watched)
    assert scores.colour_baseline(config, table, table, 2).shape == (60,) and asked == [balanced]
