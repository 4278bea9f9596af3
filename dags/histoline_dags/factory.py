"""Makes DATASET_ingest and DATASET_train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule
from airflow.sdk.exceptions import AirflowSkipException

from histoline_dags.assets import (
    alias,
    announce_data,
    announce_model,
    choose_data,
    choose_recipe,
    data_asset,
    model_asset,
    recipe_asset,
)
from histoline_dags.build import Context, build_dag, cron_of, limits, on_device, options, skip_without_data
from histoline_dags.ids import run_id
from histoline_dags.light import NumbersOperator
from histoline_dags.notify import WebhookNotifier
from histoline_dags.operator import StepOperator
from histoline_dags.settings import Settings
from histoline_dags.timetable import CronOrUntrained

INGEST_DOC = """{title}: reads the raw patches below the input folder and commits them as TFRecords whose splits never
share a patient; new content announces the asset `histoline/{name}`, which starts `{name}_train`.
It costs one read and decode of every image and about the size of the decoded pixels on disk (seconds per 100,000 small
patches on all cores); unchanged input is recognised in a moment and skipped. It runs when it is triggered{clock}."""

TRAIN_DOC = """{title}: checks the latest committed data, trains by the recipe, evaluates on patients never trained on,
promotes the model only if it beats the champion, and writes the report (the Report tab of each run).
It costs from minutes (a `_quick` recipe) to many hours of all cores or a GPU, and is skipped where data, code and
recipe are those of a finished run. It runs by itself when new data are committed or a sweep has chosen{clock}; what was
committed while it was paused, or by the command line, is taken once it is unpaused, ten minutes after the commit."""


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
        return ["ingest", name, f"--workspace={settings.workspace}", *options(own, "ingest", context)]

    with build_dag(settings, own, "ingest", INGEST_DOC, cron_of(own, "ingest")) as dag:
        StepOperator(
            task_id="ingest",
            dataset=name,
            arguments=ingest,
            after=lambda context, result: announce_data(context, result, name),
            inlets=[asset],
            outlets=[alias(asset)],
            fields=own.entry["ingest"],
            **limits(own, "ingest"),
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
    news = data_asset(name) | recipe_asset(name)
    cron = cron_of(own, "train") or ""

    def step(stage: str, task: str, context: Context) -> list[str]:
        ti = context["ti"]
        name_of_run = run_id(ti.dag_id, ti.run_id)
        return ["step", stage, name, f"--workspace={settings.workspace}", f"--task={task}", f"--run-id={name_of_run}"]

    def validate(context: Context) -> list[str]:
        given = options(own, "train", context)
        winner = choose_recipe(context, name, own.entry["tasks"], settings.workspace)
        chosen = choose_data(context, name, own.entry["tasks"], settings.workspace)
        task = winner[0] if winner else chosen[0] if chosen else context["params"]["task"]
        if chosen and chosen[0] != task:
            chosen = None
        if chosen is None:
            skip_without_data(settings, name, task)
        given = [option for option in given if not option.startswith("--task=")]
        preset = context["params"]["preset"]
        if winner:
            # The sweep has settled the recipe: nothing that the settings say of one is laid over it.
            recipe = {field["option"] for field in own.entry["train"].values() if field["section"] == "Model"}
            given = [f"--preset={winner[1]}", *(o for o in given if o.partition("=")[0] not in recipe)]
        elif chosen and settings.presets.get(preset, {"task": task})["task"] != task:
            # The settings' recipe is for another task than the data that have just come.
            given = [option for option in given if not option.startswith(("--preset=", "--model="))]
        return [*step("validate", task, context), *([f"--data={chosen[1]}"] if chosen else []), *given]

    def later(stage: str) -> Any:
        def give(context: Context) -> list[str]:
            # The task may have come with an event, so it is what `validate` has settled, not what the form says.
            validated = context["ti"].xcom_pull(task_ids="validate") or {}
            return step(stage, validated.get("task") or context["params"]["task"], context)

        return give

    def fold(context: Context) -> list[str]:
        command: list[str] = later("train")(context)
        return [*command, f"--fold={context['task'].number}"]

    # Airflow's own type for the serialised side, which it takes here as well.
    clock: Any = CronOrUntrained(cron, str(settings.workspace), name, str(own.defaults["train"]["task"]))
    timetable = AssetOrTimeSchedule(timetable=clock, assets=news)
    with build_dag(settings, own, "train", TRAIN_DOC, timetable) as dag:
        common: dict[str, Any] = {"dataset": name, "fields": own.entry["train"]}
        first = StepOperator(
            task_id="validate", arguments=validate, after=_skip_unchanged, **common, **limits(own, "validate")
        )
        device: dict[str, Any] = {**on_device(settings), **common}
        numbers = NumbersOperator(task_id="folds", source="validate", key="folds", **limits(own, "folds"))
        folds = StepOperator.partial(task_id="fold", arguments=fold, **device, **limits(own, "fold")).expand(
            number=numbers.output
        )
        # Without folds the mapped task is skipped, and this one trains all there is.
        train = StepOperator(
            task_id="train",
            arguments=later("train"),
            trigger_rule="none_failed_min_one_success",
            **device,
            **limits(own, "train"),
        )
        evaluate = StepOperator(task_id="evaluate", arguments=later("evaluate"), **device, **limits(own, "evaluate"))
        push = StepOperator(
            task_id="push",
            arguments=later("push"),
            after=lambda context, result: announce_model(context, result, name),
            inlets=[asset],
            outlets=[alias(asset)],
            on_success_callback=WebhookNotifier("promoted"),
            on_skipped_callback=WebhookNotifier("refused"),
            **common,
            **limits(own, "push"),
        )
        # Runs after a refusal (push skipped), not after a failure: the run stays red and its stage makes the page.
        report = StepOperator(
            task_id="report",
            arguments=later("report"),
            trigger_rule="none_failed_min_one_success",
            **common,
            **limits(own, "report"),
        )
        first >> numbers
        [first, folds] >> train >> evaluate >> push >> report
        evaluate >> report
    return dag


def _skip_unchanged(context: Context, result: Mapping[str, Any]) -> None:
    if result.get("decision") == "unchanged":
        reason = str(result.get("reason") or "Unchanged.").rstrip(".")
        raise AirflowSkipException(f"{reason}. The form's “Train although nothing has changed” trains all the same.")
