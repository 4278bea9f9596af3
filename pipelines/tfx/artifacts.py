"""What TFX keeps of runs that are gone: its outputs are deleted, and ML Metadata is told, so that nobody takes them.

An output belongs to the run that made it and to every run that took it from TFX's cache. It goes when none of them is
left. In ML Metadata a run that is gone gets another name, or a new run of its name (Airflow's Clear) would find its
nodes done and their outputs missing. Nothing else of the lineage changes, and ML Metadata cannot forget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from components.errors import TemporaryError
from components.pruning.needs import Family
from components.pruning.rules import Skipped, Verdict
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training.run_types import RunRecord
from pipelines.tfx import metadata_store
from pipelines.tfx.metadata_store import Server

BASELINE = "baseline"
"""Beside the nodes: champions as artifacts, in folders named by version and content."""

PRUNED = " (pruned "
"""In the name of a run that is gone, which no RUN_ID can hold; a number follows that no other has."""

_SYSTEM = ".system"


@dataclasses.dataclass(frozen=True)
class Output:
    """A folder below TFX's pipeline root.

    Attributes:
        path: Relative to the working folder.
        artifacts: That ML Metadata has at this place.
        users: Runs and sweeps that made it or took it from the cache; None where ML Metadata knows nothing of it.
    """

    path: str
    artifacts: tuple[int, ...]
    users: frozenset[str] | None


class Outputs:
    """TFX's outputs of one data set and task.

    Args:
        storage: The workspace.
        dataset: Data set.
        task: Task.
        server: ML Metadata, where it is shared; a file of the working folder where None.
    """

    def __init__(self, storage: Storage, dataset: str, task: str, server: Server | None) -> None:
        self.storage, self.dataset, self.task, self.server = storage, dataset, task, server
        self.work = open_storage(storage.work_folder())
        self.root = f"artifacts/{dataset}-{task}"
        file = metadata_store.workspace_file(self.work, dataset, task)
        self.store: metadata_store.Store = server or metadata_store.SqliteFile(file)

    @property
    def is_there(self) -> bool:
        """Whether TFX has left anything here, with ML Metadata that knows of it."""
        known = isinstance(self.store, Server) or self.store.file.is_file()
        return known and bool(self.work.list_dirs(self.root))

    def judge(self, family: Family, gone: Collection[str]) -> list[Verdict]:
        """Verdicts on the outputs: each that goes, and one on all that stay.

        Args:
            family: Runs and sweeps that there are.
            gone: Folders of those that go before.

        Raises:
            TemporaryError: ML Metadata can't be reached or is locked.
        """
        if not self.is_there:
            return []
        other = _elsewhere(family, self.server)
        if other:
            return [Verdict("artifacts", self.root, False, other, self._bytes(self.root), 0.0)]
        staying = {path.rsplit("/", 1)[1] for path in (*family.runs, *family.sweeps) if path not in gone}
        with metadata_store.troubles(self.store):
            outputs = self._outputs(metadata_store.open_store(self.store), self._version(family))
        going = [output for output in outputs if _goes(output, staying)]
        why = "no run that is left made or took it"
        verdicts = [Verdict("artifacts", one.path, True, why, self._bytes(one.path), 0.0) for one in going]
        size = self._bytes(self.root) - sum(verdict.bytes for verdict in verdicts)
        kept = f"{len(outputs) - len(going)} outputs of runs that stay, or unknown to ML Metadata"
        return [*verdicts, Verdict("artifacts", self.root, False, kept, size, 0.0)]

    def remove(self, read: Callable[[], Family]) -> tuple[list[Verdict], list[Skipped]]:
        """Deletes what no run that is left made or took.

        First ML Metadata is told, so that no run that begins now takes one of them from the cache; then it is looked
        whether a run took one just before; then the folders go. A run that is at work stops all of it.

        Args:
            read: Gives the runs and sweeps that there are now.

        Raises:
            TemporaryError: ML Metadata can't be reached or is locked; the next pruning goes on.
        """
        planned = [verdict for verdict in self.judge(read(), ()) if verdict.goes]
        if not self.is_there:
            return [], []
        with metadata_store.troubles(self.store):
            store = metadata_store.open_store(self.store)
            self._rename(store, _names(read()))
            if not planned:
                return [], []
            paths = {verdict.path for verdict in planned}
            marked = [output for output in self._outputs(store, "") if output.path in paths]
            self._set_states(store, marked, "MARKED_FOR_DELETION")
            family = read()
            busy = self._at_work(family)
            again = {output.path: output for output in self._outputs(store, self._version(family))}
            taken = {o.path for o in marked if busy or o.path not in again or not _goes(again[o.path], _names(family))}
            self._set_states(store, [output for output in marked if output.path in taken], "LIVE")
            gone = [output for output in marked if output.path not in taken]
            for output in gone:
                self.work.delete_tree(output.path)
            self._set_states(store, gone, "DELETED")
        removed = [verdict for verdict in planned if verdict.path not in taken]
        return removed, [Skipped(path, busy or "A run has taken it from the cache since.") for path in sorted(taken)]

    def _outputs(self, store: Any, champion: str) -> list[Output]:
        """Every folder with what ML Metadata knows of it; the champion's artifact is left out."""
        makers, users, places = self._known(store)
        found = []
        for path, execution in self._folders():
            artifacts = places.get(str(Path(self.work.root, path)), ())
            if f"{self.root}/{BASELINE}/" in path and path.rsplit("/", 1)[1].split("-")[0] == champion:
                continue
            known = {name for artifact in artifacts for name in users.get(artifact, ())}
            if execution in makers:
                known.add(makers[execution])
            is_known = bool(artifacts) or execution in makers
            found.append(Output(path, tuple(artifacts), frozenset(known) if is_known else None))
        return found

    def _folders(self) -> list[tuple[str, int]]:
        """(folder, number of the execution it is named by; 0 where by none)."""
        found = [(f"{self.root}/{BASELINE}/{name}", 0) for name in self.work.list_dirs(f"{self.root}/{BASELINE}")]
        for node in self.work.list_dirs(self.root):
            keys = [name for name in self.work.list_dirs(f"{self.root}/{node}") if name != _SYSTEM]
            keys += [f"{_SYSTEM}/{name}" for name in self.work.list_dirs(f"{self.root}/{node}/{_SYSTEM}")]
            for key in keys:
                for name in self.work.list_dirs(f"{self.root}/{node}/{key}"):
                    if name.isdecimal():
                        found.append((f"{self.root}/{node}/{key}/{name}", int(name)))
        return found

    def _known(self, store: Any) -> tuple[dict[int, str], dict[int, set[str]], dict[str, list[int]]]:
        """Execution to its run, artifact to the runs that made or read it, place to artifacts."""
        makers = {execution.id: context.name for context, mine, _ in self._runs(store) for execution in mine}
        users: dict[int, set[str]] = {}
        for event in store.get_events_by_execution_ids(sorted(makers)) if makers else []:
            users.setdefault(event.artifact_id, set()).add(makers[event.execution_id])
        places: dict[str, list[int]] = {}
        for artifact in store.get_artifacts_by_id(sorted(users)) if users else []:
            places.setdefault(artifact.uri.rstrip("/"), []).append(artifact.id)
        return makers, users, places

    def _runs(self, store: Any) -> list[tuple[Any, list[Any], bool]]:
        """Context of each run or sweep, its executions in this pipeline, and whether it has no others."""
        name = metadata_store.pipeline_name(self.work, self.dataset, self.task, self.server)
        pipeline = store.get_context_by_type_and_name("pipeline", name)
        if pipeline is None:
            return []
        own = {execution.id for execution in store.get_executions_by_context(pipeline.id)}
        found = []
        for context in store.get_contexts_by_type("pipeline_run"):
            executions = store.get_executions_by_context(context.id)
            mine = [execution for execution in executions if execution.id in own]
            if mine:
                found.append((context, mine, len(mine) == len(executions)))
        return found

    def _rename(self, store: Any, staying: Collection[str]) -> None:
        from ml_metadata.proto import metadata_store_pb2 as proto

        mlmd: Any = proto
        for context, executions, alone in self._runs(store):
            if context.name in staying or PRUNED in context.name:
                continue
            dead = [e for e in executions if e.last_known_state in (mlmd.Execution.NEW, mlmd.Execution.RUNNING)]
            for execution in dead:
                execution.last_known_state = mlmd.Execution.CANCELED
            if dead:
                store.put_executions(dead)
            if alone:  # in a store that workspaces share, another one may have a run of this name
                context.name += f"{PRUNED}{min(execution.id for execution in executions)})"
                store.put_contexts([context])

    def _set_states(self, store: Any, outputs: Collection[Output], state: str) -> None:
        from ml_metadata.proto import metadata_store_pb2 as proto

        mlmd: Any = proto
        numbers = sorted({number for output in outputs for number in output.artifacts})
        artifacts = store.get_artifacts_by_id(numbers) if numbers else []
        for artifact in artifacts:
            artifact.state = mlmd.Artifact.State.Value(state)
        if artifacts:
            store.put_artifacts(artifacts)

    def _at_work(self, family: Family) -> str:
        """Who works on a run that is not over, as a sentence; empty where nobody does."""
        for folder, run in family.runs.items():
            if isinstance(run, RunRecord) and run.state == "done":
                continue
            try:
                with self.storage.lock(f"{folder}/.lock", owner="histoline prune", wait_seconds=0):
                    pass
            except TemporaryError as error:
                return error.what
        return ""

    def _version(self, family: Family) -> str:
        return str(family.champion.current.version) if family.champion else ""

    def _bytes(self, path: str) -> int:
        return sum(size for _, size in self.work.list_files(path))


def _goes(output: Output, staying: Collection[str]) -> bool:
    return output.users is not None and output.users.isdisjoint(staying)


def _names(family: Family) -> set[str]:
    """RUN_IDs and SWEEP_IDs that there are."""
    return {path.rsplit("/", 1)[1] for path in (*family.runs, *family.sweeps)}


def _elsewhere(family: Family, server: Server | None) -> str:
    """Why nothing can be said of the outputs: a run that stays keeps its lineage in another store."""
    now = server.place if server else ""
    for run in family.runs.values():
        if isinstance(run, RunRecord):
            options: Mapping[str, Any] = run.options
            frozen = str(options.get("metadata") or "")
            if frozen != now:
                return f"run {run.run_id} keeps its lineage in {frozen or 'the workspace'}: name it with --metadata"
    return ""
