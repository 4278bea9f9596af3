"""Makes DATASET_sweep: recipes are compared, and the best goes to the gate."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from histoline_dags.assets import alias, announce_recipe, recipe_asset
from histoline_dags.build import Context, build_dag, cron_of, limits, on_device, options, skip_without_data
from histoline_dags.ids import run_id
from histoline_dags.light import NumbersOperator
from histoline_dags.operator import StepOperator
from histoline_dags.settings import Settings

DOC = """{title}: trains recipes side by side, compares them on eval, and announces the simplest of the best as the
asset `histoline/{name}/recipe`, which starts `{name}_train` with it: the test split is looked at there, once.
It costs as much as all its trials together, from minutes to days of all cores or GPUs. It runs when it
is triggered{clock}."""


def sweep_dag(settings: Settings, name: str) -> DAG:
    """DATASET_sweep: a search to a recipe.

    Args:
        settings: All of them.
        name: Of the data set.

    Raises:
        SettingsError: A default can't be used.
    """
    own = settings.datasets[name]
    asset = recipe_asset(name)

    def step(stage: str, context: Context) -> list[str]:
        ti, task = context["ti"], context["params"]["task"]
        place = [f"--workspace={settings.workspace}", f"--task={task}", f"--sweep-id={run_id(ti.dag_id, ti.run_id)}"]
        return ["step", f"sweep-{stage}", name, *place]

    def plan(context: Context) -> list[str]:
        given = options(own, "sweep", context)
        skip_without_data(settings, name, context["params"]["task"])
        return [*step("plan", context), *(option for option in given if not option.startswith("--task="))]

    def trial(context: Context) -> list[str]:
        return [*step("trial", context), f"--trial={context['task'].number}"]

    with build_dag(settings, own, "sweep", DOC, cron_of(own, "sweep")) as dag:
        common: dict[str, Any] = {"dataset": name, "fields": own.entry["sweep"]}
        planned = StepOperator(task_id="plan", arguments=plan, **common, **limits(own, "plan"))
        numbers = NumbersOperator(task_id="trials", source="plan", key="trials", **limits(own, "trials"))
        trained = StepOperator.partial(
            task_id="trial", arguments=trial, **on_device(settings), **common, **limits(own, "trial")
        ).expand(number=numbers.output)
        chosen = StepOperator(
            task_id="choose",
            arguments=lambda context: step("choose", context),
            after=lambda context, result: announce_recipe(context, result, name),
            inlets=[asset],
            outlets=[alias(asset)],
            **common,
            **limits(own, "choose"),
        )
        planned >> numbers
        trained >> chosen
    return dag
