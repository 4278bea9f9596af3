"""Raw patches to audited, sharded TFRecords: the command and the job.

Plan (a helper process) while Beam is imported (this process); write shards on a Beam runner; commit (a helper).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import TemporaryError, UsageError
from pipelines import console
from pipelines.beam.flags import check_beam_args, check_own_typos, import_beam, runner_args
from pipelines.options import BEAM_EPILOG, json_option, name_and_flags, task_option, workspace_option

if TYPE_CHECKING:
    from components.datasets.manifest import Manifest
    from components.ingest.config import IngestConfig
    from components.storage.base import HeldLock, Storage


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an ingest came to.

    Attributes:
        state: `committed`, `unchanged` (stood already) or `folds` (only ledgers were planned).
        dataset_dir: Full name of the data set's folder.
        manifest: The manifest; None for `folds`.
        is_latest: True where latest.json names this data set.
        split_table: Patches and groups by class and split, as planned.
        timings: Seconds by stage.
        seconds: In all.
    """

    state: str
    dataset_dir: str
    manifest: Manifest | None
    is_latest: bool
    split_table: str
    timings: dict[str, float]
    seconds: float = 0.0


def run_ingest(config: IngestConfig, workers: int, beam_args: list[str], request: str = "") -> Outcome:
    """Runs one ingest under the lock of its data set and task.

    Args:
        config: What to ingest.
        workers: Helper processes on this machine; threads on a remote worker.
        beam_args: Flags for Beam; without a runner among them, the embedded one is used.
        request: `request_digest` of the options, so that the same ingest is recognised at once next time.

    Raises:
        UsageError, DataError, TemporaryError: See `components.errors`.
    """
    from components.datasets.layout import lock_path
    from components.ingest.worker_pool import helper_pool
    from components.storage.open import open_storage

    started = time.monotonic()
    storage = open_storage(config.workspace)
    with helper_pool(workers) as pool:
        # The lock is taken after the helpers were forked: a copy of it in a helper would outlive this process.
        with storage.lock(lock_path(config.home), owner=f"histoline ingest {config.dataset} {config.task}") as lock:
            outcome = _ingest(config, storage, lock, pool, workers, beam_args, request, started)
            return dataclasses.replace(outcome, seconds=time.monotonic() - started)


def _ingest(
    config: IngestConfig,
    storage: Storage,
    lock: HeldLock,
    pool: ProcessPoolExecutor,
    workers: int,
    beam_args: list[str],
    request: str,
    started: float,
) -> Outcome:
    from components.datasets import manifest as manifests
    from components.ingest.commit import commit, move_latest
    from components.ingest.plan import plan_ingest
    from components.ingest.worker_pool import listening

    timings = {"start_s": time.monotonic() - started}

    def lap(name: str) -> None:
        timings[name] = time.monotonic() - started - sum(timings.values())

    attempt = f"{time.time_ns()}-{os.getpid()}"
    planning = pool.submit(plan_ingest, config, attempt)
    if not (storage.exists(f"{config.home}/latest.json") or config.plans_folds_only):
        wait([planning], timeout=0.2)  # most wrong input shows at once
        if not planning.done():
            import_beam("pipelines.beam.write_shards")  # while a helper plans
    planned = planning.result()  # where a data set stands already, Beam may not be needed at all
    lap("plan_s")
    uri = storage.uri(planned.write.dataset_dir)
    if config.plans_folds_only:
        return Outcome("folds", storage.uri(f"{config.home}/folds"), None, False, planned.split_table, timings)
    if planned.committed:
        manifest = manifests.load(storage, planned.write.dataset_dir)
        latest = move_latest(config, planned, manifest, request)
        return Outcome("unchanged", uri, manifest, latest, planned.split_table, timings)
    try:
        run_beam = import_beam("pipelines.beam.write_shards").run_beam
        check_beam_args(beam_args)

        with console.Progress("patches", sum(planned.patches)) as progress:
            with listening(lambda result: progress.advance(result.written + result.rejected)):
                timings |= run_beam(planned.write, len(planned.specs), workers, beam_args)
        lock.check()
        manifest = pool.submit(commit, config, planned).result()
    except BaseException:
        # A plan names real paths even under --pseudonymise, and the next run makes its own.
        with contextlib.suppress(Exception):
            storage.delete_tree(os.path.dirname(planned.write.plan_path))
        raise
    lap("commit_s")
    # What is left without the start of interpreter and libraries, which overlaps with planning.
    timings["work_s"] = planned.seconds + timings["build_s"] + timings["run_s"] + timings["commit_s"]
    latest = move_latest(config, planned, manifest, request)
    return Outcome("committed", uri, manifest, latest, planned.split_table, timings)


