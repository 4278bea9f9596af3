"""TFX's outputs go with the last run that made or took them, and ML Metadata is told before a folder goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2

from components.pruning.needs import Family
from components.storage.local import LocalStorage
from components.storage.open import open_storage
from pipelines.tfx.artifacts import Outputs
from pipelines.tfx.metadata_store import SqliteFile, open_store, workspace_file
from tests.support.storage_help import python

mlmd: Any = metadata_store_pb2
COMPLETE, CACHED, RUNNING, CANCELED = (
    getattr(mlmd.Execution, name) for name in ("COMPLETE", "CACHED", "RUNNING", "CANCELED")
)


class Kept:
    """TFX's outputs of idc binary, with ML Metadata as TFX writes it."""

    def __init__(self, root: Path) -> None:
        self.root, self.storage = root, open_storage(root)
        file = workspace_file(self.storage, "idc", "binary")
        file.parent.mkdir(parents=True)
        self.store = open_store(SqliteFile(file))
        self.kinds = {
            name: self.store.put_context_type(mlmd.ContextType(name=name)) for name in ("pipeline", "pipeline_run")
        }
        self.type = self.store.put_execution_type(mlmd.ExecutionType(name="Node"))
        self.artifact_type = self.store.put_artifact_type(mlmd.ArtifactType(name="Statistics"))
        self.outputs = Outputs(self.storage, "idc", "binary", None)

    def execution(
        self, run: str, state: int, takes: int | None = None, leaves: bool = True, pipeline: str = "idc-binary"
    ) -> int:
        """An execution of a run, its folders, and its artifact: a new one, or one taken from the cache."""
        contexts = [mlmd.Context(type_id=self.kinds[k], name=n) for k, n in
                    (("pipeline", pipeline), ("pipeline_run", run))]  # fmt: skip
        known = [self.store.get_context_by_type_and_name(k, c.name) for k, c in zip(self.kinds, contexts)]
        contexts = [old or new for old, new in zip(known, contexts)]
        execution = mlmd.Execution(type_id=self.type, last_known_state=state)
        number, _, _ = self.store.put_execution(execution, [], contexts)
        if leaves:
            self.storage.write_atomic(f"artifacts/idc-binary/StatisticsGen/.system/executor_execution/{number}/x", b"1")
        event = mlmd.Event(execution_id=number, type=mlmd.Event.OUTPUT)
        if takes is None and state == COMPLETE:
            path = f"artifacts/idc-binary/StatisticsGen/statistics/{number}"
            self.storage.write_atomic(f"{path}/stats.pb", b"12")
            artifact = mlmd.Artifact(type_id=self.artifact_type, uri=str(self.root / path), state=mlmd.Artifact.LIVE)
            (takes,) = self.store.put_artifacts([artifact])
        if takes is not None:
            event.artifact_id = takes
            self.store.put_events([event])
        return number

    def state(self, execution: int) -> int:
        return int(self.store.get_executions_by_id([execution])[0].last_known_state)

    def runs(self) -> set[str]:
        return {context.name for context in self.store.get_contexts_by_type("pipeline_run")}

    def artifact(self, number: int = 1) -> str:
        return str(mlmd.Artifact.State.Name(self.store.get_artifacts_by_id([number])[0].state))

    def files(self) -> set[str]:
        return {path.split("/", 2)[2] for path, _ in self.storage.list_files("artifacts")}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def family(*runs: str) -> Family:
    return Family("idc", "binary", {f"runs/idc/binary/{name}": None for name in runs}, {}, None)


def test_an_output_goes_with_the_last_run_that_made_or_took_it(kept: Kept) -> None:
    made, dead = kept.execution("a", COMPLETE), kept.execution("a", RUNNING)
    took = kept.execution("b", CACHED, takes=1, leaves=False)
    kept.storage.write_atomic("artifacts/idc-binary/StatisticsGen/statistics/99/x", b"of nobody known")
    told = kept.outputs.judge(family("a", "b"), {"runs/idc/binary/a"})
    system = "StatisticsGen/.system/executor_execution"
    assert {v.path.split("/", 2)[2] for v in told if v.goes} == {f"{system}/{made}", f"{system}/{dead}"}
    removed, skipped = kept.outputs.remove(lambda: family("b"))
    assert {v.path for v in removed} == {v.path for v in told if v.goes} and skipped == []
    assert (kept.state(made), kept.state(dead), kept.state(took)) == (COMPLETE, CANCELED, CACHED)
    assert kept.runs() == {"a (pruned 1)", "b"}, "a new run may be called a"
    assert kept.artifact() == "LIVE" and "StatisticsGen/statistics/1/stats.pb" in kept.files()
    kept.outputs.remove(lambda: family())
    assert kept.artifact() == "DELETED" and kept.files() == {"StatisticsGen/statistics/99/x"}
    assert kept.outputs.remove(lambda: family()) == ([], [])


def test_a_run_that_takes_an_output_meanwhile_keeps_it(kept: Kept) -> None:
    kept.execution("a", COMPLETE)
    looks = 0

    def read() -> Family:
        nonlocal looks
        looks += 1
        if looks == 3:  # after ML Metadata was told: the run had looked into the cache just before
            assert kept.artifact() == "MARKED_FOR_DELETION", "no run that begins now would take it"
            kept.execution("b", CACHED, takes=1, leaves=False)
        return family("b") if looks >= 3 else family()

    removed, skipped = kept.outputs.remove(read)
    assert [one.path.rsplit("/", 2)[1] for one in skipped] == ["statistics"] and len(removed) == 1
    assert kept.artifact() == "LIVE" and "StatisticsGen/statistics/1/stats.pb" in kept.files()


def test_a_name_that_another_workspace_has_in_the_same_store_is_left_to_it(kept: Kept) -> None:
    kept.execution("a", RUNNING)
    other = kept.execution("a", RUNNING, leaves=False, pipeline="idc-binary-1a2b3c4d")
    kept.outputs.remove(lambda: family())
    assert kept.runs() == {"a"} and kept.state(other) == RUNNING and kept.files() == set()


def test_while_a_step_works_nothing_goes(kept: Kept) -> None:
    kept.execution("a", COMPLETE)
    before = kept.files()
    code = """
        import sys
        from components.storage.open import open_storage
        with open_storage(sys.argv[1]).lock("runs/idc/binary/b/.lock", owner="a step"):
            print("ready", flush=True)
            sys.stdin.read()
    """
    step = python(code, kept.root)
    assert step.stdout is not None and step.stdout.readline() == "ready\n"
    removed, skipped = kept.outputs.remove(lambda: family("b"))
    assert removed == [] and len(skipped) == 2 and all("a step" in one.why for one in skipped)
    assert kept.files() == before and kept.artifact() == "LIVE"
    step.communicate("", timeout=60)
    assert len(kept.outputs.remove(lambda: family("b"))[0]) == 2


def test_killed_between_word_and_deed_the_next_one_goes_on(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    kept.execution("a", COMPLETE)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LocalStorage, "delete_tree", killed)
        kept.outputs.remove(lambda: family())
    assert kept.artifact() == "MARKED_FOR_DELETION" and kept.files()
    kept.outputs.remove(lambda: family())
    assert kept.artifact() == "DELETED" and kept.files() == set()
