"""What all DAGs of a data set have in common: their settings, limits, and options from the form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowFailException

from histoline_dags.form import arguments, build_form
from histoline_dags.notify import WebhookNotifier
from histoline_dags.settings import DatasetSettings, Settings
from histoline_dags.settings_file import SettingsError

Context = Mapping[str, Any]
LIGHT_MINUTES = 5


def build_dag(settings: Settings, own: DatasetSettings, kind: str, doc: str, schedule: Any) -> DAG:
    """A DAG without tasks.

    Args:
        settings: All of them.
        own: Of the data set.
        kind: `ingest`, `train`, `predict` or `sweep`.
        doc: What it does and costs; `{name}` and `{title}` are filled in.
        schedule: When it runs by itself.

    Raises:
        SettingsError: A default can't be used.
    """
    return DAG(
        f"{own.name}_{kind}",
        schedule=schedule,
        # No start_date: with one, a cron slot that has passed would start at the first boot.
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        params=build_form(own, kind, settings.data_roots),
        tags=["histoline", own.name],
        doc_md=" ".join(doc.format(name=own.name, title=own.entry["title"]).split()),
        default_args={
            "retries": settings.retries,
            "retry_delay": timedelta(seconds=settings.retry_seconds),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=10),
            "pool": settings.pool,
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
        raise SettingsError(f"settings.toml: {own.name}.cron.{dag} is {expression!r}: {error}") from None
    return expression


def limits(own: DatasetSettings, task: str) -> dict[str, Any]:
    """Arguments of an operator that end it in time; tasks that run no command have minutes of their own."""
    return {"execution_timeout": timedelta(minutes=own.minutes.get(task, LIGHT_MINUTES))}


def options(own: DatasetSettings, dag: str, context: Context) -> list[str]:
    """Options of the command from the form.

    Raises:
        AirflowFailException: Something was posted that is no field.
    """
    try:
        return arguments(own.entry[dag], context["params"], context["dag_run"].conf)
    except ValueError as error:
        raise AirflowFailException(f"{error}") from None
