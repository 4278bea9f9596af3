"""Makes DATASET_predict: a folder is scored with the champion."""

from __future__ import annotations

from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException

from histoline_dags.build import Context, build_dag, cron_of, limits, on_device, options
from histoline_dags.ids import run_id
from histoline_dags.light import DriftOperator
from histoline_dags.notify import WebhookNotifier
from histoline_dags.operator import StepOperator
from histoline_dags.settings import Settings

DOC = """{title}: gives every image below a folder a probability by the champion, and tells rejects, drift of the
colours and each slide's map in the Report tab of the run.
It costs one read and decode of every image and the model's answer (minutes for 100,000 small patches on all cores).
It runs when it is triggered{clock}."""


def predict_dag(settings: Settings, name: str) -> DAG:
    """DATASET_predict: a folder of images to a table of probabilities.

    Args:
        settings: All of them.
        name: Of the data set.

    Raises:
        SettingsError: A default can't be used.
    """
    own = settings.datasets[name]

    def predict(context: Context) -> list[str]:
        ti, task = context["ti"], context["params"]["task"]
        given = options(own, "predict", context)
        champion = settings.workspace / "models" / name / task / "champion.json"
        if not context["params"]["version"] and not champion.is_file():
            raise AirflowSkipException(f"no model of {name} {task} was promoted yet: run {name}_train")
        place = settings.workspace / "predictions" / name / task / run_id(ti.dag_id, ti.run_id)
        # Maps are of two classes; drift is judged by the next task, so that this one keeps what it has made.
        maps = [f"--slide-maps={place}/maps"] if len(own.entry["tasks"][task]) == 2 else []
        made = [f"--output={place}/predictions.parquet", f"--page={place}/index.html", *maps]
        kept = [option for option in given if option != "--fail-on-drift"]
        return ["predict", name, f"--workspace={settings.workspace}", *made, *kept]

    with build_dag(settings, own, "predict", DOC, cron_of(own, "predict")) as dag:
        scored = StepOperator(
            task_id="predict",
            dataset=name,
            arguments=predict,
            fields=own.entry["predict"],
            **on_device(settings),
            **limits(own, "predict"),
        )
        drift = DriftOperator(
            task_id="drift",
            dataset=name,
            source="predict",
            on_skipped_callback=WebhookNotifier("drift"),
            **limits(own, "drift"),
        )
        scored >> drift
    return dag
