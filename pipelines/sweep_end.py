"""The end of a sweep: TFX's Tuner notes its trials in ML Metadata, one is chosen, a page and its recipe are written."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UsageError
from components.storage.open import open_storage
from components.sweeps import conclude as conclusion
from components.sweeps import record as records
from components.sweeps.sweep_types import SweepRecord
from pipelines.tfx.metadata_store import Server

if TYPE_CHECKING:
    from components.storage.base import Storage
    from components.training.run_types import RunRecord

Log = Callable[[str], None]


def conclude(storage: Storage, folder: str, log: Log, server: Server | None) -> SweepRecord:
    """Chooses a trial of a sweep; does nothing where one is chosen.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        log: Told what happens, one line each.
        server: ML Metadata, where it is shared.

    Raises:
        DataError: No trial was trained to its end.
        UsageError: Another store is named than at the beginning.
    """
    with records.lock(storage, folder, f"histoline step sweep-choose {folder}") as held:
        sweep = records.read(storage, folder)
        if sweep.choice is not None:
            log(f"sweep-choose: nothing to do, trial {sweep.choice.winner} is chosen")
            return sweep
        check_store(sweep, server)
        trials = records.read_trials(storage, folder, sweep)
        choice = conclusion.decide(storage, folder, sweep, trials)
        log(choice.reason)
        recipe = conclusion.winner_yaml(sweep, sweep.trials[choice.winner])
        storage.write_atomic(f"{folder}/{records.WINNER}", recipe.encode(), tmp_dir=f"{folder}/.tmp")
        _note_in_lineage(storage, folder, sweep, server)
        held.check()
        records.update(storage, folder, state="done", choice=choice)
        _clear(storage, folder, sweep)
    return write_page(storage, folder, log)


def write_page(storage: Storage, folder: str, log: Log) -> SweepRecord:
    """Makes a sweep's page, as things stand.

    Args:
        storage: The workspace.
        folder: Of the sweep.
        log: Told where it is.
    """
    from components.report import sweep_page

    with records.lock(storage, folder, f"page of {folder}"):
        path = sweep_page.write(storage, folder)
        sweep = records.update(storage, folder, report=path)
    log(f"page: {storage.uri(path)}")
    return sweep


def link_winner(storage: Storage, run: RunRecord) -> None:
    """Lets the page of the sweep whose winner a run took over lead to that run; does nothing for any other run.

    Args:
        storage: The workspace.
        run: run.json.
    """
    folder, _, number = run.paths.get("trial", "").partition("/trials/")
    if not folder or not storage.exists(f"{folder}/{records.NAME}"):
        return
    choice = records.read(storage, folder).choice
    if choice is None or str(choice.winner) != number:
        return
    with records.lock(storage, folder, f"report of run {run.run_id}"):
        records.update(storage, folder, run_id=run.run_id)
    write_page(storage, folder, lambda line: None)


def _clear(storage: Storage, folder: str, sweep: SweepRecord) -> None:
    """Deletes the checkpoints of all trials, which are many times as large as their models: none goes on."""
    for trial in sweep.trials:
        home = storage.work_folder() / records.trial_dir(folder, trial.number)
        for place in (home / "checkpoints", *home.glob("folds/*/checkpoints")):
            shutil.rmtree(place, ignore_errors=True)


def check_store(sweep: SweepRecord, server: Server | None) -> None:
    """Refuses another ML Metadata store than the sweep was begun with.

    Raises:
        UsageError: It is another.
    """
    frozen, now = str(sweep.options.get("metadata") or ""), server.place if server else ""
    if frozen != now:
        raise UsageError(
            f"Sweep {sweep.sweep_id!r} keeps its lineage in {frozen or 'the workspace'}, not in"
            f" {now or 'the workspace'}.",
            "Name the same store again (--metadata or HISTOLINE_METADATA), or none where it had none.",
        )


def _note_in_lineage(storage: Storage, folder: str, sweep: SweepRecord, server: Server | None) -> None:
    """Runs TFX's Tuner over the recorded trials, so that ML Metadata knows HyperParameters and TunerResults."""
    from components.datasets import committed
    from components.datasets import manifest as manifests
    from pipelines.tfx import metadata_store, nodes
    nodes.silence()
    work = open_storage(storage.work_folder())
    store: metadata_store.Store
    if server is not None:
        store = server
    else:
        file = metadata_store.workspace_file(work, sweep.dataset, sweep.task)
        file.parent.mkdir(parents=True, exist_ok=True)
        store = metadata_store.SqliteFile(file)
    metadata_store.open_store(store)
    from pipelines.tfx.tuner import SweepConfig, create_sweep_pipeline

    manifest = manifests.load(storage, sweep.dataset_dir)
    config = SweepConfig(
        name=metadata_store.pipeline_name(work, sweep.dataset, sweep.task, server),
        root=str(Path(work.root) / "artifacts" / f"{sweep.dataset}-{sweep.task}"),
        store=store,
        workspace=storage.root,
        folder=folder,
        examples_dir=str(committed.stage(storage, sweep.dataset_dir, manifest)),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # the Tuner's own summaries; the sweep has its page
        runner = nodes.NodeRunner(create_sweep_pipeline(config), sweep.sweep_id, store, ("Tuner",))
        for node in ("Examples", "Tuner"):
            runner.run(node)
