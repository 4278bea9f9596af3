"""`histoline ingest`: raw patches to audited, sharded TFRecords."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import TemporaryError, UsageError
from pipelines import console, ingest_summary
from pipelines.beam.engines import check_endpoints, engine_args, engine_option
from pipelines.beam.flags import check_own_typos
from pipelines.ingest_job import Outcome, run_ingest, unchanged
from pipelines.options import BEAM_EPILOG, SEEDS, json_option, name_and_flags, task_option, workspace_option

if TYPE_CHECKING:
    from components.ingest.config import IngestConfig


@click.command(
    "ingest",
    context_settings={"ignore_unknown_options": True},
    epilog=BEAM_EPILOG,
)
@click.argument("rest", metavar="DATASET [BEAM FLAGS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--dataset", default="", help="The data set: idc, breakhis or pcam; same as DATASET.")
@click.option("--input", "input_root", required=True, help="Folder or gs:// prefix with the raw images.")
@workspace_option()
@task_option()
@click.option("--size", default="", help="Stored WIDTHxHEIGHT; the source size divided by a whole number.")
@click.option("--image-format", default="raw", show_default=True, help="raw, or encoded (PNG files untouched).")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of the split and of the order of records.")
@click.option("--ratios", default="", help="Train, eval, test, such as 70/10/20 (the default of a new ledger).")
@click.option("--split-by", default="group", show_default=True, help="group, or image: leaky, only to measure leakage.")
@click.option("--group-by", default="", help="image: every image its own group, where no patient is known.")
@click.option("--groups-csv", default="", help="CSV with patch id and patient or slide.")
@click.option(
    "--unmapped", default="reject", show_default=True, help="Patches that --groups-csv does not name: reject or train."
)
@click.option("--splits-csv", default="", help="CSV with group and split: a published split.")
@click.option("--ledger", default="", help="splits.json to go on from, instead of the latest data set's.")
@click.option("--folds", default=0, help="Plan K cross-validation ledgers in folds/.")
@click.option("--fold", default=0, help="Write the shards of fold I (1 to K).")
@click.option("--magnification", "magnifications", multiple=True, type=int, help="Keep this one; repeatable.")
@click.option("--max-per-class", default=0, help="Cap per class, spread over patients.")
@click.option("--exclude-groups", default="", help="File with groups that must never be written (withdrawn consent).")
@click.option("--on-infeasible", default="fail", show_default=True, help="fail, train-only or drop-class.")
@click.option(
    "--on-duplicate", default="keep-train", show_default=True, help="Same pixels in two splits: keep-train or fail."
)
@click.option(
    "--on-conflict", default="reject-all", show_default=True, help="Same pixels, two labels: reject-all or fail."
)
@click.option(
    "--max-faults", default=0.01, show_default=True, help="Share of faulty images past which the ingest fails."
)
@click.option("--shard-mb", default=16, show_default=True, help="Size at which shards are cut, MiB.")
@click.option("--pseudonymise", default="", help="Key file (mode 0600): ids and paths become keyed tokens.")
@click.option("--path-map", default="", help="Token-to-path map; beside the key by default.")
@click.option("--rehash", is_flag=True, help="Tell changed files by content instead of modification time.")
@click.option("--set-latest", is_flag=True, help="Train from a filtered or fold data set by default.")
@click.option("--drawn-over-real", is_flag=True, help="Let synthetic images be the latest after real ones.")
@click.option("--workers", default=0, help="Parallel shard writers on each machine; by default one more than cores.")
@engine_option
@json_option
def command(rest: tuple[str, ...], **given: Any) -> None:
    """Raw patches to audited, sharded TFRecords whose splits never share a patient."""
    name, extra = name_and_flags(rest)
    check_own_typos(extra, command)
    workers, as_json = given.pop("workers"), given.pop("as_json")
    beam_args = engine_args(given.pop("engine"), extra)
    options = plain_options(name, given)
    started = time.monotonic()
    try:
        outcome = unchanged(options, started)
        if outcome is None:
            check_endpoints(beam_args, options["input_root"], options["workspace"])
            outcome = _run(options, workers, beam_args)
    except Exception as error:
        known = console.user_error(error)
        console.leave_result({"state": "failed", "task": options["task"], "reason": str(known or error)})
        raise
    console.emit(ingest_summary.document(outcome), as_json, lambda: ingest_summary.show(outcome))
    console.leave_result(ingest_summary.small(outcome))


def _run(options: dict[str, Any], workers: int, beam_args: list[str]) -> Outcome:
    from components.datasets.latest_pointer import request_digest

    config = build_config(options)
    # Told here already: on a busy machine, starting the helpers alone takes seconds.
    if not config.input_root.startswith("gs://") and not Path(config.input_root).exists():
        raise UsageError(f"The input folder {config.input_root!r} does not exist.", "Check --input.")
    if workers < 0 or workers > 256:
        raise UsageError(f"--workers {workers} is out of range.", "Choose 1 to 256, or leave it out.")
    try:
        return run_ingest(config, workers, beam_args, request_digest(options))
    except MemoryError as error:
        raise TemporaryError("Memory ran out.", "Use fewer --workers.") from error


def plain_options(name: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Command-line values with names settled and paths absolute.

    Args:
        name: DATASET.
        given: The options.

    Raises:
        UsageError: No data set is named, or two; or input lies outside the data roots.
    """
    from components.core.data_roots import check_root

    options = dict(given)
    if name and options["dataset"] and name != options["dataset"]:
        raise UsageError(f"Two data sets are named: {name} and {options['dataset']}.", "Give one.")
    options["dataset"] = name or options["dataset"]
    if not options["dataset"]:
        raise UsageError("No data set is named.", "For example: histoline ingest idc --input DIR.")
    for key in ("input_root", "workspace"):
        value = options[key]
        options[key] = value.rstrip("/") if value.startswith("gs://") else str(Path(value).resolve())
    for key in ("groups_csv", "splits_csv", "ledger", "exclude_groups", "pseudonymise", "path_map"):
        options[key] = Path(options[key]) if options[key] else None
    check_root("--input", options["input_root"])
    for key in ("groups_csv", "splits_csv", "ledger", "exclude_groups"):
        check_root(f"--{key.replace('_', '-')}", options[key])
    return options


def build_config(options: dict[str, Any]) -> IngestConfig:
    """An `IngestConfig` of `plain_options`.

    Raises:
        UsageError: A value is out of range, or two contradict each other.
    """
    from components.ingest.config import IngestConfig, parse_size
    from components.splits.ledger import parse_ratios

    return IngestConfig(
        **{
            **options,
            "size": parse_size(options["size"]) if options["size"] else None,
            "ratios": parse_ratios(options["ratios"]) if options["ratios"] else None,
            "magnifications": tuple(sorted(set(options["magnifications"]))),
        }
    )


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.ingest")))
