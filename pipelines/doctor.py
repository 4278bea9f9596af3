"""Checks this machine and says what to do about what is found."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from components.errors import DataError
from pipelines import console
from pipelines.options import json_option, workspace_option


@click.command("doctor")
@workspace_option("Folder to check.")
@click.option(
    "--deep",
    is_flag=True,
    help="Also ask TensorFlow for GPUs, and look for the weights that recipes and Airflow's settings name (seconds).",
)
@json_option
def command(workspace: str, deep: bool, as_json: bool) -> None:
    """Check this machine: name, finding, fix; exit 65 where something will not work."""
    from pipelines.doctor_checks import run_checks
    from pipelines.doctor_weights import check_weights

    checks = run_checks(None if workspace.startswith("gs://") else Path(workspace), deep=deep)
    checks += check_weights() if deep else []
    failed = [check.name for check in checks if check.status == "fail"]

    def show() -> None:
        rows = [(check.status, check.name, check.finding, check.fix) for check in checks]
        console.table("histoline doctor", ("", "check", "finding", "fix"), rows)

    console.emit({"ok": not failed, "checks": [dataclasses.asdict(check) for check in checks]}, as_json, show)
    if failed:
        raise DataError(f"{len(failed)} checks failed: {', '.join(failed)}.", "The table says how to fix each.")


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.doctor")))
