"""How pytest-xdist spreads tests over processes: a module stays in one, so that what its tests share is made once.

The way that pytest-xdist has for it, marks `xdist_group`, has no effect with pytest 9.2, which names tests otherwise.
"""

from __future__ import annotations

from pathlib import Path

from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    "test_promoted_run": "test_train",
    "test_publishing": "test_gate_end_to_end",
    **dict.fromkeys(("test_exported_answers", "test_predict_gcs", "test_served"), "test_job"),
}
"""Modules that go where another one goes, as they share with it what takes long to make."""

LONGEST = (
    "test_retraining",
    "test_airflow_faults",
    "test_airflow_celery",
    "test_airflow_browser",
    "test_soak",
    "test_every_n",
    "test_train",
    "test_trainer",
    "test_two_devices",
    "test_folds",
    "test_sweep",
    "test_shared_metadata",
    "test_engines",
    "test_readme",
    "test_browser",
    "test_workers",
    "test_ingest_process",
    "test_job",
    "test_mean_model",
    "test_export",
)
"""Modules that begin first: the last one of a run must be short, or the other processes wait for it."""


def place(test: str) -> int:
    """When a test's turn is; a key to sort by.

    Args:
        test: `FOLDER/test_MODULE.py::...`.
    """
    group = group_of(test)
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


def group_of(test: str) -> str:
    """The module that a test goes with."""
    module = Path(test.partition("::")[0]).stem
    return TOGETHER.get(module, module)


class ModulesTogether(LoadFileScheduling):
    """Whole modules to one process each, with those that go together."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
