"""`histoline ensemble`: the mean of several runs' models as one, calibrated, judged and promoted like any model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from components.errors import UsageError
from pipelines import console
from pipelines.options import json_option, metadata_option, task_option, workspace_option
from pipelines.train import check_dataset, frozen_options, pairs
from pipelines.whole_run import carry_out

if TYPE_CHECKING:
    from components.storage.base import Storage


@click.command("ensemble")
@click.argument("dataset", metavar="DATASET")
@click.argument("run_ids", nargs=-1, metavar="RUN_ID RUN_ID [RUN_ID ...]")
@click.option(
    "--sweep", "sweep_id", default="", metavar="SWEEP_ID", help="Instead of runs: the best trials of a sweep."
)
@click.option("--best", default=3, show_default=True, type=click.IntRange(2, 50), help="How many trials of --sweep.")
@workspace_option("Folder that holds datasets/, runs/ and models/.")
@task_option()
@click.option("--data", default="", help="Data set that they were trained on; the first run's by default.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="How the ensemble is judged, otherwise than the first run was: threshold, floors or gate; repeatable.",
)
@click.option("--accept-drift", default="", metavar="REASON", help="Although colours have shifted; see train.")
@click.option("--beam-args", default="", help="Flags for Beam in one string; an embedded runner by default.")
@metadata_option
@click.option("--force", is_flag=True, help="Even where a finished run was of the same models and code.")
@click.option("--run-id", default="", help="Name of the new run; by default made of the time.")
@json_option
def command(
    dataset: str, run_ids: tuple[str, ...], sweep_id: str, best: int, run_id: str, as_json: bool, **given: Any
) -> None:
    """Average the models of several runs into one, on the scale of calibrated logits.

    The mean is a run of its own: calibrated on eval as one model, judged on the test split, promoted if it has earned
    it, and one SavedModel. All runs must have been trained on the same patients.
    """
    from components.core.field_checks import set_dotted
    from components.storage.open import open_storage
    from components.training import ensemble, run_inputs, run_record
    from components.training.cluster import read_cluster
    from components.training.recipe import TrainingConfig

    check_dataset(dataset, given["task"])
    if read_cluster() is not None:
        raise UsageError("TF_CONFIG names several machines, and an ensemble needs one.", "Unset TF_CONFIG.")
    storage = open_storage(given["workspace"])
    if bool(sweep_id) == bool(run_ids):
        raise UsageError("Name either runs or a --sweep.", f"For example: histoline ensemble {dataset} RUN_ID RUN_ID.")
    if sweep_id:
        run_ids = best_trials(storage, dataset, given["task"], sweep_id, best)
        console.log(f"the best of sweep {sweep_id}: {', '.join(run_ids)}")
    tree = ensemble.recipe_of(storage, dataset, given["task"], run_ids).to_dict()
    for field, value in pairs("--set", given["changes"]):
        if field.split(".")[0] not in ("threshold", "floors", "gate", "title"):
            raise UsageError(
                f"--set {field}: an ensemble is not trained.", "Set threshold, floors.NAME, gate.NAME or title."
            )
        set_dotted(tree, field, value)
    data = given["data"] or storage.uri(_dataset_dir(storage, dataset, given["task"], sweep_id, run_ids[0]))
    inputs = run_inputs.settle(
        storage, dataset, given["task"], data, TrainingConfig.from_dict(tree), frozen_options(given)
    )
    folder = run_record.run_dir(dataset, given["task"], run_id or run_inputs.new_run_id("ensemble"))
    carry_out(storage, folder, inputs, given["metadata"], given["force"], as_json)


def best_trials(storage: Storage, dataset: str, task: str, sweep_id: str, best: int) -> tuple[str, ...]:
    """The trials of a sweep that did best on eval, best first, as an ensemble names its members.

    Args:
        storage: The workspace.
        dataset: Name of the data set.
        task: Task.
        sweep_id: Of the sweep.
        best: How many.

    Raises:
        UsageError: There is no such sweep, or it has fewer than two trained trials.
    """
    from components.sweeps import record as records

    folder = f"sweeps/{dataset}/{task}/{sweep_id}"
    trials = records.read_trials(storage, folder, records.read(storage, folder))
    scored = [
        (trial.score, number) for number, trial in trials.items() if trial.state == "done" and trial.score is not None
    ]
    chosen = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:best]
    if len(chosen) < 2:
        raise UsageError(
            f"Sweep {sweep_id!r} has {len(chosen)} trained trials; an ensemble needs two.", "Go on with it."
        )
    return tuple(f"{sweep_id}/{number}" for _, number in chosen)


def _dataset_dir(storage: Storage, dataset: str, task: str, sweep_id: str, run_id: str) -> str:
    from components.sweeps import record as records
    from components.training import run_record

    if sweep_id:
        return records.read(storage, f"sweeps/{dataset}/{task}/{sweep_id}").dataset_dir
    return run_record.read(storage, run_record.run_dir(dataset, task, run_id)).dataset_dir


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.ensemble")))
