"""Names of the pair of DAGs of a data set and of their tasks, in the order in which they run."""

from __future__ import annotations

DAGS = ("ingest", "train")
TASKS = ("ingest", "validate", "train", "evaluate", "push", "report")
"""The one task of DATASET_ingest, then those of DATASET_train: the stages of `histoline step`."""

GPU_TASKS = ("train", "evaluate")
"""Those that load a model onto the device. Two at once would share its memory, and neither knows of the other."""