def summary(outcome: Outcome) -> list[str]:
    """The lines that every ingest ends with."""
    manifest = outcome.manifest
    assert manifest is not None
    kinds: dict[str, list[str]] = {}
    for code, facts in manifest.rejects.items():
        kinds.setdefault(facts.kind, []).append(f"{code} {facts.count:,}")
    rejected = sum(facts.count for facts in manifest.rejects.values())
    lines = [f"{manifest.found:,} images found, {manifest.written:,} written, {rejected:,} rejected"]
    lines += [f"  {kind}: {', '.join(codes)}" for kind, codes in sorted(kinds.items())]
    near = manifest.near_duplicates.pairs_across_splits
    if near:
        example = " and ".join(manifest.near_duplicates.examples[0])
        lines.append(f"near-duplicates across splits: {near:,} pairs, such as {example}")
    absent = manifest.ids_without_file.count
    if absent:
        lines.append(f"ids in the label file without an image: {absent:,}")
    lines += [f"WARNING: {text}; never promoted" for text in manifest.flag_reasons]
    return lines + [f"warning: {text}" for text in warnings(manifest)]


def warnings(manifest: Manifest) -> list[str]:
    """The manifest's warnings, and whether images of the download are missing."""
    from components.adapters.downloads import shortfall

    rejects = {code: facts.count for code, facts in manifest.rejects.items()}
    missing = shortfall(manifest.dataset, manifest.found, rejects)
    return [*manifest.warnings, *([missing] if missing else [])]


def show(outcome: Outcome) -> None:
    """Prints the human summary."""
    if outcome.manifest is None:
        click.echo(outcome.split_table)
        click.echo(f"Fold ledgers are in {outcome.dataset_dir}; write one with --fold 1.")
        return
    _show_splits(outcome.manifest)
    for line in summary(outcome):
        click.echo(line)
    state = {"committed": "Committed", "unchanged": "Nothing to do, the input is unchanged. It stands"}[outcome.state]
    took = f" ({outcome.seconds:.1f} s)" if outcome.seconds else ""
    click.echo(f"{state} in {outcome.dataset_dir}{took}{'' if outcome.is_latest else '; latest.json names another'}")


def _show_splits(manifest: Manifest) -> None:
    """Prints a table with a row for each split; for more than three classes, one for each class."""
    unit, classes, splits = manifest.group_unit, manifest.classes, manifest.splits
    names = ("train", "eval", "test")
    share = {s: f"{splits[s].patches / max(manifest.written, 1):.1%}" for s in names}
    both = {
        (s, c): f"{splits[s].by_class[c]:,} ({splits[s].groups_by_class[c]:,})" for s in names for c in classes
    }
    whole = {s: (f"{splits[s].patches:,}", f"{splits[s].groups:,}") for s in names}
    title = f"{manifest.dataset} {manifest.task}, split by {unit}"
    if len(classes) <= 3:
        columns = ["split", "share", f"{unit}s", "patches", *(f"{c} ({unit}s)" for c in classes)]
        rows = [[s, share[s], whole[s][1], whole[s][0], *(both[s, c] for c in classes)] for s in names]
    else:
        columns = [f"patches ({unit}s)", *names]
        rows = [[c, *(both[s, c] for s in names)] for c in classes]
        rows.append(["all", *(f"{whole[s][0]} ({whole[s][1]}), {share[s]}" for s in names)])
    console.table(title, columns, rows, right=range(1, len(columns)))


