"""Runs nodes of a TFX pipeline one after the other in this process.

A process that imports TFX costs 11 to 14 seconds, so one process runs as many nodes as it can. A node may run again
under the same run id, after success (nothing happens), failure, or SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from components.errors import HistolineError
from pipelines.tfx import lineage, metadata_store
from pipelines.tfx.lineage import DATASET_TYPE, INGEST_TYPE


def silence() -> None:
    """Quietens TensorFlow, TFX and Beam (4,393 lines at INFO); call it before the first of them is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "4")  # ML Metadata's C++
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    absl_logging.set_stderrthreshold("fatal")
    import logging

    for name in ("tensorflow", "apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)


class NodeRunner:
    """The nodes of one pipeline run.

    Args:
        pipeline: Of `pipelines.tfx.pipeline.create_pipeline`.
        run_id: RUN_ID, TFX's pipeline run id.
        store: ML Metadata that the pipeline names.
        uncached: Nodes that run even if TFX has their result.
    """

    def __init__(
        self, pipeline: Any, run_id: str, store: metadata_store.Store, uncached: Iterable[str] = ()
    ) -> None:
        from tfx.dsl.compiler import compiler, constants
        from tfx.orchestration import metadata
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import runtime_parameter_utils

        self._ir = compiler.Compiler().compile(pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(
            self._ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        )
        self._deployment = runner_utils.extract_local_deployment_config(self._ir)
        connection = self._deployment.metadata_connection_config
        self._connection = getattr(connection, connection.WhichOneof("connection_config"))
        self._metadata = metadata.Metadata
        if isinstance(store, metadata_store.Server) and store.kind == "postgresql":
            from pipelines.tfx.postgresql_metadata import PostgresqlMetadata

            self._metadata = PostgresqlMetadata
        self._nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in self._ir.nodes}
        self._store = store
        self._run_id = run_id
        for name in uncached:
            self._nodes[name].execution_options.caching_options.enable_cache = False

    def run(self, name: str) -> float:
        """Runs a node and says how many seconds it took.

        Raises:
            HistolineError: It did not end well although nothing was raised (inputs could not be resolved, for one).
            TemporaryError: Other runs kept ML Metadata locked, or its server went away.
            Exception: Whatever its executor raised.
        """
        with metadata_store.troubles(self._store):
            return self._run(name)

    def __contains__(self, name: str) -> bool:
        """Says whether the pipeline has a node of this name."""
        return name in self._nodes

    def _run(self, name: str) -> float:
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import launcher

        started = time.monotonic()
        info = launcher.Launcher(
            pipeline_node=self._nodes[name],
            mlmd_connection=self._metadata(self._connection),
            pipeline_info=self._ir.pipeline_info,
            pipeline_runtime_spec=self._ir.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, name),
        ).launch()
        # launch() also returns where inputs could not be resolved: only the metadata tells.
        state = self._state(info.execution_id) if info and info.execution_id is not None else "SKIPPED"
        if state not in ("COMPLETE", "CACHED"):
            raise HistolineError(
                f"The pipeline's node {name} ended in state {state}: the nodes before it left no output.",
                "Run the stages in order under one --run-id.",
            )
        return time.monotonic() - started

    def _state(self, execution_id: int) -> str:
        from ml_metadata.proto import metadata_store_pb2 as proto

        mlmd: Any = proto
        with self._metadata(self._connection) as handle:
            (execution,) = handle.store.get_executions_by_id([execution_id])
        return str(mlmd.Execution.State.Name(execution.last_known_state))

    def has_run(self, name: str) -> bool:
        """Whether ML Metadata knows the node to have ended well under this run id."""
        from ml_metadata.proto import metadata_store_pb2 as proto

        mlmd: Any = proto
        ended = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
        contexts = (("pipeline_run", self._run_id), ("node", f"{self._ir.pipeline_info.id}.{name}"))
        found = []
        with metadata_store.troubles(self._store), self._metadata(self._connection) as handle:
            for kind, context in contexts:
                known = handle.store.get_context_by_type_and_name(kind, context)
                executions = handle.store.get_executions_by_context(known.id) if known else []
                found.append({e.id for e in executions if e.last_known_state in ended})
        return bool(found[0] & found[1])

    def link_members(self, members: Mapping[str, str]) -> None:
        """Adds the models of an ensemble to ML Metadata as what its Trainer read; once, however often it is called.

        Args:
            members: RUN_ID to the place of its model, for a run that this store does not know.

        Raises:
            TemporaryError: As for `run`.
        """
        with metadata_store.troubles(self._store), self._metadata(self._connection) as handle:
            lineage.link_members(handle.store, self._ir.pipeline_info.id, self._run_id, members)

    def record_ingest(self, raw_uri: str, examples_uri: str, name: str) -> None:
        """Adds the ingest to ML Metadata, so that lineage reaches from the raw folder to the pushed version.

        Args:
            raw_uri: Of the artifact that stands for the raw folder.
            examples_uri: Of the data set.
            name: Of the data set in this store; its ingest is recorded once.

        Raises:
            TemporaryError: As for `run`.
        """
        with metadata_store.troubles(self._store):
            self._record_ingest(raw_uri, examples_uri, name)

    def _record_ingest(self, raw_uri: str, examples_uri: str, name: str) -> None:
        from ml_metadata import errors
        from ml_metadata.proto import metadata_store_pb2 as proto

        mlmd: Any = proto
        with self._metadata(self._connection) as handle:
            store = handle.store
            if store.get_execution_by_type_and_name(INGEST_TYPE, name) is None:
                kind = store.put_execution_type(mlmd.ExecutionType(name=INGEST_TYPE))
                made = mlmd.Execution(type_id=kind, name=name, last_known_state=mlmd.Execution.COMPLETE)
                kind = store.put_context_type(mlmd.ContextType(name=DATASET_TYPE))
                with contextlib.suppress(errors.AlreadyExistsError):  # another run of this data set was faster
                    store.put_execution(made, [], [mlmd.Context(type_id=kind, name=name)])
            execution = store.get_execution_by_type_and_name(INGEST_TYPE, name).id
            linked = {event.artifact_id for event in store.get_events_by_execution_ids([execution])}
            # Runs that import one data set in the same moment leave an artifact each; every one came from this ingest.
            events = [
                mlmd.Event(artifact_id=artifact.id, execution_id=execution, type=way)
                for uri, way in ((raw_uri, mlmd.Event.INPUT), (examples_uri, mlmd.Event.OUTPUT))
                for artifact in store.get_artifacts_by_uri(uri)
                if artifact.id not in linked
            ]
            for event in events:
                with contextlib.suppress(errors.AlreadyExistsError):  # the other run linked it meanwhile
                    store.put_events([event])
