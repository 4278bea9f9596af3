"""`histoline airflow` where no server is started: refusals, an empty home, and what an earlier one left."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.core import processes
from pipelines.local_airflow import control, servers
from pipelines.local_airflow.settings import Place
from tests.support.cli_help import invoke, invoke_json


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_bucket_is_refused_before_anything_is_built(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("airflow", "up", "--home", home, "--workspace", "gs://bucket/x") == 64
    assert "local or mounted workspace" in capsys.readouterr().err
    assert not home.exists()


def test_another_data_base_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("airflow", "up", "--home", home, "--database", "mysql://h/d") == 64
    assert "postgresql://" in capsys.readouterr().err


def test_nothing_runs_where_nothing_was_started(home: Path, capsys: Any) -> None:
    code, document = invoke_json(capsys, "airflow", "status", "--home", home)
    assert (code, document["state"], document["healthy"]) == (0, "down", False)
    assert invoke_json(capsys, "airflow", "down", "--home", home) == (0, {"stopped": 0})
    assert not home.exists()


def test_what_a_killed_supervisor_left_is_shown_and_ended(home: Path, capsys: Any) -> None:
    home.mkdir()
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    # A step: in a session of its own, with the mark that it inherited.
    step = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        start_new_session=True,
        env={**os.environ, processes.MARK: str(home)},
    )
    seen = processes.read_process(server.pid)
    assert seen is not None
    entry = {"pid": server.pid, "started": seen.started, "since": "", "restarts": 0, "last_event": ""}
    state = {
        "boot": processes.boot_id(), "url": "http://127.0.0.1:9", "port": 9, "workspace": "w", "data_roots": [],
        "database": "postgresql+psycopg2://u:secret@h/d", "supervisor": {"pid": 2**22 - 1, "started": 1},
        "services": {"scheduler": entry},
    }  # fmt: skip
    (home / servers.STATE).write_text(json.dumps(state))
    try:
        code, document = invoke_json(capsys, "airflow", "status", "--home", home)
        assert code == 75
        assert document["state"] == "unsupervised"
        assert document["services"]["scheduler"]["alive"] is True
        assert "secret" not in json.dumps(document)
        assert invoke_json(capsys, "airflow", "down", "--home", home) == (0, {"stopped": 2})
        assert server.wait(60) and step.wait(60)
        assert invoke_json(capsys, "airflow", "down", "--home", home) == (0, {"stopped": 0})
    finally:
        for process in (server, step):
            process.kill()
            process.wait()


def test_numbers_of_another_boot_are_left_alone(home: Path, capsys: Any) -> None:
    home.mkdir()
    me = processes.read_process(os.getpid())
    assert me is not None
    state = {"boot": "another", "supervisor": {"pid": me.pid, "started": me.started}, "services": {}}
    (home / servers.STATE).write_text(json.dumps(state))
    assert invoke_json(capsys, "airflow", "down", "--home", home) == (0, {"stopped": 0})


def test_another_server_on_the_port_is_not_taken_for_ours(home: Path) -> None:
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    seen = processes.read_process(server.pid)
    assert seen is not None
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            entry = {"pid": server.pid, "started": seen.started, "restarts": 0}
            state: dict[str, Any] = {"url": f"http://127.0.0.1:{port}", "port": port, "services": {"api-server": entry}}
            assert servers.own_health(state) is None
            assert not servers.lost_its_port(state)  # it may only be on its way
            entry["restarts"] = 1
            assert servers.lost_its_port(state)
        assert not servers.lost_its_port(state)
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--executor", "celery", "--broker", "redis://h/0"), "must be PostgreSQL"),
        (("--executor", "celery", "--database", "postgresql://h/d"), "needs a broker: a Redis server"),
        (("--executor", "celery", "--database", "postgresql://h/d", "--broker", "redis://:s3cret@h/0"),
         "HISTOLINE_AIRFLOW_BROKER"),
        (("--workers", "2"), "--executor celery"),
    ],
)  # fmt: skip
def test_workers_need_postgresql_and_a_broker(
    home: Path, options: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in ("HISTOLINE_AIRFLOW_DATABASE", "HISTOLINE_AIRFLOW_BROKER"):
        monkeypatch.delenv(name, raising=False)
    assert invoke("airflow", "up", "--home", home, *options) == 64
    told = capsys.readouterr().err
    assert says in told and "s3cret" not in told
    assert not home.exists()


def test_what_is_not_said_is_as_at_the_last_start(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    started: list[Place] = []

    def start(place: Place, *_: Any) -> Any:
        started.append(place)
        document = {name: str(value) for name, value in dataclasses.asdict(place).items()}
        (home / control.PLACE).write_text(json.dumps({**document, "data_roots": json.dumps(place.data_roots)}))
        return place, {"seconds": 0}

    monkeypatch.delenv("HISTOLINE_DATA_ROOTS", raising=False)
    monkeypatch.delenv("HISTOLINE_WORKSPACE", raising=False)
    monkeypatch.setattr(control, "build_environment", lambda project: None)
    monkeypatch.setattr(control, "start", start)
    root, other = tmp_path / "raw", tmp_path / "other"
    root.mkdir()
    database = "postgresql://h/d"
    up = ("airflow", "up", "--home", home)
    places = ("--workspace", tmp_path / "w", "--data-root", root, "--database", database)
    assert invoke(*up, *places, "--port", "8555") == 0
    assert invoke(*up) == 0
    assert started[1] == started[0]
    assert invoke(*up, "--workspace", other, "--port", "8556") == 0
    assert started[2] == dataclasses.replace(started[0], workspace=other, port=8556)
    assert invoke(*up, "--executor", "celery", "--broker", "redis://h/0") == 0
    assert (started[3].workers, started[3].broker) == (2, "redis://h:6379/0")
    assert invoke(*up, "--workers", "3") == 0
    assert started[4] == dataclasses.replace(started[3], workers=3)
    assert invoke(*up) == 0
    assert started[5] == started[4]
    assert invoke(*up, "--executor", "local") == 0
    assert started[6] == dataclasses.replace(started[3], workers=0, broker="")
    assert invoke(*up, "--data-root", tmp_path / "nosuch") == 64
    assert invoke(*up, "--database", "postgresql://u:s3cret@h/d") == 64
    assert "s3cret" not in capsys.readouterr().err
    assert len(started) == 7
