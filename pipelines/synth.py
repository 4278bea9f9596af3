"""Draws a synthetic sample in the layout of a real data set."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from pipelines import console
from pipelines.options import SEEDS, json_option


@click.command("synth")
@click.argument("dataset", metavar="{idc|breakhis|pcam}")
@click.option("--output", required=True, help="New or empty folder.")
@click.option("--patches", type=int, default=None, help="Number of images; by default enough for a demo.")
@click.option("--groups", type=int, default=None, help="Number of patients (pcam: slides).")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Equal seeds give equal bytes.")
@click.option("--workers", type=int, default=None, help="Processes; all cores by default.")
@click.option("--nested-copy", is_flag=True, help="idc: add the second copy of the tree that the real download has.")
@click.option("--real-proportions", is_flag=True, help="breakhis: patients by type as in the real data.")
@json_option
def command(
    dataset: str,
    output: str,
    patches: int | None,
    groups: int | None,
    seed: int,
    workers: int | None,
    nested_copy: bool,
    real_proportions: bool,
    as_json: bool,
) -> None:
    """Draw H&E-like patches: the label is in the nuclei, a stain signature is in the patient."""
    from pipelines.synthetic.draw import generate

    class Bar:
        bar: console.Progress | None = None
        done = 0

        def __call__(self, done: int, total: int) -> None:
            if self.bar is None:
                self.bar = console.Progress("patches", total).__enter__()
            self.bar.advance(done - self.done)
            self.done = done

    progress = Bar()
    try:
        made = generate(
            dataset,
            Path(output),
            patches=patches,
            groups=groups,
            seed=seed,
            workers=workers,
            nested_copy=nested_copy,
            real_proportions=real_proportions,
            progress=progress,
        )
    finally:
        if progress.bar is not None:
            progress.bar.__exit__(None, None, None)

    def show() -> None:
        click.echo(
            f"{made.images:,} images of {made.groups:,} groups ({made.per_class[0]:,} negative, "
            f"{made.per_class[1]:,} positive) "
            f"in {made.output}"
        )

    console.emit(dataclasses.asdict(made), as_json, show)


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.synth")))
