"""Looks for leakage in a committed data set again, from the records themselves."""

from __future__ import annotations

import dataclasses
import sys

import click

from components.errors import DataError
from pipelines import console
from pipelines.named_dataset import dataset_argument, open_dataset
from pipelines.options import json_option


@click.command("audit")
@dataset_argument
@json_option
def command(dataset: str, workspace: str, task: str, as_json: bool) -> None:
    """Check a committed data set for leakage again: patients, images, labels, counts; exit 65 on a finding."""
    from components.core.machine import cores
    from components.datasets.audit import audit, read_shard
    from components.ingest.worker_pool import helper_pool

    storage, name, manifest = open_dataset(dataset, workspace, task)
    shards = [(split, f"{name}/{manifest.path(split, shard)}") for split, shard in manifest.all_shards()]
    with helper_pool(cores()) as pool, console.Progress("records", manifest.written) as progress:
        facts = []
        for fact in pool.map(read_shard, [storage.root] * len(shards), [p for _, p in shards], [s for s, _ in shards]):
            facts.append(fact)
            progress.advance(len(fact.patch_id))
    result = audit(storage, name, manifest, facts)
    document = {
        "ok": not result.findings,
        "dataset_dir": storage.uri(name),
        "flags": manifest.flags,
        **dataclasses.asdict(result),
    }

    def show() -> None:
        unit = manifest.group_unit
        for finding in result.findings:
            click.echo(finding)
        if not result.findings:
            click.echo(
                f"ok: {result.records:,} records; no {unit} and no picture in two splits, none under two labels "
                f"({result.duplicates_within:,} copies within one split, "
                f"{result.near_duplicates:,} near-duplicate pairs across)"
            )

    console.emit(document, as_json, show)
    if result.findings:
        raise DataError(f"{storage.uri(name)} leaks or contradicts itself: {len(result.findings)} findings.", "")


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.audit")))
