"""`histoline sweep`: compares recipes on train and eval, chooses one, and sends it through the ordinary gate."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from components.core.text import number
from pipelines import console
from pipelines.options import json_option, metadata_server
from pipelines.sweep_steps import begin, refuse_cluster, result, sweep_options

if TYPE_CHECKING:
    from components.storage.base import Storage
    from components.sweeps.sweep_types import SweepRecord


@click.command("sweep")
@click.argument("dataset", metavar="DATASET")
@sweep_options
@click.option("--sweep-id", default="", help="Name of the sweep, or one to go on with; by default made of the time.")
@click.option("--choose-only", is_flag=True, help="Choose a recipe, but send it to no gate: test stays unseen.")
@click.option(
    "--gate-policy",
    type=click.Choice(("better", "non-inferior", "auto")),
    default=None,
    help="How the champion is compared with, instead of the recipe's gate.policy.",
)
@click.option(
    "--accept-drift", default="", metavar="REASON", help="Although the colours have shifted against the champion's."
)
@json_option
def command(
    dataset: str, sweep_id: str, choose_only: bool, gate_policy: str | None, accept_drift: str, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Compare recipes on train and eval, choose the simplest of the best, and let the gate decide on it.

    A sweep that was interrupted goes on with its --sweep-id; two processes may work on one.
    """
    from components.storage.open import open_storage
    from components.sweeps import record
    from pipelines import sweep_end, sweep_loop

    refuse_cluster()
    storage = open_storage(given["workspace"])
    server = metadata_server(given["metadata"])
    folder = record.sweep_dir(dataset, given["task"], sweep_id or record.new_sweep_id())
    sweep = begin(storage, folder, given)
    console.log(
        f"sweep {sweep.sweep_id}: {_size(sweep)}; go on after an interruption with --sweep-id {sweep.sweep_id}"
    )
    if sweep.choice is None:
        sweep_loop.run_trials(storage, folder, console.log)
    sweep = sweep_end.conclude(storage, folder, console.log, server)
    run: dict[str, Any] = {}
    if not choose_only:
        run = _winner(storage, folder, sweep, gate_policy, accept_drift, server)
        sweep_end.write_page(storage, folder, lambda line: None)
    document = {**result(storage, folder), "run": run or None}
    console.leave_result(document)
    console.emit(document, as_json, lambda: _show(document))


def _size(sweep: SweepRecord) -> str:
    known = f"{len(sweep.trials)} trials" if sweep.trials else f"trials by {sweep.search.oracle}"
    return f"{known} on {sweep.dataset} {sweep.task}, compared by {sweep.group_unit} on {sweep.where}"


def _winner(
    storage: Storage, folder: str, sweep: SweepRecord, gate_policy: str | None, accept_drift: str, server: Any
) -> dict[str, Any]:
    """The winner's run: validate, train (whose model it takes over from the trial), evaluate, push, report."""
    import dataclasses

    from components.sweeps import conclude
    from components.training import run_inputs, run_record
    from components.training.recipe import TrainingConfig
    from components.training.recipe_parts import Gate
    from pipelines import stages
    from pipelines.whole_run import work_through

    assert sweep.choice is not None
    trial = sweep.trials[sweep.choice.winner]
    config = TrainingConfig.from_dict({**trial.config, "title": conclude.winner_title(sweep, trial)})
    if gate_policy:
        config = dataclasses.replace(config, gate=Gate.read({**dataclasses.asdict(config.gate), "policy": gate_policy}))
    options = dict(sweep.options) | ({"accept_drift": accept_drift} if accept_drift else {})
    data = storage.uri(sweep.dataset_dir)
    inputs = run_inputs.settle(storage, sweep.dataset, sweep.task, data, config, options)
    place = run_record.run_dir(sweep.dataset, sweep.task, sweep.run_id)
    work_through(storage, place, inputs, server, f"histoline sweep {sweep.dataset} {sweep.task}")
    return stages.result(storage, run_record.read(storage, place))


def _show(document: dict[str, Any]) -> None:
    rows = [
        (line["trial"], line["recipe"], ", ".join(f"{k}={v}" for k, v in line["values"].items()), line["outcome"],
         number(line["score"]), f"{line['seconds']:.0f} s", line["reason"][:120])
        for line in sorted(document["results"], key=lambda line: -(line["score"] or 0.0))
    ]  # fmt: skip
    columns = ("trial", "recipe", "values", "state", document["metric"], "time", "reason")
    console.table(f"Trials, on {document['where']}", columns, rows, right=(0, 4, 5))
    click.echo(f"\n{document['reason']}")
    if document["run"]:
        click.echo(f"Gate:        {document['run']['reason'] or document['run']['state']}")
    click.echo(f"Recipe:      {document['recipe']}")
    click.echo(f"Page:        {document['report']}")


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.sweep")))
