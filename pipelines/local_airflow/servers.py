"""Airflow's servers and workers: their commands, their health, and the state that their supervisor leaves in a file."""

from __future__ import annotations

import datetime
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core import processes
from pipelines.local_airflow import celery
from pipelines.local_airflow.settings import Place, write_private
from pipelines.local_airflow.supervisor import Service

HEALTH = "/api/v2/monitor/health"
HEALTH_SECONDS = 10
STATE = "servers.json"


def services(place: Place, environ: Mapping[str, str]) -> tuple[Service, ...]:
    """Scheduler, DAG processor, Celery's workers and web server; in the order in which they stop.

    The web server is last, so that tasks which are ended can still say so.

    Args:
        place: Where.
        environ: Of the servers: names the queues that workers listen to.
    """
    airflow = (str(place.python), "-m", "airflow")
    logs = place.home / "servers"
    commands = {
        # Its log server would listen on all interfaces; with tasks on this machine nobody needs it.
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
    }
    listened = ",".join(dict.fromkeys([*celery.queues(environ).values(), celery.QUEUES["HISTOLINE_QUEUE"]]))
    workers = [
        Service(
            name,
            (
                str(place.python), str(place.project / "infra" / "airflow_worker.py"), "--celery-hostname",
                f"{name}@%h", "--queues", listened, "--skip-serve-logs", "--without-mingle", "--without-gossip",
            ),
            logs / f"{name}.log",
            celery.folder(place.home, name),
            {
                "TMPDIR": str(celery.folder(place.home, name)),
                "HISTOLINE_WORKER_HEARTBEAT": str(celery.heartbeat(place.home, name)),
            },
        )
        for name in celery.names(place.workers)
    ]  # fmt: skip
    return (
        *(Service(name, (*airflow, *command), logs / f"{name}.log") for name, command in commands.items()),
        *workers,
        Service("api-server", (*airflow, "api-server"), logs / "api-server.log"),
    )


def query_health(url: str) -> dict[str, Any] | None:
    """What the web server says of the health of all; None where it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # 127.0.0.1 is never behind a proxy
    try:
        with opener.open(url + HEALTH, timeout=HEALTH_SECONDS) as answer:
            health = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return health if isinstance(health, dict) else None


def own_health(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What our own web server says of the health of all; None where it does not answer.

    Another Airflow may have taken the port between our look and our server's start: it would answer, too.
    """
    server = state["services"].get("api-server") if state else None
    if state is None or not server or not server["pid"]:
        return None
    own = processes.in_sessions({server["pid"]: server["started"]})
    return query_health(state["url"]) if state["port"] in processes.listening(own) else None


def lost_its_port(state: Mapping[str, Any] | None) -> bool:
    """Says whether the web server died and somebody else answers on its port."""
    server = state["services"].get("api-server") if state else None
    if state is None or not server or not server["restarts"] or own_health(state) is not None:
        return False
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", state["port"])) == 0


def judge(answer: Mapping[str, Any] | None, started: Mapping[str, float]) -> dict[str, bool | None]:
    """Health of each server that was started, from what the web server says.

    Args:
        answer: Its answer; None for none.
        started: Unix time at which each was started. A heartbeat from before it is an earlier process's.

    Returns:
        True, False, or None where it is unknown because the web server does not answer.
    """
    if answer is None:
        return {name: False if name == "api-server" else None for name in started}
    health: dict[str, bool | None] = {}
    for name, since in started.items():
        if name == "api-server":
            health[name] = (answer.get("metadatabase") or {}).get("status") == "healthy"
            continue
        key = name.replace("-", "_")
        part = answer.get(key) or {}
        beat = part.get(f"latest_{key}_heartbeat")
        health[name] = part.get("status") == "healthy" and _unix(beat) >= since
    return health


def health(home: Path, state: Mapping[str, Any] | None, started: Mapping[str, float]) -> dict[str, bool | None]:
    """Health of each server and worker that was started; see `judge`.

    Args:
        home: AIRFLOW_HOME.
        state: That the supervisor left.
        started: Unix time at which each was started.
    """
    workers = celery.names(state.get("workers", 0)) if state else ()
    judged = judge(own_health(state), {name: since for name, since in started.items() if name not in workers})
    now = time.time()
    return judged | {name: celery.is_well(home, name, started[name], now) for name in workers if name in started}


def to_restart(state: Mapping[str, Any], judged: Mapping[str, bool | None]) -> dict[str, bool | None]:
    """Health as it counts towards a restart: a worker that can't reach its broker is not to blame.

    It goes on with its tasks, and connects again by itself; a restart would end them.
    """
    workers = celery.names(state.get("workers", 0))
    if all(judged.get(name, True) for name in workers) or celery.broker_answers(state["broker"]):
        return dict(judged)
    return {name: None if name in workers and not well else well for name, well in judged.items()}


def _unix(moment: object) -> float:
    try:
        # Python 3.10 knows neither Z nor fractions of any length; a whole second is enough here.
        return datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", str(moment)).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def write_state(place: Place, supervisor: processes.Process, states: Mapping[str, Any]) -> None:
    """Leaves the state where `read_state` finds it."""
    document = {
        "boot": processes.boot_id(),
        "url": place.url,
        "port": place.port,
        "workspace": str(place.workspace),
        "data_roots": list(place.data_roots),
        "database": place.database,
        "workers": place.workers,
        "broker": place.broker,
        "supervisor": {"pid": supervisor.pid, "started": supervisor.started},
        "services": dict(states),
    }
    write_private(place.home / STATE, json.dumps(document, indent=1) + "\n")


def read_state(home: Path) -> dict[str, Any] | None:
    """The state that the last supervisor left; None where there is none of this boot."""
    try:
        document = json.loads((home / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("boot") != processes.boot_id():
        return None  # those processes went with the machine, and their numbers may be others' now
    return document


def supervisor_lives(state: Mapping[str, Any] | None) -> bool:
    """Says whether the supervisor that wrote a state still lives."""
    return state is not None and processes.is_alive(state["supervisor"]["pid"], state["supervisor"]["started"])


def left_behind(home: Path, state: Mapping[str, Any] | None) -> set[int]:
    """Numbers of all processes of this home that live: supervisor, servers, tasks, steps."""
    noted = [state["supervisor"], *state["services"].values()] if state else []
    sessions = {process["pid"]: process["started"] for process in noted if process.get("pid")}
    return processes.in_sessions(sessions) | processes.marked(str(home))
