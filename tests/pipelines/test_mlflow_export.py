"""Runs on their way to MLflow: in batches, whole before they replace what was there, once. The client is a stand-in."""

from __future__ import annotations

import builtins
import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.errors import TemporaryError, UsageError
from components.report.mlflow_payload import Payload, Value
from pipelines import mlflow_export, runs
from tests.support.report_help import Studio


class MlflowError(Exception):
    """Of the stand-in."""


@dataclasses.dataclass
class Server:
    """Keeps what a tracking server would, and takes no more at once than one does."""

    experiments: list[str] = dataclasses.field(default_factory=list)
    runs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    fails: bool = False

    def get_experiment_by_name(self, name: str) -> Any:
        known = name in self.experiments
        return types.SimpleNamespace(experiment_id=str(self.experiments.index(name))) if known else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return str(len(self.experiments) - 1)

    def create_run(self, experiment: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        number = f"r{len(self.runs)}"
        empty: dict[str, Any] = {"params": {}, "metrics": [], "files": [], "status": ""}
        self.runs[number] = {"name": run_name, "tags": dict(tags), **empty}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=number))

    def search_runs(self, experiments: list[str], filter_string: str) -> list[Any]:
        name = filter_string.split("'")[1]
        return [
            types.SimpleNamespace(
                info=types.SimpleNamespace(run_id=number, status=run["status"]),
                data=types.SimpleNamespace(tags=run["tags"]),
            )
            for number, run in self.runs.items()
            if run["tags"].get("histoline.run_id") == name and run["status"] != "deleted"
        ]

    def log_batch(self, number: str, params: Any = (), metrics: Any = (), tags: Any = ()) -> None:
        if self.fails:
            raise MlflowError("503 for http://user:word@host")
        assert len(params) <= 100 and len(metrics) <= 1000 and len(tags) <= 100
        run = self.runs[number]
        run["params"] |= dict(params)
        run["metrics"] += list(metrics)
        run["tags"] |= dict(tags)

    def log_artifact(self, number: str, path: str) -> None:
        self.runs[number]["files"].append(Path(path).name)

    def set_terminated(self, number: str, status: str, end_time: int) -> None:
        self.runs[number]["status"] = status

    def delete_run(self, number: str) -> None:
        self.runs[number]["status"] = "deleted"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    parts = {
        "mlflow": {},
        "mlflow.exceptions": {"MlflowException": MlflowError},
        "mlflow.tracking": {"MlflowClient": lambda tracking_uri: made},
        "mlflow.entities": {"Metric": lambda *a: a, "Param": lambda *a: a, "RunTag": lambda *a: a},
    }
    for name, members in parts.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_a_run_is_sent_once_and_again_where_it_has_changed(server: Server, evaluated: Studio) -> None:
    call = ["export", "good", "--mlflow", "http://u:secret@host:5000", "--workspace", str(evaluated.root), "--json"]
    for sent in (True, False):
        done = CliRunner().invoke(runs.command, call)
        assert done.exception is None
        (found,) = json.loads(done.stdout)
        assert found["sent"] is sent and found["server"] == "http://host:5000" and "secret" not in done.output
    (run,) = server.runs.values()
    assert run["status"] == "RUNNING" and "run.json" in run["files"] and run["params"]["model"] == "tiny"
    assert any(metric[0] == "test/auc/low" for metric in run["metrics"])
    run["tags"]["histoline.updated"] = "earlier"
    assert json.loads(CliRunner().invoke(runs.command, call).stdout)[0]["sent"] is True
    assert [each["status"] for each in server.runs.values()] == ["deleted", "RUNNING"]
    assert isinstance(CliRunner().invoke(runs.command, [*call[:1], "lost", *call[2:]]).exception, UsageError)


def big() -> Payload:
    values = tuple(Value("epoch/loss", 0.5, step, step) for step in range(1, 2502))
    tags = {"histoline.updated": "now", **{f"t{k}": "x" for k in range(150)}}
    return Payload("e", "r", "FINISHED", 0, 1, {f"p{k}": "x" for k in range(250)}, values, tags)


def test_no_batch_is_larger_than_a_server_takes(server: Server) -> None:
    mlflow_export.send(server, big(), [], "there")
    (run,) = server.runs.values()
    assert (len(run["params"]), len(run["metrics"]), len(run["tags"])) == (250, 2501, 152)


def test_a_server_that_fails_leaves_what_was_there_and_may_be_tried_again(server: Server) -> None:
    mlflow_export.send(server, big(), [], "there")
    server.fails = True
    changed = dataclasses.replace(big(), tags={"histoline.updated": "later"})
    with pytest.raises(TemporaryError, match="did not take run 'r'.*histoline runs export r"):
        mlflow_export.send(server, changed, [], "there")
    assert [run["status"] for run in server.runs.values()] == ["FINISHED", ""]
    server.fails = False
    assert mlflow_export.send(server, changed, [], "there")["sent"]
    assert [run["status"] for run in server.runs.values()] == ["deleted", "deleted", "FINISHED"]


def test_without_the_package_it_is_told_before_anything_is_done(
    evaluated: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def lacking(name: str, *args: Any, **given: Any) -> Any:
        if name.startswith("mlflow"):
            raise ImportError("No module named 'mlflow'")
        return real(name, *args, **given)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UsageError, match="needs the package mlflow-skinny"):
        mlflow_export.client("http://host:5000")
    from pipelines import train

    done = CliRunner().invoke(
        train.command, ["idc", "--mlflow", "http://host:5000", "--workspace", str(evaluated.root)]
    )
    assert isinstance(done.exception, UsageError) and "mlflow-skinny" in str(done.exception)
    none = CliRunner().invoke(runs.command, ["export", "good", "--workspace", str(evaluated.root)])
    assert isinstance(none.exception, UsageError) and "Where to?" in str(none.exception)