def document(outcome: Outcome) -> dict[str, Any]:
    """What --json prints, and Airflow reads."""
    manifest = outcome.manifest.to_document() if outcome.manifest else {}
    facts = {
        k: manifest.get(k)
        for k in ("dataset", "task", "plan_id", "content_digest", "found", "written", "rejects", "flags")
    }
    splits = {s: {k: v for k, v in f.items() if k != "shards"} for s, f in manifest.get("splits", {}).items()}
    return {
        "state": outcome.state,
        "dataset_dir": outcome.dataset_dir,
        "is_latest": outcome.is_latest,
        **facts,
        "splits": splits,
        "near_duplicates": manifest.get("near_duplicates"),
        "ids_without_file": manifest.get("ids_without_file"),
        "warnings": warnings(outcome.manifest) if outcome.manifest else [],
        "timings": {k: round(v, 3) for k, v in outcome.timings.items()},
    }


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
@click.option("--seed", default=0, show_default=True, help="Of the split and of the order of records.")
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
@click.option("--workers", default=0, help="Parallel shard writers on each machine; by default one more than cores.")
@json_option
def command(rest: tuple[str, ...], **given: Any) -> None:
    """Raw patches to audited, sharded TFRecords whose splits never share a patient."""
    name, extra = name_and_flags(rest)
    check_own_typos(extra, command)
    workers, as_json = given.pop("workers"), given.pop("as_json")
    options = plain_options(name, given)
    started = time.monotonic()
    try:
        outcome = unchanged(options, started)
        if outcome is None:
            outcome = _run(options, workers, runner_args(extra))
    except Exception as error:
        known = console.user_error(error)
        console.leave_result({"state": "failed", "task": options["task"], "reason": str(known or error)})
        raise
    console.emit(document(outcome), as_json, lambda: show(outcome))
    console.leave_result(small(outcome))


def _run(options: dict[str, Any], workers: int, beam_args: list[str]) -> Outcome:
    from components.core.machine import cores
    from components.datasets.latest_pointer import request_digest

    config = build_config(options)
    # Told here already: on a busy machine, starting the helpers alone takes seconds.
    if not config.input_root.startswith("gs://") and not Path(config.input_root).exists():
        raise UsageError(f"The input folder {config.input_root!r} does not exist.", "Check --input.")
    if workers < 0 or workers > 256:
        raise UsageError(f"--workers {workers} is out of range.", "Choose 1 to 256, or leave it out.")
    try:
        # One more than cores: while one waits for the disk to take its shard, the others keep the cores busy.
        return run_ingest(config, workers or cores() + 1, beam_args, request_digest(options))
    except MemoryError as error:
        raise TemporaryError("Memory ran out.", "Use fewer --workers.") from error


def unchanged(options: dict[str, Any], started: float) -> Outcome | None:
    """The outcome of an ingest whose data set stands already, found without loading Arrow, decoders or Beam.

    Args:
        options: Of `plain_options`.
        started: When the command began, by `time.monotonic`.
    """
    from components.datasets.latest_pointer import find_unchanged, request_digest
    from components.storage.open import open_storage

    plain = not (options["fold"] or options["folds"] or options["ledger"] or options["rehash"])
    home = f"datasets/{options['dataset']}/{options['task']}"
    storage = open_storage(options["workspace"])
    if not plain or not storage.exists(f"{home}/latest.json"):
        return None
    manifest = find_unchanged(storage, home, options["input_root"], request_digest(options))
    if manifest is None:
        return None
    uri = storage.uri(f"{home}/{manifest.plan_id}")
    seconds = time.monotonic() - started
    return Outcome("unchanged", uri, manifest, True, "", {"check_s": seconds}, seconds)


def small(outcome: Outcome) -> dict[str, Any]:
    """What a scheduler keeps of an ingest: a few hundred bytes."""
    facts = document(outcome)
    wanted = ("state", "dataset_dir", "task", "is_latest", "content_digest", "plan_id", "found", "written")
    rejects = {code: reject["count"] for code, reject in (facts["rejects"] or {}).items()}
    return {**{key: facts[key] for key in wanted}, "rejects": rejects}


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
