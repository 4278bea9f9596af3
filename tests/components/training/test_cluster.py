"""TF_CONFIG as a cluster; what a worker's process ends with; what a worker waits for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.errors import DataError, HistolineError, TemporaryError, UsageError
from components.training import cluster, training_process
from components.training.cluster import Cluster, read_cluster

TWO = Cluster(("a:1", "b:2"), 1)


def told(jobs: object, kind: str = "worker", index: object = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_the_first_worker_is_the_chief_unless_one_is_named() -> None:
    assert read_cluster(told({"worker": ["a:1", "b:2"]}, index=1)) == TWO and not TWO.chief
    with_chief = {"chief": ["c:3"], "worker": ["a:1", "b:2"]}
    assert read_cluster(told(with_chief, "worker", 1)) == Cluster(("c:3", "a:1", "b:2"), 2)
    chief = read_cluster(told(with_chief, "chief"))
    assert chief is not None and chief.chief and chief.index == 0
    assert read_cluster({"TF_CONFIG": TWO.to_text()}) == TWO


def test_alone_there_is_no_cluster() -> None:
    for environ in ({}, {"TF_CONFIG": " "}, told({"worker": ["a:1"]}), told({}, "worker")):
        assert read_cluster(environ) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"TF_CONFIG": "{"}, {"TF_CONFIG": "[]"}, told({"worker": ["a:1", "b:2"]}, index=2),
        told({"worker": ["a:1", "b:2"], "ps": ["c:3"]}), told({"worker": ["a:1", "b:2"]}, "evaluator"),
        told({"worker": ["a:1", "a:1"]}), told({"worker": ["a:1", "b:2"]}, index="x"),
    ],
)  # fmt: skip
def test_what_is_no_such_cluster_is_wrong_usage(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="TF_CONFIG"):
        read_cluster(environ)


def test_how_long_to_wait_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cluster.JOIN_VARIABLE, raising=False)
    assert cluster.join_seconds() == 600
    monkeypatch.setenv(cluster.JOIN_VARIABLE, "soon")
    with pytest.raises(UsageError, match="HISTOLINE_JOIN_SECONDS"):
        cluster.join_seconds()


def test_what_the_end_of_a_workers_process_means(tmp_path: Path) -> None:
    def ended(code: int, said: str = "") -> Exception:
        return training_process._ended(code, tmp_path, said, TWO)

    for said in ("Terminating process because the coordination service ...", "Collective ops is aborted"):
        assert isinstance(ended(1, said), TemporaryError) and said in str(ended(1, said))
    assert isinstance(ended(-9), TemporaryError) and "signal 9" in str(ended(-9)) and "worker 1 of 2" in str(ended(-9))
    bug = ended(1, "Traceback\nKeyError: 'x of the coordination service'")
    assert not isinstance(bug, HistolineError) and "KeyError" in str(bug)
    (tmp_path / training_process.ERROR).write_text(json.dumps({"what": "loss became nan.", "fix": "Lower it."}))
    assert isinstance(ended(65), DataError) and "loss became nan" in str(ended(65))
