"""The `histoline` command. Subcommands are loaded only when they are asked for, so that help is instant."""

from __future__ import annotations

import importlib
import sys

import click

from components.core.text import nearest
from components.version import __version__
from pipelines import console
from pipelines.commands import COMMANDS


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
