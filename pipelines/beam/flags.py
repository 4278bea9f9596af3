"""Beam from a command: its flags checked and completed, its import late and quiet."""

from __future__ import annotations

import os
from typing import Any

import click

from components.core.text import nearest
from components.errors import UsageError


def import_beam(module: str) -> Any:
    """Imports one of our modules that loads Beam, and keeps Beam quiet.

    Args:
        module: Its full name.
    """
    import importlib
    import logging
    import warnings

    # For workers that Beam starts as processes of their own.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning:google.api_core._python_version_support")
    with warnings.catch_warnings():
        # Google's libraries announce the end of Python 3.10, which TFX 1.16 needs.
        warnings.simplefilter("ignore", FutureWarning)
        loaded = importlib.import_module(module)

    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    # What a worker raises is raised here too, and told in one paragraph: no need of two tracebacks before it.
    for name in ("common", "worker.sdk_worker", "portability.fn_api_runner", "portability.local_job_service"):
        logging.getLogger(f"apache_beam.runners.{name}").setLevel(logging.CRITICAL)
    return loaded


def runner_args(extra: list[str]) -> list[str]:
    """Beam's flags with the runner made explicit: DirectRunner would fetch a binary first, FnApiRunner never does."""
    args = ["--runner=FnApiRunner" if a in ("--runner=DirectRunner", "--runner=direct") else a for a in extra]
    for i in range(len(args) - 1):
        if args[i] == "--runner" and args[i + 1].lower() in ("directrunner", "direct"):
            args[i + 1] = "FnApiRunner"
    return args if any(a.split("=")[0] == "--runner" for a in args) else ["--runner=FnApiRunner", *args]


def leaves_this_process(args: list[str]) -> bool:
    """Whether Beam's flags name another runner than the embedded one, so that work is done elsewhere."""
    runners = [a.partition("=")[2] or after for a, after in zip(args, [*args[1:], ""]) if a.split("=")[0] == "--runner"]
    return any(runner and "FnApiRunner" not in runner for runner in runners)


def check_own_typos(extra: list[str], of: click.Command) -> None:
    """Refuses a mistyped option of ours before it passes for one of Beam's.

    Args:
        extra: Flags that click did not know.
        of: The command.

    Raises:
        UsageError: Names the option that was probably meant.
    """
    own = [o for p in of.params for o in p.opts if o.startswith("--")]
    for arg in extra:
        name = arg.split("=")[0]
        near = nearest(name, own, cutoff=0.8) if name.startswith("--") else ""
        if near:
            raise UsageError(f"There is no option {name}.", f"Did you mean {near}?")


def check_beam_args(beam_args: list[str], name: str = "ingest") -> None:
    """Refuses flags that no Beam options class knows; Beam itself would drop them without a word.

    Args:
        beam_args: The flags.
        name: Of the command, for the message.

    Raises:
        UsageError: Names the flag.
    """
    import argparse

    from apache_beam.options.pipeline_options import PipelineOptions

    if "DaskRunner" in " ".join(beam_args):
        import apache_beam.runners.dask.dask_runner  # noqa: F401 - registers its options
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for options in PipelineOptions.__subclasses__():
        try:
            options._add_argparse_args(parser)
        except argparse.ArgumentError:
            continue  # two runners share a flag
    try:
        _, unknown = parser.parse_known_args(beam_args)
    except argparse.ArgumentError as error:
        raise UsageError(f"Beam refuses a flag: {error}.") from None
    if unknown:
        raise UsageError(f"Neither histoline nor Beam knows {unknown[0]}.", f"See histoline {name} --help.")
