"""`histoline train`: one run from a committed data set to a decision, in as few processes as TFX allows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import UsageError
from pipelines import console, mlflow_export
from pipelines.mlflow_export import mlflow_option
from pipelines.options import json_option, metadata_option, metadata_server, task_option, workspace_option
from pipelines.whole_run import carry_out

if TYPE_CHECKING:
    from components.storage.base import Storage
    from components.training.run_inputs import Inputs


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that settle a run's inputs; `train` and `step validate` take the same."""
    for option in reversed(
        (
            workspace_option("Folder that holds datasets/, runs/ and models/."),
            task_option(),
            click.option(
                "--data", default="", help="Data set to train on (folder or PLAN_ID); the latest by default."
            ),
            click.option("--preset", default="", help="Recipe: a name in pipelines/presets, or a YAML file."),
            click.option("--model", default="", help="Model of the registry; the preset's by default."),
            click.option("--epochs", default="", help="Epochs of the last phase."),
            click.option("--batch-size", default="", help="Images per step."),
            click.option(
                "--weights", default="", help="imagenet, none or a weights file, for models with a backbone."
            ),
            click.option(
                "--backbone", default="", help="Of frozen_features: a word, or a SavedModel or Keras file of your own."
            ),
            click.option("--seed", default="", help="Of initial weights, shuffling and augmentation."),
            click.option(
                "--set",
                "changes",
                multiple=True,
                metavar="FIELD=VALUE",
                help="Any other field of the recipe, such as phases.0.learning_rate=1e-3; repeatable.",
            ),
            click.option(
                "--folds",
                type=click.IntRange(2, 20),
                default=None,
                help="Decide by so many folds by patient, each tested by a model that has not seen it, instead of by"
                " the test split.",
            ),
            click.option(
                "--holdout",
                type=click.Choice(("none", "test")),
                default=None,
                help="test: keep the data set's test split out of all folds, to measure the served model on it.",
            ),
            click.option(
                "--on-infeasible",
                type=click.Choice(("fail", "train-only")),
                default=None,
                help="Of a class with fewer patients than folds: fail (the default), or train on it and measure the"
                " others.",
            ),
            click.option(
                "--gate-policy",
                type=click.Choice(("better", "non-inferior", "auto")),
                default=None,
                help="How the champion is compared with, instead of the recipe's gate.policy; auto: non-inferior where"
                " recipe and code are the champion's and all its training patients are in train, else better.",
            ),
            click.option(
                "--accept-drift",
                default="",
                metavar="REASON",
                help="Train although the colours have shifted against the champion's data.",
            ),
            click.option(
                "--drift-threshold",
                "drift_thresholds",
                multiple=True,
                metavar="FEATURE=VALUE",
                help="Another limit for one colour feature, such as color/sharpness=1.5; repeatable.",
            ),
            click.option(
                "--beam-args", default="", help="Flags for Beam in one string; an embedded runner by default."
            ),
            metadata_option,
            click.option(
                "--force",
                is_flag=True,
                help="Train even where data, recipe and code are those of a finished run.",
            ),
        )
    ):
        command = option(command)
    return command


def overrides(given: dict[str, Any], phases: int) -> dict[str, str]:
    """The recipe's fields that the command line changes.

    Args:
        given: The options.
        phases: Number of phases of the recipe.

    Raises:
        UsageError: An element of --set is not FIELD=VALUE.
    """
    found = dict(pairs("--set", given["changes"]))
    fields = {"epochs": f"phases.{phases - 1}.epochs", "batch_size": "batch_size", "seed": "seed"}
    fields |= {"weights": "options.weights", "backbone": "options.backbone", "gate_policy": "gate.policy"}
    if given["folds"]:
        found |= {"decision": "folds", "folds": str(given["folds"])}
    fields["holdout"] = "holdout"
    return found | {field: given[name] for name, field in fields.items() if given[name] not in ("", None)}


