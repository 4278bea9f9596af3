"""The TFX nodes of a run's stages: compiled for the run as it stands, run in this process, timed in run.json.

TFX is imported when the first stage has nodes to run.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.report import tfx_document
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training import run_record
from components.training.ensemble import member_folder
from components.training.run_types import STAGES, RunRecord
from components.training.source_digest import source_digest
from pipelines import remote_run
from pipelines.tfx import metadata_store
from pipelines.tfx.metadata_store import Server

Log = Callable[[str], None]


class StageNodes:
    """Runs the nodes of one run's stages.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it; locked by the caller.
        log: Told what nodes print, one line each.
        server: ML Metadata, where it is shared; a file of the workspace where None.
    """

    def __init__(self, storage: Storage, folder: str, log: Log, server: Server | None) -> None:
        self.storage, self.folder, self.log, self.server = storage, folder, log, server
        # Checkpoints, TFX's outputs and a file of ML Metadata need a file system: in a local workspace, its own.
        self.work = open_storage(storage.work_folder())
        self._runner: Any = None
        self._config: Any = None
        self._beside: tfx_document.BesideModel | None = None

    @property
    def record(self) -> RunRecord:
        """run.json as it stands."""
        return run_record.read(self.storage, self.folder)

    def run(self, name: str) -> None:
        """Runs the nodes of a stage, in order.

        Args:
            name: One of `pipelines.tfx.pipeline.NODES`.

        Raises:
            HistolineError: See `pipelines.tfx.nodes.NodeRunner.run` and `pipelines.tfx.metadata_store.open_store`.
        """
        timings: dict[str, float] = {}
        first = self._runner is None
        started = time.monotonic()
        self._prepare(name)
        if first:
            timings["import_tfx"] = round(time.monotonic() - started, 2)
        from pipelines.tfx.pipeline import NODES

        try:
            for node in (*self._missing(name, NODES), *NODES[name]):
                if node not in self._runner:
                    continue
                # Stdout is for the command's result alone; what nodes print are lines of the log.
                with contextlib.redirect_stdout(_Lines(self.log)):
                    timings[f"node.{node}"] = round(self._runner.run(node), 2)
                if node == "Examples":
                    self._link_ingest()
                if node == "Trainer":
                    self._link_members()
        except Exception:
            with contextlib.suppress(Exception):  # what failed matters more than what the page shows of it
                self._collect()
            raise
        self._collect()
        run_record.update(self.storage, self.folder, timings=timings)

    def _missing(self, name: str, nodes: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Nodes of earlier stages that ran on another machine, whose outputs this one does not have."""
        if self.storage.is_local:
            return []
        earlier = [node for stage in STAGES[: STAGES.index(name)] for node in nodes.get(stage, ())]
        missing = [node for node in earlier if node in self._runner and not self._runner.has_run(node)]
        if missing:
            self.log(f"{name}: earlier stages ran on another machine; here run again {', '.join(missing)}")
            remote_run.fetch_back(self.storage, self.folder)
        return missing

    def _collect(self) -> None:
        """Leaves tfx.json, which the report reads."""
        from pipelines.tfx.collect import collect

        before = tfx_document.read(self.storage, self.folder)
        beside = self._beside or (before.beside if before else None)
        run_id = self.folder.rsplit("/", 1)[1]
        tfx_document.write(self.storage, self.folder, collect(self._store, self._config.name, run_id, beside))

    def _prepare(self, name: str) -> None:
        """Compiles the pipeline for a stage; only `evaluate` looks at the champion, as it is by then."""
        if self._runner is not None and name != "evaluate":
            return
        from pipelines.tfx import nodes

        nodes.silence()
        if self._runner is None:
            self._store = self._metadata_store()
            metadata_store.open_store(self._store)  # tells what is wrong before TFX is imported
        from pipelines.tfx.pipeline import UNCACHED, create_pipeline

        if self.record.decision_by == "folds":
            remote_run.bring_folds(self.storage, self.folder)
        config = self._pipeline_config(name)
        if self._runner is None or config.baseline != self._config.baseline:
            self._config = config
            run_id = self.folder.rsplit("/", 1)[1]
            self._runner = nodes.NodeRunner(create_pipeline(config), run_id, self._store, UNCACHED)

    def _metadata_store(self) -> metadata_store.Store:
        if self.server is not None:
            return self.server
        file = metadata_store.workspace_file(self.work, self.record.dataset, self.record.task)
        file.parent.mkdir(parents=True, exist_ok=True)
        return metadata_store.SqliteFile(file)

    def _link_ingest(self) -> None:
        # In a store that workspaces share the same data may have been ingested in each of them.
        name = f"{self.record.plan_id}{self._config.name.removeprefix(f'{self.record.dataset}-{self.record.task}')}"
        self._runner.record_ingest(self._config.raw, self._config.examples_dir, name)

    def _link_members(self) -> None:
        record = self.record
        names = [member["run_id"] for member in record.config.get("ensemble", ())]
        if names:
            folders = {name: member_folder(self.storage, record.dataset, record.task, name) for name in names}
            self._runner.link_members({name: self.storage.uri(f"{place}/model") for name, place in folders.items()})

    def _pipeline_config(self, stage: str) -> Any:
        from components.datasets import committed
        from components.datasets import manifest as manifests
        from pipelines.tfx import baseline
        from pipelines.tfx.evaluator import slices_for
        from pipelines.tfx.pipeline import PipelineConfig
        from pipelines.tfx.schema import write_schema

        record = self.record
        root = Path(self.work.root)
        home = root / "artifacts" / f"{record.dataset}-{record.task}"
        manifest = manifests.load(self.storage, record.dataset_dir)
        beside, judged = "", record.decision_by == "split" or record.config.get("holdout") == "test"
        if stage == "evaluate" and judged:
            chosen = baseline.choose(
                self.storage, record.dataset, record.task, manifest.classes, home / "baseline", record.decision_by
            )
            beside = chosen.folder
            self._beside = tfx_document.BesideModel(chosen.version, chosen.reason)
            if chosen.reason:
                self.log(f"TFMA shows no champion beside the candidate: {chosen.reason}")
        return PipelineConfig(
            name=metadata_store.pipeline_name(self.work, record.dataset, record.task, self.server),
            workspace=self.storage.root,
            root=str(home),
            store=self._store,
            # Under pseudonymisation the manifest withholds the raw folder.
            raw=manifest.input or f"withheld:{manifest.plan_id}",
            dataset_dir=record.dataset_dir,
            examples_dir=str(committed.stage(self.storage, record.dataset_dir, manifest)),
            schema_file=str(write_schema(manifest, home / "schemas")),
            run_folder=self.folder,
            run_dir=str(root / self.folder),
            training=record.config,
            floors=record.config["floors"],
            task=record.task,
            slices=slices_for(manifest.splits["test"].groups, *self._kinds(record.dataset_dir)),
            source_digest=source_digest(),
            baseline=beside,
            beam_args=tuple(record.options.get("beam_args") or ("--runner=FnApiRunner",)),
            folds=record.digests.get("folds", ""),
            judged=judged,
        )

    def _kinds(self, dataset_dir: str) -> tuple[int, int]:
        """How many magnifications and tumour types the data set has."""
        import pyarrow.parquet as pq

        columns = ["magnification", "tumor_type"]
        table = pq.read_table(self.storage.local_copy(f"{dataset_dir}/patches.parquet"), columns=columns)
        return len(table["magnification"].unique()), len(table["tumor_type"].unique())


def check_store(record: RunRecord, server: Server | None) -> None:
    """Refuses to go on with a run in another ML Metadata store than it was begun in: its stages would not be found.

    Args:
        record: run.json.
        server: That is named now.

    Raises:
        UsageError: It is not the one that was frozen.
    """
    frozen = str(record.options.get("metadata") or "")
    now = server.place if server else ""
    if frozen != now:
        raise UsageError(
            f"Run {record.run_id!r} keeps its lineage in {frozen or 'the workspace'}, not in {now or 'the workspace'}.",
            "Name the same store again (--metadata or HISTOLINE_METADATA), or none where it had none.",
        )


class _Lines(io.TextIOBase):
    """A text file that hands whole lines to a log."""

    def __init__(self, log: Log) -> None:
        self._log, self._rest = log, ""

    def write(self, text: str) -> int:
        """Takes text; a line goes on when it is whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._log(line.rstrip())
        return len(text)
