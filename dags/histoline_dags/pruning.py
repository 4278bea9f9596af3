"""Makes histoline_prune: what a workspace has collected and nothing needs is deleted."""

from __future__ import annotations

from airflow.sdk import DAG

from histoline_dags.build import Context, build_dag, cron_of, limits, options
from histoline_dags.operator import StepOperator
from histoline_dags.settings import Settings
from histoline_dags.stages import PRUNE, WORKSPACE

DOC = """{title}: deletes old runs, checkpoints, sweeps, TFX's outputs, data sets and caches, of all data sets, never
what a champion, a run that is not over or the next ingest needs, and tells in the Report tab what went and what stayed.
It costs seconds to minutes and gives disk back. It runs when it is triggered{clock}, once it is switched on."""


def prune_dag(settings: Settings) -> DAG:
    """histoline_prune, off until somebody switches it on.

    Args:
        settings: All of them.

    Raises:
        SettingsError: A default can't be used.
    """
    own = settings.prune

    def prune(context: Context) -> list[str]:
        return ["prune", f"--workspace={settings.workspace}", *options(own, PRUNE, context)]

    with build_dag(settings, own, PRUNE, DOC, cron_of(own, PRUNE), paused=True) as dag:
        StepOperator(
            task_id=PRUNE, dataset=WORKSPACE, arguments=prune, fields=own.entry[PRUNE], **limits(own, PRUNE)
        )
    return dag
