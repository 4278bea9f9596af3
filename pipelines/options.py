"""What several commands take: shared click options, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from components.storage.base import Storage
    from pipelines.tfx.metadata_store import Server

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Option = Callable[[Decorated], Decorated]

BEAM_EPILOG = "Other flags go to Beam, for example --runner=PortableRunner --job_endpoint=127.0.0.1:8099."

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
yes_option = click.option("--yes", is_flag=True, help="Do it; without, only tell what would be done.")
parts_option = click.option("--workers", default=0, help="Parts under way on each machine; by its cores by default.")
metadata_option = click.option(
    "--metadata",
    envvar="HISTOLINE_METADATA",
    default="",
    metavar="URL",
    help="Shared ML Metadata store, mysql://… or postgresql://…; better in HISTOLINE_METADATA than here, where lists"
    " of processes show the password. A file of the workspace by default.",
)
SEEDS = click.IntRange(0, 2**31 - 1)
"""Seeds that every library takes; a recipe's `seed` has the same limits."""

only_task_option = click.option("--task", default="", help="Only this task.")


def workspace_option(help_text: str = "Folder or gs:// prefix.") -> Option[Any]:
    """The option --workspace.

    Args:
        help_text: What the command looks for there.
    """
    return click.option(
        "--workspace", envvar="HISTOLINE_WORKSPACE", default="workspace", show_default=True, help=help_text
    )


def task_option(help_text: str | None = "binary, or subtype (breakhis).") -> Option[Any]:
    """The option --task of commands that work on one task; without help where the data set settles what there is."""
    return click.option("--task", default="binary", show_default=True, help=help_text)


def open_workspace(workspace: str) -> Storage:
    """Opens a workspace by what --workspace says; a relative folder counts from the working directory."""
    from components.storage.open import open_storage

    return open_storage(workspace if workspace.startswith("gs://") else str(Path(workspace).resolve()))


def metadata_server(url: str) -> Server | None:
    """The shared ML Metadata store that --metadata names; None for the workspace's own.

    Raises:
        UsageError: It is no URL of one.
    """
    from pipelines.tfx.metadata_store import parse

    return parse(url)


def name_and_flags(rest: tuple[str, ...]) -> tuple[str, list[str]]:
    """Splits what click leaves over into the command's own name, empty where there is none, and Beam's flags."""
    if rest and not rest[0].startswith("-"):
        return rest[0], list(rest[1:])
    return "", list(rest)
