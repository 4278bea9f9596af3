"""The `histoline` command. Subcommands are loaded only when they are asked for, so that help is instant."""

from __future__ import annotations

import importlib
import sys

import click

from components.core.text import nearest
from components.version import __version__
from pipelines import console

COMMANDS = {
    "ingest": ("pipelines.ingest", "Raw patches to audited, sharded TFRecords."),
    "verify": ("pipelines.verify", "Check every byte of a committed data set."),
    "audit": ("pipelines.audit", "Check a committed data set for leakage again."),
    "datasets": ("pipelines.datasets", "List, show, prune or forget committed data sets."),
    "train": ("pipelines.train", "Train, evaluate, promote if earned."),
    "sweep": ("pipelines.sweep", "Compare recipes, choose one, promote it if earned."),
    "ensemble": ("pipelines.ensemble", "The mean of several runs' models, as a run of its own."),
    "step": ("pipelines.step", "One stage of a training run, for schedulers."),
    "predict": ("pipelines.predict", "Give images or records a probability by a model."),
    "evaluate": ("pipelines.evaluate", "A model on another labelled data set, without training."),
    "report": ("pipelines.report", "Report pages of runs, and their index."),
    "runs": ("pipelines.runs", "List, show or compare runs."),
    "leakage": ("pipelines.leakage", "What a random split would promise, and what new patients get."),
    "lineage": ("pipelines.lineage", "What ML Metadata knows of a run."),
    "models": ("pipelines.models", "List, show, promote or roll back models."),
    "prune": ("pipelines.prune", "Delete old runs, data sets and the like that nothing needs."),
    "airflow": ("pipelines.airflow", "Start, stop or show Airflow on this machine."),
    "synth": ("pipelines.synth", "Draw a synthetic sample in a data set's own layout."),
    "doctor": ("pipelines.doctor", "Check this machine: name, finding, fix."),
    "catalog": ("pipelines.catalog", "Write what Airflow's forms offer."),
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own; their one-line help is known without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggests the nearest command on a typing error."""
        if args and args[0] not in COMMANDS:
            near = nearest(args[0], COMMANDS)
            hint = f" Did you mean {near!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="histoline")
def cli() -> None:
    """Breast-histopathology patches to patient-safe TFRecords, and models that have earned their promotion.

    Every command takes --json. Exit codes: 0 done, 64 wrong usage or input, 65 data failed a check, 75 try again
    later, 70 a bug.
    """


def main() -> None:
    """Entry point of the console script."""
    sys.exit(console.run(lambda: cli.main(standalone_mode=False, prog_name="histoline")))


if __name__ == "__main__":
    main()
