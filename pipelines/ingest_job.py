"""An ingest from its configuration to a committed data set, and the quick look that finds nothing to do.

Plan (a helper process) while Beam is imported (this process); write shards on a Beam runner; commit (a helper).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from concurrent.futures import ProcessPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from pipelines import console
from pipelines.beam.flags import check_beam_args, import_beam, leaves_this_process

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
        workers: Helper processes on this machine, threads on a remote worker; 0: by the cores there are.
        beam_args: Flags for Beam; without a runner among them, the embedded one is used.
        request: `request_digest` of the options, so that the same ingest is recognised at once next time.

    Raises:
        UsageError, DataError, TemporaryError: See `components.errors`.
    """
    from components.core.machine import cores
    from components.datasets.layout import lock_path
    from components.ingest.worker_pool import helper_pool
    from components.storage.open import open_storage

    started = time.monotonic()
    storage = open_storage(config.workspace)
    remote = leaves_this_process(beam_args)
    # One more than cores: while one waits for the disk to take its shard, the others keep the cores busy. Where others
    # write, a helper plans and commits.
    with helper_pool(1 if remote else workers or cores() + 1) as pool:
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
    from components.core.machine import cores
    from components.datasets import manifest as manifests
    from components.ingest.commit import commit, move_latest
    from components.ingest.plan import plan_ingest
    from components.ingest.worker_pool import listening
    from components.storage.shared_places import shared_places

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
                shards = len(planned.specs)
                if leaves_this_process(beam_args):
                    tmp = os.path.dirname(planned.write.plan_path)
                    with shared_places(storage, tmp, config.input_root) as places:
                        timings |= run_beam(planned.write, shards, workers, beam_args, places)
                else:
                    timings |= run_beam(planned.write, shards, workers or cores() + 1, beam_args)
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
