"""What all DAGs have in common: their settings, limits, and options from the form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.timetables import trigger as core

from histoline_dags.form import arguments, build_form
from histoline_dags.notify import WebhookNotifier
from histoline_dags.settings import DatasetSettings, Settings
from histoline_dags.settings_file import SettingsError

Context = Mapping[str, Any]
LIGHT_MINUTES = 5
ALLOWED: Any = ("scheduled", "manual", "operator_triggered", "asset_triggered", "asset_materialization")
"""Ways to start a run: all of Airflow's but `backfill`."""


def build_dag(
    settings: Settings, own: DatasetSettings, kind: str, doc: str, schedule: Any, *, paused: bool = False
) -> DAG:
    """A DAG without tasks.

    Args:
        settings: All of them.
        own: Of the data set.
        kind: `ingest`, `train`, `predict`, `sweep` or `prune`.
        doc: What it does, what it costs, when it runs; `{name}`, `{title}` and `{clock}` are filled in.
        schedule: When it runs by itself.
        paused: Whether it does so only once somebody has switched it on.

    Raises:
        SettingsError: A default can't be used.
    """
    when = clock(own, kind)
    said = {"name": own.name, "title": own.entry["title"], "clock": f", and {when}" if when else ""}
    return DAG(
        f"{own.name}_{kind}",
        schedule=schedule,
        # No start_date: with one, a cron slot that has passed would start at the first boot.
        catchup=False,
        is_paused_upon_creation=paused,
        max_active_runs=1,
        params=build_form(own, kind, settings.data_roots),
        # A backfill would do the same again: what a run takes depends on what is there, not on its date.
        allowed_run_types=ALLOWED,
        # Where assets start a DAG, too, Airflow's Schedule shows them alone.
        tags=["histoline", own.name, *([f"cron: {when}"] if when else [])],
        doc_md=" ".join(doc.format(**said).split()),
        default_args={
            "retries": settings.retries,
            "retry_delay": timedelta(seconds=settings.retry_seconds),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=10),
            "pool": settings.pool,
            "queue": settings.queue,
            "on_failure_callback": WebhookNotifier("failed"),
        },
    )


def cron_of(own: DatasetSettings, dag: str) -> str | None:
    """Cron expression of a DAG, None where it has none.

    Raises:
        SettingsError: It is none.
    """
    expression = own.cron[dag].strip()
    if not expression:
        return None
    try:
        CronTriggerTimetable(expression, timezone="UTC").validate()
    except Exception as error:
        raise SettingsError(f"settings.toml: {own.place('cron', dag)} is {expression!r}: {error}") from None
    return expression


def clock(own: DatasetSettings, dag: str) -> str:
    """`at 03:00, only on Sunday (UTC)` where a DAG has a cron expression, else nothing.

    Args:
        own: Of the data set.
        dag: Kind of the DAG.
    """
    expression = cron_of(own, dag)
    if expression is None:
        return ""
    said = core.CronTriggerTimetable(expression, timezone="UTC").description
    return f"{said[:1].lower()}{said[1:]} (UTC)" if said else f"{expression} (UTC)"


def limits(own: DatasetSettings, task: str) -> dict[str, Any]:
    """Arguments of an operator that end it in time; tasks that run no command have minutes of their own."""
    return {"execution_timeout": timedelta(minutes=own.minutes.get(task, LIGHT_MINUTES))}


def on_device(settings: Settings) -> dict[str, Any]:
    """Arguments of an operator that uses the device: the pool in which it waits and the queue of whoever has one."""
    return {"pool": settings.gpu_pool, "queue": settings.gpu_queue}


def options(own: DatasetSettings, dag: str, context: Context) -> list[str]:
    """Options of the command from the form.

    Raises:
        AirflowFailException: Something was posted that is no field.
    """
    try:
        return arguments(own.entry[dag], context["params"], context["dag_run"].conf)
    except ValueError as error:
        raise AirflowFailException(f"{error}") from None


def skip_without_data(settings: Settings, name: str, task: str) -> None:
    """Skips the step where nothing is there to train on.

    Args:
        settings: All of them.
        name: Of the data set.
        task: `binary` or `subtype`.

    Raises:
        AirflowSkipException: No data set is committed under this task.
    """
    if not (settings.workspace / "datasets" / name / task / "latest.json").is_file():
        raise AirflowSkipException(f"no data set committed yet: run {name}_ingest")
