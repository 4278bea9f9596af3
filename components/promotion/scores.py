"""What models say of the patches that are measured: from the fresh process, and from the colour baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from components.core.array_types import Array
from components.metrics.colour_baseline import fit_baseline
from schemas.tables import COLOUR_COLUMNS


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the fresh process found; no predictions where the candidate can't be scored.

    Attributes:
        answers: Whether the exported model answers as it must.
        predictions: predictions.parquet of the candidate.
        promoted: `champion` and `best_ever` to probabilities on test; NaN where it has none.
        baseline: The colour baseline's probabilities on test.
    """

    answers: Mapping[str, Any]
    predictions: pa.Table | None
    promoted: Mapping[str, Array]
    baseline: Array


def colour_baseline(config: Mapping[str, Any], train: pa.Table, test: pa.Table, n_classes: int) -> Array:
    """Probabilities of the colour baseline on test patches.

    Args:
        config: The frozen recipe.
        train: Labels and colour features of what it is fitted on.
        test: Colour features of what is asked about.
        n_classes: Classes of the task.
    """
    labels = train.column("label").to_numpy()
    # Whatever evens out the classes for the network evens them out for the baseline.
    balanced = "balanced" in (config.get("class_weights"), config.get("sampling"))
    return fit_baseline(_colours(train), labels, n_classes, balanced=balanced).predict(_colours(test))


def _colours(table: pa.Table) -> Array:
    return np.stack([table.column(name).to_numpy() for name in COLOUR_COLUMNS], axis=1)
