"""`histoline step`: one stage of a run in one process, as a scheduler calls it; safe to repeat, also after SIGKILL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from components.errors import UsageError
from components.training.run_types import STAGES
from pipelines import console
from pipelines.options import json_option, metadata_server
from pipelines.train import settle, training_options
from pipelines.whole_run import result_left_behind

if TYPE_CHECKING:
    from components.training.cluster import Cluster


class Steps(click.Command):
    """The stages of a run, and the steps of a sweep, which take options of their own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hands over to a sweep's step where the first argument names one."""
        if args and args[0].startswith("sweep-"):
            from pipelines.sweep_steps import STEPS

            if args[0] in STEPS:
                return STEPS[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs what the context was made for."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command("step", cls=Steps)
@click.argument("stage", type=click.Choice(STAGES), metavar="STAGE")
@click.argument("dataset", metavar="DATASET")
@training_options
@click.option("--run-id", required=True, help="Name of the run.")
@click.option(
    "--fold",
    type=click.IntRange(1, 20),
    default=None,
    help="Of train: this fold alone, beside others in processes of their own; without it all that are missing.",
)
@json_option
@click.pass_context
def command(
    context: click.Context, /, stage: str, dataset: str, run_id: str, fold: int | None, as_json: bool, **given: Any
) -> None:
    """Run one STAGE: validate, train, evaluate, push or report.

    validate takes the training options and freezes them; the later stages read only what it froze. The steps of a sweep
    are sweep-plan, sweep-trial and sweep-choose; each has a --help of its own.
    """
    from components.storage.open import open_storage
    from components.training import run_record
    from components.training.cluster import read_cluster
    from pipelines import stages

    storage = open_storage(given["workspace"])
    folder = run_record.run_dir(dataset, given["task"], run_id)
    cluster = read_cluster()
    if fold is not None:
        refuse_fold(stage, cluster)
    if cluster is not None and not cluster.chief:
        if stage != "train":
            click.echo(f"{stage}: nothing to do for {cluster.describe()}, the chief does it")
            return
        from pipelines.worker import join

        joined = stages.result(storage, join(storage, folder, cluster, console.log))
        console.emit(joined, as_json, lambda: click.echo("train: done"))
        return
    if stage == "validate":
        frozen = (
            run_record.read(storage, folder).dataset_dir if run_record.exists(storage, folder) else None
        )
        # A repeated try must not wander to a data set that was committed in between.
        again = storage.uri(frozen) if frozen and not given["data"] else None
        inputs = settle(storage, dataset, given, again)
    else:
        refuse_options(context)
        run_record.read(storage, folder)
    if fold is not None:
        from pipelines.fold_step import train_one

        with result_left_behind(storage, folder):
            train_one(storage, folder, fold, console.log)
        document = {**stages.result(storage, run_record.read(storage, folder)), "fold": fold}
        console.emit(document, as_json, lambda: click.echo(f"fold {fold}: done"))
        return
    with run_record.lock(storage, folder, f"histoline step {stage} {dataset} {given['task']}") as held:
        run = stages.Run(storage, folder, console.log, metadata_server(given["metadata"]), held.check)
        with result_left_behind(storage, folder):
            if stage == "validate":
                run.validate(inputs, given["force"])
            else:
                run.stage(stage)
    document = stages.result(storage, run_record.read(storage, folder))
    console.emit(document, as_json, lambda: click.echo(document["reason"] or f"{stage}: done"))


def refuse_fold(stage: str, cluster: Cluster | None) -> None:
    """Refuses --fold where there is none to train alone.

    Raises:
        UsageError: Another stage than train, or TF_CONFIG makes this process one of several workers.
    """
    if stage != "train":
        raise UsageError(f"step {stage} has no folds.", "Only `step train` takes --fold.")
    if cluster is not None:
        raise UsageError(
            "TF_CONFIG is set, but a fold is trained on one machine.",
            "Unset it, and start step train --fold on each machine: folds are what they share.",
        )


def refuse_options(context: click.Context) -> None:
    """Refuses training options on stages that read what `validate` froze.

    Raises:
        UsageError: One was given.
    """
    allowed = {"stage", "dataset", "workspace", "task", "run_id", "metadata", "as_json", "fold"}
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name not in allowed and source == click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"Only `step validate` takes {parameter.opts[0]}; the later stages read what it froze.",
                "Give it to validate, under a new --run-id.",
            )


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.step")))
