"""Celery's workers: their broker, what they are told, and when they are well."""

from __future__ import annotations

import configparser
import os
import socket
from pathlib import Path

import pytest

from components.errors import UsageError
from pipelines.local_airflow import celery, servers, settings
from pipelines.local_airflow.settings import Place

BROKER = "redis://:s3cret@127.0.0.1:6379/0"
DATABASE = "postgresql+psycopg2://u:p%40@h/d"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(
        home=tmp_path / "home", project=tmp_path, python=tmp_path / "python", port=8123, database=DATABASE,
        workspace=tmp_path, data_roots=(), command=tmp_path / "histoline", workers=3, broker=BROKER,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://h/", "redis://h:6379/0"),
        ("redis://h:1/7", "redis://h:1/7"),
        ("redis://:p%40@h/2", "redis://:p%40@h:6379/2"),
    ],
)
def test_brokers(url: str, expected: str, tmp_path: Path) -> None:
    assert celery.broker_url(url) == expected
    file = tmp_path / "broker"
    file.write_text(f"{url}\n")
    file.chmod(0o600)
    assert celery.broker_url(f"@{file}") == expected
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        celery.broker_url(f"@{file}")


@pytest.mark.parametrize("url", ["", "amqp://h", "redis://", "redis://h/name", "redis://h:port/0", "h:6379"])
def test_other_brokers_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"--broker redis://.*HISTOLINE_AIRFLOW_BROKER"):
        celery.broker_url(url)


def test_airflow_is_told_of_broker_and_workers(place: Place) -> None:
    settings.write_configuration(place)
    stored = configparser.ConfigParser()
    stored.read(place.home / "airflow.cfg", encoding="utf-8")
    assert stored["core"]["executor"] == "CeleryExecutor" and stored["core"]["parallelism"] == "6"
    assert stored["celery"]["broker_url"] == BROKER
    assert stored["celery"]["result_backend"] == f"db+{DATABASE}"
    # Longer than any task may take, or a second worker begins it beside the first.
    assert int(stored["celery_broker_transport_options"]["visibility_timeout"]) >= 14 * 24 * 3600


def test_without_workers_nothing_of_celery_is_said(place: Place) -> None:
    import dataclasses

    alone = dataclasses.replace(place, workers=0, broker="")
    settings.write_configuration(alone)
    text = (place.home / "airflow.cfg").read_text()
    assert "celery" not in text and "LocalExecutor" in text
    assert "HISTOLINE_QUEUE" not in settings.server_environment(alone, {})
    assert [s.name for s in servers.services(alone, {})] == ["scheduler", "dag-processor", "api-server"]


def test_workers_have_folders_of_their_own_and_listen_to_the_queues_of_the_steps(place: Place) -> None:
    environment = settings.server_environment(place, {"HISTOLINE_GPU_QUEUE": "a100", celery.BROKER_VARIABLE: BROKER})
    assert (environment["HISTOLINE_QUEUE"], environment["HISTOLINE_GPU_QUEUE"]) == ("cpu", "a100")
    assert celery.BROKER_VARIABLE not in environment
    services = servers.services(place, environment)
    workers = [service for service in services if service.name.startswith("worker-")]
    assert [service.name for service in workers] == ["worker-1", "worker-2", "worker-3"]
    assert services[-1].name == "api-server", "tasks that are ended still tell it"
    assert len({service.folder for service in workers}) == 3
    for service in workers:
        assert service.variables["TMPDIR"] == str(service.folder)
        assert service.argv[service.argv.index("--queues") + 1] == "cpu,a100"
        assert "--skip-serve-logs" in service.argv, "its log server would listen on all interfaces"
        assert not any("s3cret" in word for word in [*service.argv, *service.variables.values()])


def test_a_worker_is_well_while_its_heartbeat_is_young(place: Place) -> None:
    beat = celery.heartbeat(place.home, "worker-1")
    assert not celery.is_well(place.home, "worker-1", since=0, now=1)
    beat.parent.mkdir(parents=True)
    beat.touch()
    os.utime(beat, (1000, 1000))
    assert celery.is_well(place.home, "worker-1", since=990, now=1010)
    assert not celery.is_well(place.home, "worker-1", since=1001, now=1010), "it is an earlier worker's"
    assert not celery.is_well(place.home, "worker-1", since=990, now=1000 + celery.HEARTBEAT_SECONDS + 1)


def test_workers_are_judged_without_the_web_server(place: Place) -> None:
    beat = celery.heartbeat(place.home, "worker-2")
    beat.parent.mkdir(parents=True)
    beat.touch()
    state = {"workers": 2, "broker": BROKER, "services": {}, "port": 1, "url": ""}
    started = dict.fromkeys(("scheduler", "worker-1", "worker-2"), 1.0)
    judged = servers.health(place.home, state, started)
    assert judged == {"scheduler": None, "worker-1": False, "worker-2": True}


def test_a_worker_is_not_restarted_because_its_broker_is_away() -> None:
    judged = {"scheduler": False, "worker-1": False, "worker-2": True}
    with socket.socket() as broker:
        broker.bind(("127.0.0.1", 0))
        broker.listen()
        state = {"workers": 2, "broker": f"redis://127.0.0.1:{broker.getsockname()[1]}/0"}
        assert servers.to_restart(state, judged) == judged
    assert servers.to_restart(state, judged) == {**judged, "worker-1": None}
