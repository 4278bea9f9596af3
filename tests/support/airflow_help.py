"""Real Airflow servers for a test, and what a program would do with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.local_airflow import servers

ROOT = Path(__file__).resolve().parents[2]
HISTOLINE = Path(sys.executable).parent / "histoline"
ARTIFACTS = ROOT / "tests" / "e2e" / "artifacts"
PATIENCE = 300.0


class Airflow:
    """Airflow in a folder of its own, with the environment that its servers get."""

    def __init__(self, home: Path, workspace: Path, **environment: str) -> None:
        self.home, self.workspace = home, workspace
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HISTOLINE_", "AIRFLOW"))}
        self.environment = {**kept, **environment}
        self.token = ""
        self.document: dict[str, Any] = {}
        self.state_seen: dict[str, Any] | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(HISTOLINE), "airflow", *arguments, "--home", str(self.home)],
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def up(self, *arguments: str) -> dict[str, Any]:
        done = self.run("up", "--workspace", str(self.workspace), "--json", "--wait", "600", *arguments)
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"
        self.document = json.loads(done.stdout)
        answer = self.post("/auth/token", {"username": "admin", "password": self.password("admin")})
        self.token = answer["access_token"]
        return self.document

    def down(self) -> None:
        self.left()
        done = self.run("down")
        assert done.returncode == 0, done.stderr
        assert self.left() == set(), "processes outlived Airflow"

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json").stdout))

    def left(self) -> set[int]:
        """Numbers of the processes of this Airflow that live; also after `down`, which deletes the state."""
        self.state_seen = servers.read_state(self.home) or self.state_seen
        return servers.left_behind(self.home, self.state_seen)

    def password(self, user: str) -> str:
        return str(json.loads((self.home / "passwords.json").read_text())[user])

    def logs(self) -> str:
        """The ends of all server logs."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in (self.home / "servers").glob("*.log"))

    @property
    def url(self) -> str:
        return str(self.document["url"])

    def request(self, path: str, body: Mapping[str, Any] | None = None, method: str = "", token: str = "") -> Any:
        """Status and JSON of an API call."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {token or self.token}"},
            method=method or ("GET" if body is None else "POST"),
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        status, answer = self.request(path, body)
        assert status in (200, 201), (status, answer)
        return answer

    def get(self, path: str) -> Any:
        status, answer = self.request(path)
        assert status == 200, (status, answer)
        return answer

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        wait_for(lambda: self.request(f"/api/v2/dags/{dag_id}")[0] == 200, f"{dag_id} to be read")
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.post(f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.get(f"/api/v2/dags/{dag_id}/dagRuns?order_by=id")["dag_runs"])

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.get(f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        return {one["task_id"]: one for one in self.get(path)["task_instances"]}

    def finished(self, dag_id: str, run_id: str, patience: float = PATIENCE) -> str:
        """Waits until a run has ended; tells how."""
        wait_for(lambda: self.state_or_none(dag_id, run_id) in ("success", "failed"), f"{dag_id} {run_id}", patience)
        return self.state(dag_id, run_id)

    def state_or_none(self, dag_id: str, run_id: str) -> str | None:
        """A run's state; None while the web server is away."""
        try:
            return self.state(dag_id, run_id)
        except (OSError, AssertionError, ValueError):
            return None

    def task_log(self, dag_id: str, run_id: str, task: str, attempt: int = 1) -> str:
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task}"
        file = folder / f"attempt={attempt}.log"
        return file.read_text() if file.exists() else ""


def wait_for(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Waits until something is true; fails naming it."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain for {what}"
        time.sleep(0.5)
