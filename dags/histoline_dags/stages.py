"""Names of the DAGs of a data set and of their tasks, in the order in which they run."""

from __future__ import annotations

DAGS = ("ingest", "train", "predict", "sweep")
TASKS = ("ingest", "validate", "fold", "train", "evaluate", "push", "report", "predict", "plan", "trial", "choose")
"""The one task of DATASET_ingest, the stages of DATASET_train, then what DATASET_predict and DATASET_sweep run."""

WORKSPACE, PRUNE = "histoline", "prune"
"""The one DAG that is of no data set, histoline_prune, and its one task."""

LIGHT_TASKS = ("folds", "trials", "drift")
"""Those that run no command: they read the result of the task before them."""

IN_ORDER = (
    "ingest", "validate", "folds", "fold", "train", "evaluate", "push", "report",
    "predict", "drift", "plan", "trials", "trial", "choose", "prune",
)  # fmt: skip
"""All of them, in the order in which those of one DAG run."""

MAPPED_TASKS = ("fold", "trial")
"""One for each fold or trial; none where there are none."""

GPU_TASKS = ("fold", "train", "evaluate", "predict", "trial")
"""Those that load a model onto the device. Two at once would share its memory, and neither knows of the other."""
