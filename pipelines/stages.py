"""The stages of a training run. Each is idempotent, holds the run's lock, and loads TFX only where nodes must run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from components.errors import HistolineError, UsageError
from components.promotion import champion
from components.promotion.data_gates import STATISTICS
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training import run_inputs, run_record
from components.training.run_types import STAGES, RunRecord
from components.training.source_digest import source_digest
from pipelines import remote_run
from pipelines.tfx.metadata_store import Server
from pipelines.tfx.stage_nodes import StageNodes, check_store

Log = Callable[[str], None]


class Run:
    """One run under its lock.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
        log: Told what happens, one line each.
        server: ML Metadata, where it is shared; a file of the working folder where None.
        still_locked: Raises where the run's lock was lost; asked before and after each stage's work.
        told: Gets each stage, with `running` when it begins and `done` when it has ended well.
    """

    def __init__(
        self,
        storage: Storage,
        folder: str,
        log: Log,
        server: Server | None = None,
        still_locked: Callable[[], None] = lambda: None,
        told: Callable[[str, str], None] = lambda stage, state: None,
    ) -> None:
        self.storage, self.folder, self.log, self.server, self.told = storage, folder, log, server, told
        self._still_locked = still_locked
        self._nodes: StageNodes | None = None

    @property
    def record(self) -> RunRecord:
        """run.json as it stands."""
        return run_record.read(self.storage, self.folder)

    def validate(self, inputs: run_inputs.Inputs, force: bool = False) -> None:
        """Freezes configuration and data set, then proves the data: intact, as the schema says, no drift.

        Args:
            inputs: What the run starts from.
            force: Run even if a finished run had the same inputs.

        Raises:
            UsageError: The run exists with other inputs.
            DataError: The data failed a check.
        """
        record = (
            run_record.read(self.storage, self.folder)
            if run_record.exists(self.storage, self.folder)
            else None
        )
        if record is not None and is_over(record):
            run_inputs.freeze(self.storage, self.folder, inputs)  # only to refuse other inputs
            self.log(f"validate: nothing to do, the run is over ({record.decision})")
            return
        run_inputs.freeze(self.storage, self.folder, inputs)
        same = None if force else run_inputs.find_same(self.storage, self.folder, inputs.digest())
        if same is not None:
            self._unchanged(same)
            return
        self._stage("validate")

    def _unchanged(self, same: RunRecord) -> None:
        ended = (
            f"promoted as version {same.version}"
            if same.decision == "promoted"
            else "refused by the gate"
        )
        reason = f"Unchanged: data, recipe and code are those of run {same.run_id}, which was {ended}."
        with run_record.stage(self.storage, self.folder, "validate", inputs=self._inputs()):
            run_record.update(
                self.storage, self.folder, decision="unchanged", code="unchanged", reason=reason,
                paths={"same_as": f"{self.folder.rsplit('/', 1)[0]}/{same.run_id}"},
            )  # fmt: skip
        run_record.update(self.storage, self.folder, state="done")
        self._report()
        self.told("validate", "done")
        self.log(f"{reason} --force trains all the same.")

    def stage(self, name: str) -> None:
        """Runs a stage after `validate`.

        Raises:
            UsageError: The stage before it has not ended well.
        """
        record = self.record
        if is_over(record):
            self.log(f"{name}: nothing to do, the run is over ({record.decision})")
            return
        check_store(record, self.server)
        before = STAGES[STAGES.index(name) - 1]
        if before not in record.stages or record.stages[before].state != "done":
            raise UsageError(
                f"Stage {name} of run {record.run_id!r} can't begin: {before} has not ended well.",
                f"Run: histoline step {before} {record.dataset} --task {record.task}"
                f" --run-id {record.run_id}.",
            )
        self._stage(name)

    def _stage(self, name: str) -> None:
        inputs = self._inputs()
        if run_record.is_done(self.record, name, inputs):
            self.log(f"{name}: nothing to do, done already with the same inputs")
            self.told(name, "done")
            return
        started = time.monotonic()
        self.told(name, "running")
        self._still_locked()
        work = "" if self.storage.is_local else f", with {self.storage.work_folder()} as working folder"
        self.log(f"{name}: begins{work}")
        with self._reported_failure(), run_record.stage(self.storage, self.folder, name, inputs=inputs):
            after = {"train": self._trained, "push": self._pushed}.get(name)
            if name == "push" and self.record.decision != "promoted":
                self.log("push: skipped, the gate did not promote the model")
            elif name == "report":
                self._report()
            else:
                if name == "train":
                    self._take_over()
                self._run_nodes(name)
                self._still_locked()
                if after:
                    after()
        self.told(name, "done")
        self.log(f"{name}: done in {time.monotonic() - started:.0f} s")
        if is_over(self.record):
            remote_run.clear(self.storage, self.folder)

    @contextlib.contextmanager
    def _reported_failure(self) -> Iterator[None]:
        """Makes the page of a run that fails; what failed matters more than a page that can't be made."""
        try:
            yield
        except Exception:
            with contextlib.suppress(Exception):
                self._report()
            raise

    def _report(self) -> None:
        from components.report import index, page

        path = page.write(self.storage, self.folder)
        index.write(self.storage, f"run {self.folder.rsplit('/', 1)[1]}")
        if "trial" in self.record.paths:
            from pipelines import sweep_end

            with contextlib.suppress(HistolineError):  # the run's own page is what matters here
                sweep_end.link_winner(self.storage, self.record)
        self.log(f"report: {self.storage.uri(path)}")

    def _inputs(self) -> str:
        """Digest of what a stage reads: the run's frozen inputs and the code of today."""
        import hashlib

        record = self.record
        frozen = [record.config, record.options, record.dataset_dir, record.manifest_digest]
        return hashlib.sha256(json.dumps([frozen, source_digest()], sort_keys=True).encode()).hexdigest()

    def _run_nodes(self, name: str) -> None:
        if self._nodes is None:
            self._nodes = StageNodes(self.storage, self.folder, self.log, self.server)
        self._nodes.run(name)

    def _take_over(self) -> None:
        """Takes over the model of a sweep's trial that was trained with this recipe, data and code."""
        record, work = self.record, self.storage.work_folder()
        run_dir = work / self.folder
        if not self.storage.list_dirs(f"sweeps/{record.dataset}/{record.task}") or (run_dir / "model").exists():
            return
        from components.datasets import committed, manifest
        from components.sweeps import adopt
        from components.training.recipe import TrainingConfig
        from components.training.trainer import run_key

        config = TrainingConfig.from_dict(dict(record.config))
        facts = manifest.load(self.storage, record.dataset_dir)
        key = run_key(config, committed.open_dataset(committed.stage(self.storage, record.dataset_dir, facts)))
        trial = adopt.find(self.storage, record.dataset, record.task, key, source_digest())
        if trial is None:
            return
        place = trial.relative_to(work).as_posix()
        self.log(f"train: {place} was trained with this recipe, these data and this code; its model is taken over")
        adopt.take_over(trial, run_dir, config)
        run_record.update(self.storage, self.folder, paths={"trial": place})

    def _trained(self) -> None:
        """Puts what training left in the run folder into run.json."""
        from components.training.trainer import read_result

        work = self.storage.work_folder()
        result = read_result(work / self.folder)
        if result is None:
            raise HistolineError("Training ended without a model in the run folder.", "Run the stage again.")
        # Beside the exported model, so that the version that is pushed from it can be compared with later data.
        statistics = self.storage.read_bytes(f"{self.folder}/{STATISTICS}")
        open_storage(work).write_atomic(
            f"{self.folder}/model/assets.extra/{STATISTICS}", statistics, tmp_dir=f"{self.folder}/.tmp"
        )
        for fold in folds_of(self.record):
            remote_run.hand_over_fold(self.storage, f"{self.folder}/folds/{fold}")
        remote_run.hand_over(self.storage, self.folder)
        run_record.update(
            self.storage, self.folder, history=result.history, epochs_run=result.epochs_run,
            temperature=result.temperature, bias=result.bias, threshold=result.threshold,
            threshold_note=result.threshold_note, calibration=result.calibration,
            timings={"training": round(result.seconds, 2)},
        )  # fmt: skip

    def _pushed(self) -> None:
        record = self.record
        if record.version is None:  # another champion came in between, and this model no longer beats it
            return
        place = f"{champion.home(record.dataset, record.task)}/{record.version}"
        run_record.update(self.storage, self.folder, paths={"version": place})


def is_over(record: RunRecord) -> bool:
    """Whether nothing is left to do for a run, whatever code is installed today."""
    return bool(record.state == "done" and record.decision is not None)


def folds_of(record: RunRecord) -> list[int]:
    """Numbers of the folds of a run; none where it decides by its test split."""
    return list(range(1, record.folds.folds + 1)) if record.folds else []


def result(storage: Storage, record: RunRecord) -> dict[str, Any]:
    """The small document that a scheduler or --json gets.

    Args:
        storage: The workspace.
        record: run.json.
    """
    from components.promotion.gate_words import power_line

    values = record.figures()
    return {
        "state": record.state,
        "stage": record.stage,
        "decision": record.decision,
        "reason": record.reason or (record.error.message if record.error else ""),
        "run_id": record.run_id,
        "dataset_dir": storage.uri(record.dataset_dir),
        "content_digest": record.content_digest,
        "plan_id": record.plan_id,
        "version": record.version,
        "metrics": {name: value["estimate"] for name, value in values.items()},
        "power": power_line(dataclasses.asdict(record.gate) if record.gate else None),
        "report": storage.uri(record.report) if record.report else None,
        "folds": folds_of(record),
    }
