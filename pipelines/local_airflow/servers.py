"""Airflow's three servers: their commands, their health, and the state that their supervisor leaves in a file."""

from __future__ import annotations

import datetime
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core import processes
from pipelines.local_airflow.settings import Place, write_private
from pipelines.local_airflow.supervisor import Service

HEALTH = "/api/v2/monitor/health"
HEALTH_SECONDS = 10
STATE = "servers.json"


def services(place: Place) -> tuple[Service, ...]:
    """Scheduler, DAG processor and web server; in the order in which they stop.

    The web server is last, so that tasks which are ended can still say so.
    """
    airflow = (str(place.python), "-m", "airflow")
    commands = {
        # Its log server would listen on all interfaces; with tasks on this machine nobody needs it.
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        "api-server": ("api-server",),
    }
    return tuple(
        Service(name, (*airflow, *command), place.home / "servers" / f"{name}.log")
        for name, command in commands.items()
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


def _unix(time: object) -> float:
    try:
        # Python 3.10 knows neither Z nor fractions of any length; a whole second is enough here.
        return datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", str(time)).replace("Z", "+00:00")).timestamp()
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
