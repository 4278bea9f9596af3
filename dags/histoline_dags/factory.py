"""Makes the pair of DAGs of a data set: DATASET_ingest and DATASET_train."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from histoline_dags.assets import alias, announce_data, announce_model, choose_data, data_asset, model_asset
from histoline_dags.form import arguments, build_form
from histoline_dags.ids import run_id
from histoline_dags.notify import WebhookNotifier
from histoline_dags.operator import StepOperator
from histoline_dags.settings import DatasetSettings, Settings
from histoline_dags.settings_file import SettingsError
from histoline_dags.stages import GPU_TASKS

Context = Mapping[str, Any]

INGEST_DOC = """{title}: reads the raw patches below the input folder and commits them as TFRecords whose splits never
share a patient; new content announces the asset `histoline/{name}`, which starts `{name}_train`.
It costs one read and decode of every image and about the size of the decoded pixels on disk (seconds per 100,000 small
patches on all cores); unchanged input is recognised in a moment and skipped."""

TRAIN_DOC = """{title}: checks the latest committed data, trains by the recipe, evaluates on patients never trained on,
promotes the model only if it beats the champion, and writes the report (the Report tab of each run).
It costs from minutes (a `_quick` recipe) to many hours of all cores or a GPU, and is skipped where data, code and
recipe are those of a finished run."""


def ingest_dag(settings: Settings, name: str) -> DAG:
    """DATASET_ingest: raw patches to a committed data set.

    Args:
        settings: All of them.
        name: Of the data set.

    Raises:
        SettingsError: A default can't be used.
    """
    own = settings.datasets[name]
    asset = data_asset(name)

    def ingest(context: Context) -> list[str]:
        return ["ingest", name, f"--workspace={settings.workspace}", *_options(own, "ingest", context)]

    with _dag(settings, own, "ingest", INGEST_DOC, _cron(own, "ingest")) as dag:
        StepOperator(
            task_id="ingest",
            dataset=name,
            arguments=ingest,
            after=lambda context, result: announce_data(context, result, name),
            inlets=[asset],
            outlets=[alias(asset)],
            **_limits(own, "ingest"),
        )
    return dag


def train_dag(settings: Settings, name: str) -> DAG:
    """DATASET_train: a committed data set to a decision.

    Args:
        settings: All of them.
        name: Of the data set.

    Raises:
        SettingsError: A default can't be used.
    """
    own = settings.datasets[name]
    asset = model_asset(name)
    data = [data_asset(name)]
    cron = _cron(own, "train")

    def step(stage: str, task: str, context: Context) -> list[str]:
        ti = context["ti"]
        name_of_run = run_id(ti.dag_id, ti.run_id)
        return ["step", stage, name, f"--workspace={settings.workspace}", f"--task={task}", f"--run-id={name_of_run}"]

    def validate(context: Context) -> list[str]:
        options = _options(own, "train", context)
        chosen = choose_data(context, name, own.entry["tasks"], settings.workspace)
        task = chosen[0] if chosen else context["params"]["task"]
        if chosen is None and not (settings.workspace / "datasets" / name / task / "latest.json").is_file():
            raise AirflowSkipException(f"no data set committed yet: run {name}_ingest")
        options = [option for option in options if not option.startswith("--task=")]
        preset = context["params"]["preset"]
        if chosen and settings.presets.get(preset, {"task": task})["task"] != task:
            # The settings' recipe is for another task than the data that have just come.
            options = [option for option in options if not option.startswith(("--preset=", "--model="))]
        return [*step("validate", task, context), *([f"--data={chosen[1]}"] if chosen else []), *options]

    def later(stage: str) -> Any:
        def give(context: Context) -> list[str]:
            # The task may have come with an event, so it is what `validate` has settled, not what the form says.
            validated = context["ti"].xcom_pull(task_ids="validate") or {}
            return step(stage, validated.get("task") or context["params"]["task"], context)

        return give

    timetable = AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=data) if cron else data
    with _dag(settings, own, "train", TRAIN_DOC, timetable) as dag:
        common: dict[str, Any] = {"dataset": name}
        first = StepOperator(
            task_id="validate", arguments=validate, after=_skip_unchanged, **common, **_limits(own, "validate")
        )
        train, evaluate = (
            StepOperator(
                task_id=stage, arguments=later(stage), pool=settings.gpu_pool, **common, **_limits(own, stage)
            )
            for stage in GPU_TASKS
        )
        push = StepOperator(
            task_id="push",
            arguments=later("push"),
            after=lambda context, result: announce_model(context, result, name),
            inlets=[asset],
            outlets=[alias(asset)],
            on_success_callback=WebhookNotifier("promoted"),
            on_skipped_callback=WebhookNotifier("refused"),
            **common,
            **_limits(own, "push"),
        )
        # Runs after a refusal (push skipped), not after a failure: the run stays red and its stage makes the page.
        report = StepOperator(
            task_id="report",
            arguments=later("report"),
            trigger_rule="none_failed_min_one_success",
            **common,
            **_limits(own, "report"),
        )
        first >> train >> evaluate >> push >> report
        evaluate >> report
    return dag


def _dag(settings: Settings, own: DatasetSettings, kind: str, doc: str, schedule: Any) -> DAG:
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


def _cron(own: DatasetSettings, dag: str) -> str | None:
    expression = own.cron[dag].strip()
    if not expression:
        return None
    try:
        CronTriggerTimetable(expression, timezone="UTC").validate()
    except Exception as error:
        raise SettingsError(f"settings.toml: {own.name}.cron.{dag} is {expression!r}: {error}") from None
    return expression


def _limits(own: DatasetSettings, task: str) -> dict[str, Any]:
    return {"execution_timeout": timedelta(minutes=own.minutes[task])}


def _options(own: DatasetSettings, dag: str, context: Context) -> list[str]:
    try:
        return arguments(own.entry[dag], context["params"], context["dag_run"].conf)
    except ValueError as error:
        raise AirflowFailException(f"{error}") from None


def _skip_unchanged(context: Context, result: Mapping[str, Any]) -> None:
    if result.get("decision") == "unchanged":
        raise AirflowSkipException(result.get("reason") or "Unchanged: nothing to train.")
