"""A world for whole runs of the DAGs: a workspace, a fake pipeline command that behaves as it is told, a webhook."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from steps import write_command

DAGS = Path(__file__).resolve().parents[2] / "dags"

# Answers from answers.json by stage; writes down how it was called.
FAKE = """
stage = sys.argv[2] if sys.argv[1] == "step" else sys.argv[1]
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
with open(f"{folder}/calls.jsonl", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
answer = json.load(open(f"{folder}/answers.json")).get(stage, {})
if "result" in answer:
    result(**answer["result"])
line("info", f"{stage} 50 % done")
codes = answer.get("codes")
if codes:
    count = sum(json.loads(call)[:2] == sys.argv[1:3] for call in open(f"{folder}/calls.jsonl"))
    answer["code"] = codes[min(count, len(codes)) - 1]
if answer.get("error"):
    line("error", answer["error"])
sys.exit(answer.get("code", 0))
"""


class World:
    """A workspace, a fake command and a webhook."""

    def __init__(self, folder: Path, hook: list[dict[str, Any]]) -> None:
        self.folder, self.hook = folder, hook
        self.workspace = folder / "workspace"
        self.command = write_command(folder, FAKE)
        self.answers: dict[str, Any] = {}

    def commit(self, digest: str = "d1", task: str = "binary") -> Path:
        """A data set as far as the DAGs look at one."""
        home = self.workspace / "datasets" / "idc" / task
        place = home / f"plan-{digest}"
        place.mkdir(parents=True, exist_ok=True)
        told = {"dataset": "idc", "task": task, "content_digest": digest}
        (place / "manifest.json").write_text(json.dumps(told))
        (home / "latest.json").write_text("{}")
        return place

    def answer(self, **stages: Any) -> None:
        self.answers |= stages
        (self.folder / "answers.json").write_text(json.dumps(self.answers))

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, dag_id: str, **conf: Any) -> tuple[str, dict[str, str], Any]:
        """Runs a DAG; its state, the tasks' states (`fold[0]` where mapped) and the run."""
        from airflow.dag_processing.dagbag import DagBag

        # A fresh one: `dag.test` changes the object.
        run = DagBag(str(DAGS)).dags[dag_id].test(run_conf=conf or None)
        states = {}
        for ti in run.get_task_instances():
            # A mapped task without anything to be mapped over stands there as one that is skipped.
            if ti.task_id not in ("fold", "trial") or ti.map_index >= 0:
                states[f"{ti.task_id}{f'[{ti.map_index}]' if ti.map_index >= 0 else ''}"] = str(ti.state)
        return str(run.state), states, run


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path, hook: Any) -> World:
    url, heard = hook
    del heard[:]
    made = World(tmp_path, heard)
    monkeypatch.setenv("HISTOLINE_WORKSPACE", str(made.workspace))
    monkeypatch.setenv("HISTOLINE_COMMAND", str(made.command))
    monkeypatch.setenv("HISTOLINE_WEBHOOK_URL", url)
    monkeypatch.setenv("HISTOLINE_RETRIES_SECONDS", "0")
    monkeypatch.setenv("HISTOLINE_RETRIES_TIMES", "1")
    made.answer(
        validate={"result": {"state": "running", "decision": None}},
        train={"result": {"state": "running"}},
        evaluate={"result": {"state": "running", "decision": "promoted"}},
        push={"result": {"state": "running", "decision": "promoted", "version": "7", "metrics": {"auc": 0.9}}},
        report={"result": {"state": "done", "decision": "promoted"}},
    )
    return made


@pytest.fixture(scope="module")
def hook():
    """A webhook on this machine: its address and what it heard."""
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if len(heard) > 100 else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", heard
    server.shutdown()


def xcom(run: Any, task_id: str) -> dict[str, Any]:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(XComModel).filter_by(run_id=run.run_id, dag_id=run.dag_id, task_id=task_id).first()
        return dict(XComModel.deserialize_value(row)) if row else {}


def events(asset: str) -> list[dict[str, Any]]:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return [dict(e.extra) for e in found.filter(AssetModel.name == asset).order_by(AssetEvent.id)]
