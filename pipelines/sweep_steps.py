"""The steps of a sweep, for schedulers: `histoline step sweep-plan`, `sweep-trial` and `sweep-choose`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from components.errors import UsageError
from components.sweeps.sweep_types import ADAPTIVE, ORACLES, Oracle
from pipelines import console
from pipelines.options import SEEDS, json_option, metadata_option, metadata_server, task_option, workspace_option

if TYPE_CHECKING:
    from components.datasets.manifest import Manifest
    from components.storage.base import Storage
    from components.sweeps.sweep_types import SweepRecord, Trial, TrialRecord

PARENT = "HISTOLINE_SWEEP_PARENT"
"""Environment variable with the number of the process that a trial's process must not outlive."""


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that settle a sweep; `sweep` and `step sweep-plan` take the same."""
    for option in reversed(
        (
            workspace_option("Folder that holds datasets/, sweeps/, runs/ and models/."),
            task_option(),
            click.option("--data", default="", help="Data set (folder or PLAN_ID); the latest by default."),
            click.option(
                "--recipes",
                default="",
                metavar="A,B,C",
                help="Presets or YAML files to compare; all that were made for the data set by default.",
            ),
            click.option(
                "--search", "search_file", default="", metavar="FILE", help="YAML with recipes and fields to search."
            ),
            click.option(
                "--oracle",
                type=click.Choice(ORACLES),
                default=None,
                help="What draws trials: list (each recipe once) without --search, random with it.",
            ),
            click.option("--trials", type=click.IntRange(min=1), default=None, help="At most so many."),
            click.option(
                "--minutes",
                type=click.FloatRange(min=0, min_open=True),
                default=None,
                help="Of training in all; what runs then ends after its epoch.",
            ),
            click.option(
                "--folds",
                type=click.IntRange(min=2),
                default=None,
                help="Score each trial by so many folds inside train and eval, instead of on eval.",
            ),
            click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of the oracle."),
            metadata_option,
        )
    ):
        command = option(command)
    return command


def begin(storage: Storage, folder: str, given: Mapping[str, Any], *, adaptive: bool = True) -> SweepRecord:
    """Writes sweep.json with all trials that are known by now, or finds it; loads nothing heavy but for `random`.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        given: The options of `sweep_options`.
        adaptive: Whether trials may be drawn from results.

    Raises:
        UsageError: Wrong options, recipes that can't be trained, or a sweep of this name with others.
    """
    from components.sweeps import plan, record, search_space
    from components.training import run_inputs
    from pipelines.recipes import PRESETS_FOLDER
    from pipelines.train import check_dataset

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # keras-tuner, which draws trials, loads TensorFlow
    _, dataset, task, _ = folder.split("/")
    check_dataset(dataset, task)
    search = _search(dataset, task, given)
    if search.oracle in ADAPTIVE and not adaptive:
        raise UsageError(
            f"--oracle {search.oracle} draws trials from results, so they can't be planned as steps.",
            "Choose list, grid or random, or run histoline sweep.",
        )
    begun = storage.exists(f"{folder}/{record.NAME}")
    # A repeated try must not wander to a data set that was committed in between.
    data = storage.uri(record.read(storage, folder).dataset_dir) if begun and not given["data"] else given["data"]
    dataset_dir, manifest = run_inputs.find_dataset(storage, dataset, task, data)
    for split in ("train", "eval"):
        if not manifest.splits[split].patches:
            raise UsageError(f"{storage.uri(dataset_dir)} has no patches in {split}.", "Ingest more patients.")
    trials: tuple[Trial, ...] = ()
    if not begun:  # else its recipes are frozen, and their files may be gone
        search_space.check(search.recipes, search.fields, manifest, PRESETS_FOLDER)
        trials = plan.known_trials(search, manifest, PRESETS_FOLDER)
    folds = given["folds"]
    if folds and search.oracle == "hyperband":
        raise UsageError("--folds and --oracle hyperband do not go together.", "Choose random or bayesian.")
    server = metadata_server(given["metadata"])
    options = {"metadata": server.place} if server is not None else {}
    with record.lock(storage, folder, f"histoline sweep {dataset} {task}"):
        if folds and not begun:
            _freeze_folds(storage, folder, dataset_dir, manifest, folds)
        return record.begin(storage, folder, dataset_dir, manifest, search, folds, options, trials)


def refuse_cluster() -> None:
    """Refuses to train a trial as one worker of several: trials are what machines share.

    Raises:
        UsageError: TF_CONFIG is set.
    """
    from components.training.cluster import VARIABLE, read_cluster

    if read_cluster() is not None:
        raise UsageError(
            f"{VARIABLE} is set, but a trial trains on one machine.",
            "Unset it, and start the same sweep (--sweep-id) on each machine: they share its trials.",
        )


def _freeze_folds(storage: Storage, folder: str, dataset_dir: str, manifest: Manifest, folds: int) -> None:
    """Plans the folds inside train and eval, those of `train --folds K --holdout test`."""
    from components.training.fold_plan import freeze_folds, settle_folds
    from components.training.recipe import TrainingConfig

    config = TrainingConfig(task=manifest.task, decision="folds", folds=folds, holdout="test")
    freeze_folds(storage, folder, settle_folds(storage, dataset_dir, manifest, config))


def _search(dataset: str, task: str, given: Mapping[str, Any]) -> Any:
    from pathlib import Path

    from components.sweeps import search_space
    from components.sweeps.sweep_types import Search
    from pipelines.recipes import PRESETS_FOLDER

    recipes, fields = search_space.read_file(Path(given["search_file"])) if given["search_file"] else ((), ())
    named = tuple(dict.fromkeys(name.strip() for name in given["recipes"].split(",") if name.strip()))
    recipes = named or recipes or tuple(search_space.default_recipes(dataset, task, PRESETS_FOLDER))
    oracle: Oracle = given["oracle"] or ("random" if fields else "list")
    if (oracle == "list") == bool(fields):
        raise UsageError(
            f"--oracle {oracle} {'takes no' if fields else 'needs'} fields to search.",
            "Leave --oracle away." if fields else "Name them with --search FILE.",
        )
    trials = given["trials"] or (10 if oracle in ("random", "bayesian") else None)
    return Search(oracle, recipes, fields, trials, given["minutes"], given["seed"])


def result(storage: Storage, folder: str) -> dict[str, Any]:
    """The small document that a scheduler or --json gets of a sweep.

    Args:
        storage: The workspace.
        folder: Of the sweep.
    """
    from components.sweeps import record

    sweep = record.read(storage, folder)
    known = record.read_trials(storage, folder, sweep)
    choice = sweep.choice
    return {
        "state": sweep.state,
        "dataset": sweep.dataset,
        "task": sweep.task,
        "sweep_id": sweep.sweep_id,
        "dataset_dir": storage.uri(sweep.dataset_dir),
        "content_digest": sweep.content_digest,
        "plan_id": sweep.plan_id,
        "metric": sweep.metric,
        "where": sweep.where,
        "trials": [trial.number for trial in sweep.trials],
        "results": [_line(trial.number, trial.recipe, trial.values, known.get(trial.number)) for trial in sweep.trials],
        "winner": choice.winner if choice else None,
        "best": choice.best if choice else None,
        "reason": choice.reason if choice else "",
        "recipe": storage.uri(f"{folder}/{record.WINNER}") if choice else None,
        "run_id": sweep.run_id,
        "report": storage.uri(sweep.report) if sweep.report else None,
    }


def _line(number: int, recipe: str, values: Mapping[str, Any], trial: TrialRecord | None) -> dict[str, Any]:
    from components.sweeps.stopping import outcome

    return {
        "trial": number,
        "recipe": recipe,
        "values": dict(values),
        "state": trial.state if trial else "planned",
        "outcome": outcome(trial),
        "score": trial.score if trial else None,
        "seconds": trial.seconds if trial else 0.0,
        "parameters": trial.parameters if trial else None,
        "reason": (trial.error.message if trial.error else trial.reason) if trial else "",
    }


def _folder(storage: Storage, dataset: str, task: str, sweep_id: str) -> str:
    from components.sweeps import record

    return record.sweep_dir(dataset, task, sweep_id)


id_option = click.option("--sweep-id", required=True, help="Name of the sweep.")
dataset_argument = click.argument("dataset", metavar="DATASET")


@click.command("sweep-plan")
@dataset_argument
@sweep_options
@id_option
@json_option
def plan(dataset: str, sweep_id: str, as_json: bool, **given: Any) -> None:
    """Settle a sweep: its recipes and trials, all known before the first of them runs."""
    from components.storage.open import open_storage

    storage = open_storage(given["workspace"])
    folder = _folder(storage, dataset, given["task"], sweep_id)
    begin(storage, folder, given, adaptive=False)
    document = result(storage, folder) | {"stage": "sweep-plan", "state": "done"}
    console.leave_result(document)
    console.emit(document, as_json, lambda: click.echo(f"sweep-plan: {len(document['trials'])} trials"))


@click.command("sweep-trial")
@dataset_argument
@workspace_option()
@task_option()
@id_option
@click.option("--trial", "number", type=click.IntRange(min=0), required=True, help="Number of the trial, from 0.")
@click.option("--wait", default=60.0, show_default=True, help="Seconds for another process that works on it.")
@json_option
def trial(
    dataset: str, workspace: str, task: str, sweep_id: str, number: int, wait: float, as_json: bool
) -> None:  # fmt: skip
    """Train and score one trial; a recipe that fails is noted, and is no failure of the step."""
    from components.core.machine import die_with_parent
    from components.storage.open import open_storage
    from components.sweeps import trial as trials
    from pipelines.tfx import nodes

    nodes.silence()  # TensorFlow complains of each model after the first, which folds have
    refuse_cluster()
    if PARENT in os.environ:
        die_with_parent(int(os.environ[PARENT]))
    storage = open_storage(workspace)
    folder = _folder(storage, dataset, task, sweep_id)
    done = trials.run(storage, folder, number, log=console.log, wait_seconds=wait)
    document = {
        "state": done.state, "stage": "sweep-trial", "sweep_id": sweep_id, "trial": number, "score": done.score,
        "seconds": done.seconds, "reason": done.error.message if done.error else done.reason,
    }  # fmt: skip
    console.leave_result(document)
    console.emit(document, as_json, lambda: click.echo(f"sweep-trial {number}: {done.state} {document['reason']}"))


@click.command("sweep-choose")
@dataset_argument
@workspace_option()
@task_option()
@id_option
@metadata_option
@json_option
def choose(dataset: str, workspace: str, task: str, sweep_id: str, metadata: str, as_json: bool) -> None:
    """Compare a sweep's trials and choose one: its recipe, a page, and TFX's Tuner in the lineage."""
    from components.storage.open import open_storage
    from pipelines import sweep_end

    storage = open_storage(workspace)
    folder = _folder(storage, dataset, task, sweep_id)
    sweep_end.conclude(storage, folder, console.log, metadata_server(metadata))
    document = result(storage, folder) | {"stage": "sweep-choose"}
    console.leave_result(document)
    console.emit(document, as_json, lambda: click.echo(document["reason"]))


STEPS: dict[str, click.Command] = {"sweep-plan": plan, "sweep-trial": trial, "sweep-choose": choose}
"""By the name that `histoline step` knows them under."""
