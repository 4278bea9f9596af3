"""Names for the numpy arrays in signatures; docstrings say their shapes and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
