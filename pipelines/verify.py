"""Checks every byte of a committed data set, and on request every pixel against its source."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from components.errors import DataError, UsageError
from pipelines import console
from pipelines.named_dataset import dataset_argument, open_dataset
from pipelines.options import json_option


@click.command("verify")
@dataset_argument
@click.option("--deep", is_flag=True, help="Decode sources again with other decoders and compare every pixel.")
@click.option("--sample", default=500, show_default=True, help="Records that --deep compares; 0 for all.")
@click.option("--input", "input_root", default="", help="The raw folder, where it is no longer where ingest found it.")
@click.option("--path-map", default="", help="Token-to-path map of a pseudonymised data set.")
@json_option
def command(
    dataset: str, workspace: str, task: str, deep: bool, sample: int, input_root: str, path_map: str, as_json: bool
) -> None:
    """Check every byte of a committed data set against its manifest; exit 65 where one has changed."""
    from components.datasets.verify import ledger_finding, verify_bytes, verify_deep
    from components.ingest.pseudonyms import read_path_map

    if sample < 0:
        raise UsageError(f"--sample {sample} is negative.", "Give a count, or 0 for all.")
    storage, name, manifest = open_dataset(dataset, workspace, task)
    total = sum(shard.bytes for _, shard in manifest.all_shards())
    with console.Progress("bytes", total) as progress:
        result = verify_bytes(storage, name, manifest, progress.advance)
    findings = result.findings
    compared = 0
    if deep and not findings:
        findings += ledger_finding(storage, name, manifest)
        root = input_root or manifest.input
        if not root:
            raise UsageError("The manifest of a pseudonymised data set does not tell the raw folder.", "Give --input.")
        if not root.startswith("gs://") and not Path(root).is_dir():
            raise UsageError(f"The raw folder {root} is not there.", "Give --input.")
        tokens = read_path_map(Path(path_map)) if path_map else None
        with console.Progress("records", min(sample or manifest.written, manifest.written)) as progress:
            again = verify_deep(storage, name, manifest, root, sample, tokens, progress.advance)
        findings += again.findings
        compared = again.compared
    document = {
        "ok": not findings,
        "dataset_dir": storage.uri(name),
        "files": result.files,
        "bytes": result.bytes,
        "compared_with_source": compared,
        "findings": findings,
    }

    def show() -> None:
        for finding in findings[:50]:
            click.echo(finding)
        if len(findings) > 50:
            click.echo(f"... and {len(findings) - 50} more; --json lists them all")
        if not findings:
            more = f", {compared:,} records equal their sources in every pixel" if compared else ""
            click.echo(f"ok: {result.files:,} files, {result.bytes / 1e6:,.1f} MB as committed{more}")

    console.emit(document, as_json, show)
    if findings:
        raise DataError(
            f"{storage.uri(name)} is not what was committed: {len(findings)} findings.",
            "Run the same ingest again: it writes missing and damaged shards anew from the raw folder.",
        )


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.verify")))
