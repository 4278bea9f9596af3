"""What a prediction says as a whole, counted while its table is written: calls by class, and how probable they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from components.core import arrow_arrays

BINS = 20
"""Of the histogram of P(positive), of equal width between 0 and 1."""


class Tally:
    """Counts over all rows of a prediction.

    Args:
        classes: Names in label order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._called = np.zeros(len(classes), np.int64)
        self._histogram = np.zeros(BINS, np.int64)

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Passes tables on (rows of `outputs.output_schema`), counting."""
        for table in tables:
            self._called += np.bincount(arrow_arrays.values(table["predicted"]), minlength=len(self._classes))
            if len(self._classes) == 2:
                self._histogram += np.histogram(table["probability"].to_numpy(), BINS, (0.0, 1.0))[0]
            yield table

    def document(self) -> dict[str, Any]:
        """As the summary keeps it; the histogram for two classes alone."""
        told: dict[str, Any] = {"called": dict(zip(self._classes, self._called.tolist()))}
        return {**told, "histogram": self._histogram.tolist()} if len(self._classes) == 2 else told