def pairs(option: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Splits NAME=VALUE texts.

    Raises:
        UsageError: One has no `=`.
    """
    found = []
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"{option} {text!r} is not NAME=VALUE.", "For example: --set seed=1.")
        found.append((name.strip(), value.strip()))
    return found


def settle(storage: Storage, dataset: str, given: dict[str, Any], data: str | None = None) -> Inputs:
    """The run's inputs from the command line, checked; loads nothing heavy.

    Args:
        storage: The workspace.
        dataset: Name of the data set.
        given: The options of `training_options`.
        data: Instead of --data.

    Raises:
        UsageError, DataError: See `components.training.run_inputs`.
    """
    from components.training import run_inputs
    from pipelines.recipes import PRESETS_FOLDER

    check_dataset(dataset, given["task"])
    chosen = (dataset, given["task"], given["preset"], given["model"])
    config = run_inputs.choose_config(*chosen, folder=PRESETS_FOLDER)
    changed = overrides(given, len(config.phases))
    if changed:
        config = run_inputs.choose_config(*chosen, changed, folder=PRESETS_FOLDER)
    return run_inputs.settle(
        storage, dataset, given["task"], given["data"] if data is None else data, config,
        frozen_options(given),
    )  # fmt: skip


def frozen_options(given: dict[str, Any]) -> dict[str, Any]:
    """What the command line says beside the recipe, as a run freezes it.

    Args:
        given: Options of `training_options`, or some of them.

    Raises:
        UsageError: One can't be used.
    """
    import shlex

    from pipelines.beam.flags import runner_args

    options: dict[str, Any] = {}
    if given.get("on_infeasible"):
        options["on_infeasible"] = given["on_infeasible"]
    if given.get("accept_drift"):
        options["accept_drift"] = given["accept_drift"]
    if given.get("drift_thresholds"):
        options["drift_thresholds"] = thresholds(given["drift_thresholds"])
    server = metadata_server(given["metadata"])
    if server is not None:
        options["metadata"] = server.place  # without the password
    if given.get("beam_args"):
        options["beam_args"] = runner_args(shlex.split(given["beam_args"]))
    return options


def thresholds(texts: tuple[str, ...]) -> dict[str, float]:
    """Drift limits by feature.

    Raises:
        UsageError: Not NAME=VALUE, an unknown feature, or no positive number.
    """
    from components.metrics.drift import THRESHOLDS

    found = {}
    for name, text in pairs("--drift-threshold", texts):
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if name not in THRESHOLDS or not 0 < value < 1e6:
            raise UsageError(
                f"--drift-threshold {name}={text} can't be used.",
                f"Give a positive number for one of {', '.join(THRESHOLDS)}.",
            )
        found[name] = value
    return found


def check_dataset(dataset: str, task: str) -> None:
    """Refuses unknown data sets and tasks.

    Raises:
        UsageError: Names those that exist.
    """
    from components.core.field_checks import nearest
    from schemas import load_json

    known = load_json("classes.json")
    if dataset not in known:
        raise UsageError(
            f"There is no data set {dataset!r}; there are {', '.join(known)}.", nearest(dataset, list(known))
        )
    if task not in known[dataset]:
        raise UsageError(f"{dataset} has no task {task!r}.", f"Choose {' or '.join(known[dataset])}.")


@click.command("train")
@click.argument("dataset", metavar="DATASET")
@training_options
@click.option("--run-id", default="", help="Name of the run; by default made of time and model.")
@mlflow_option
@click.option("--tensorboard", is_flag=True, help="Print the command that shows this run's curves while it trains.")
@json_option
def command(dataset: str, run_id: str, mlflow: str, tensorboard: bool, as_json: bool, **given: Any) -> None:
    """Train, evaluate, and promote the model if it has earned it; a refusal is a normal end."""
    from components.storage.open import open_storage
    from components.training import run_inputs, run_record
    from components.training.cluster import read_cluster
    from pipelines import stages

    storage = open_storage(given["workspace"])
    cluster = read_cluster()
    if cluster is not None:
        if not run_id:
            raise UsageError(
                "Several workers (TF_CONFIG) need one name of the run.", "Give the same --run-id on every machine."
            )
        if not cluster.chief:
            from pipelines.worker import join

            joined = join(storage, run_record.run_dir(dataset, given["task"], run_id), cluster, console.log)
            result = stages.result(storage, joined)
            console.emit(result, as_json, lambda: click.echo("This worker's part is done; the chief goes on."))
            return
    if mlflow:
        mlflow_export.client(mlflow)  # a missing package is told now, not after hours
    inputs = settle(storage, dataset, given)
    refuse_cluster_of_folds(inputs, cluster is not None)
    name = run_id or run_inputs.new_run_id(inputs.config.model)
    folder = run_record.run_dir(dataset, given["task"], name)
    if not run_id:
        console.log(f"run {name}; go on after an interruption with --run-id {name}")
    if tensorboard:
        curves = storage.work_folder() / folder / ("folds" if inputs.folds else "tensorboard")
        console.log(f"curves: {tensorboard_command(curves)}")
    carry_out(storage, folder, inputs, given["metadata"], given["force"], as_json)
    if mlflow:
        console.log(mlflow_export.said(mlflow_export.export(storage, folder, mlflow)))


def refuse_cluster_of_folds(inputs: Inputs, cluster: bool) -> None:
    """Refuses to train folds as one model on several machines.

    Raises:
        UsageError: Both were asked for.
    """
    if cluster and inputs.folds is not None:
        raise UsageError(
            "TF_CONFIG makes several machines train one model, and folds are several models.",
            "Unset TF_CONFIG, and train the folds side by side: histoline step train --fold N on each machine.",
        )


def tensorboard_command(curves: Path) -> str:
    """The command line that shows a run's curves; TensorBoard lies beside this interpreter.

    Args:
        curves: Folder of the curves on this machine.
    """
    import shlex

    program = Path(sys.executable).with_name("tensorboard")
    return shlex.join([str(program) if program.exists() else "tensorboard", "--logdir", str(curves)])


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.train")))
