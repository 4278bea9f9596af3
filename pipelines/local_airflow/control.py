"""Starts, stops and looks at the Airflow of one folder; what a person is told of it stands in `pipelines.airflow`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from components.core import processes
from components.errors import TemporaryError, UsageError
from pipelines.local_airflow import database_url, servers, settings
from pipelines.local_airflow.settings import Place

PLACE = "place.json"
STOP_SECONDS = 60
SWEEP_SECONDS = 15
UNAVAILABLE = 69
"""Exit code of `infra/airflow_prepare.py` where the broker is missing; its last line says why."""

Say = Callable[[str, str], None]
"""Tells a person something: text and level."""


def build_environment(project: Path) -> None:
    """Builds Airflow's own Python environment where it is missing or old.

    Args:
        project: The checkout.

    Raises:
        UsageError: It is no checkout, or the environment can't be built.
    """
    script = project / "infra" / "airflow_setup.sh"
    if not script.is_file():
        raise UsageError(
            f"{project} is no checkout of histoline: infra/airflow_setup.sh and dags/ are missing.",
            "Clone the project and run `make airflow` there.",
        )
    if subprocess.run(["bash", str(script)], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise UsageError("Airflow's environment .venv-airflow could not be built.", "The lines above say why.")


def same(place: Place, state: dict[str, Any], port: int | None) -> Place:
    """The running place, which must be the wanted one.

    Args:
        place: What is wanted.
        state: Of what runs.
        port: The wanted one; None for any.

    Raises:
        UsageError: Something else runs.
    """
    running = {
        "workspace": (str(place.workspace), state["workspace"]),
        "data roots": (list(place.data_roots), state["data_roots"]),
        "metadata base": (place.database, state["database"]),
        "number of workers": (place.workers, state.get("workers", 0)),
        "broker": (place.broker, state.get("broker", "")),
        "port": (port or state["port"], state["port"]),
    }
    other = [name for name, (wanted, is_now) in running.items() if wanted != is_now]
    if other:
        raise UsageError(
            f"Airflow runs already at {state['url']} with another {' and another '.join(other)}.",
            "Run `histoline airflow down` first, or use another --home.",
        )
    return dataclasses.replace(place, port=state["port"])


def start(place: Place, supervisor: list[str], exact_port: bool, wait: float, say: Say) -> tuple[Place, dict[str, Any]]:
    """Starts all servers; on another port where somebody was quicker to take the one that was free.

    Args:
        place: What to start; its port is the first to try.
        supervisor: Command of the supervisor, which finds the place by `read_place`.
        exact_port: Refuse any other port.
        wait: Seconds until all must be healthy.
        say: See `Say`.

    Returns:
        The place with its port, and `status` with the seconds that it took.

    Raises:
        UsageError: The port is taken, or the metadata base can't be prepared.
        TemporaryError: It was not healthy in time.
    """
    started = time.monotonic()
    while True:
        place = dataclasses.replace(place, port=settings.free_port(place.port, exact_port))
        settings.write_configuration(place)
        _prepare(place)
        _start_supervisor(place, supervisor)
        try:
            return place, wait_until_healthy(place, started, wait, say)
        except PortLostError:
            say(f"Port {place.port} was taken by another process meanwhile.", "warning")
            stop(place.home)


class PortLostError(Exception):
    """Another process answers on the port of the web server, which could not be started."""


def _prepare(place: Place) -> None:
    log = place.home / "servers" / "prepare.log"
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [str(place.python), str(place.project / "infra" / "airflow_prepare.py")]
    environment = settings.server_environment(place, os.environ)
    with _private(log, os.O_TRUNC) as output:
        done = subprocess.run(
            argv, env=environment, cwd=place.home, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            umask=settings.PRIVATE_UMASK,
        )  # fmt: skip
    if done.returncode == UNAVAILABLE:
        raise TemporaryError(_tail(log, 1), "Then run `histoline airflow up` again.")
    if done.returncode:
        tail = _tail(log, 5)
        raise UsageError(
            f"The metadata base {database_url.hide_password(place.database)} could not be prepared: {tail}",
            f"All that was said is in {log}.",
        )


def _private(log: Path, how: int) -> IO[bytes]:
    """A log that only its owner may read, open for writing."""
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | how, 0o600), "wb")


def _tail(log: Path, lines: int) -> str:
    try:
        return " / ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return "nothing was said"


def _start_supervisor(place: Place, argv: list[str]) -> None:
    document = {name: str(value) for name, value in dataclasses.asdict(place).items()}
    document["data_roots"] = json.dumps(place.data_roots)
    settings.write_private(place.home / PLACE, json.dumps(document, indent=1) + "\n")
    with _private(place.home / "servers" / "supervisor.log", os.O_APPEND) as output:
        process = subprocess.Popen(
            argv,
            cwd=place.project,
            # The data base's password stands in a private file: it need not live in a process's environment, too.
            env={name: v for name, v in os.environ.items() if name not in settings.NEVER_HANDED_ON},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while not servers.supervisor_lives(servers.read_state(place.home)):
        if process.poll() is not None or time.monotonic() > deadline:
            log = place.home / "servers" / "supervisor.log"
            raise TemporaryError(f"The supervisor did not start: {_tail(log, 3)}", f"See {log}.")
        time.sleep(0.05)


def last_place(folder: Path) -> Place | None:
    """What was started last in a folder; None where nothing was."""
    try:
        return read_place(folder)
    except (UsageError, KeyError):
        return None


def read_place(folder: Path) -> Place:
    """What `start` has left for the supervisor.

    Raises:
        UsageError: Nothing was started there.
    """
    try:
        document = json.loads((folder / PLACE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no Airflow that `histoline airflow up` has made.") from error
    return Place(
        home=folder,
        project=Path(document["project"]),
        python=Path(document["python"]),
        port=int(document["port"]),
        database=document["database"],
        workspace=Path(document["workspace"]),
        data_roots=tuple(json.loads(document["data_roots"])),
        command=Path(document["command"]),
        workers=int(document.get("workers", 0)),  # an older version knew no workers
        broker=document.get("broker", ""),
    )


def wait_until_healthy(place: Place, started: float, wait: float, say: Say) -> dict[str, Any]:
    """Waits for all servers; returns `status` with the seconds since `started` (monotonic).

    Raises:
        PortLostError: Another process answers on the port.
        TemporaryError: It took longer than `wait` seconds.
    """
    deadline = time.monotonic() + wait
    announced = False
    while True:
        document = status(place.home)
        if document["healthy"]:
            return {**document, "seconds": round(time.monotonic() - started, 1)}
        if not announced:
            say(f"Starting Airflow at {place.url} (its logs: {place.home / 'servers'}) ...", "info")
            announced = True
        if servers.lost_its_port(servers.read_state(place.home)):
            raise PortLostError
        if time.monotonic() > deadline:
            ill = {name: server for name, server in document["services"].items() if not server["healthy"]}
            tails = "; ".join(f"{name}: {_tail(place.home / 'servers' / f'{name}.log', 2)}" for name in ill)
            raise TemporaryError(
                f"Airflow was not healthy after {wait:g} s ({tails}).",
                "It goes on trying: look with `histoline airflow status`, or stop it with `histoline airflow down`.",
            )
        time.sleep(0.25)


def status(folder: Path) -> dict[str, Any]:
    """What runs in a folder, and how it is.

    Returns:
        `state` is `up`, `down`, or `unsupervised` where servers outlived their supervisor.
    """
    state = servers.read_state(folder)
    if state is None:
        return {"state": "down", "healthy": False, "url": None, "services": {}, "home": str(folder)}
    supervised = servers.supervisor_lives(state)
    alive = {
        name: server["pid"] is not None and processes.is_alive(server["pid"], server["started"])
        for name, server in state["services"].items()
    }
    since = {name: _started_unix(server) for name, server in state["services"].items() if alive[name]}
    health = servers.health(folder, state, since)
    rows = {
        name: {
            "pid": server["pid"] if alive[name] else None,
            "alive": alive[name],
            "healthy": bool(health.get(name)),
            "since": server["since"],
            "restarts": server["restarts"],
            "last_event": server["last_event"],
        }
        for name, server in state["services"].items()
    }
    well = supervised and bool(rows) and all(row["healthy"] for row in rows.values())
    return {
        "state": "up" if supervised else "unsupervised" if any(alive.values()) else "down",
        "healthy": well,
        "url": state["url"],
        "port": state["port"],
        "workspace": state["workspace"],
        "data_roots": state["data_roots"],
        "database": database_url.hide_password(state["database"]),
        "executor": "celery" if state.get("workers") else "local",
        "broker": database_url.hide_password(state.get("broker", "")) or None,
        "passwords": str(folder / "passwords.json"),
        "home": str(folder),
        "supervisor": {"pid": state["supervisor"]["pid"] if supervised else None, "alive": supervised},
        "services": rows,
    }


def _started_unix(service: dict[str, Any]) -> float:
    return datetime.datetime.fromisoformat(service["since"]).timestamp() if service["since"] else 0.0


def sweep(folder: Path, state: dict[str, Any] | None) -> set[int]:
    """Ends what an earlier supervisor left.

    Args:
        folder: AIRFLOW_HOME.
        state: That the supervisor left; None for none.

    Returns:
        Numbers of the processes that were found.

    Raises:
        TemporaryError: Something does not end.
    """
    found = servers.left_behind(folder, state)
    if found:
        left = processes.end(lambda: servers.left_behind(folder, state), grace=SWEEP_SECONDS)
        if left:
            raise TemporaryError(
                f"Processes {sorted(left)} of {folder} do not end.", "They hang in the system: look at their files."
            )
    (folder / servers.STATE).unlink(missing_ok=True)
    return found


def stop(folder: Path) -> set[int]:
    """Ends everything of a home; returns what was found."""
    state = servers.read_state(folder)
    found = servers.left_behind(folder, state)
    if servers.supervisor_lives(state):
        assert state is not None
        os.kill(state["supervisor"]["pid"], signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while servers.supervisor_lives(state) and time.monotonic() < deadline:
            time.sleep(0.1)
    # Read again: the supervisor may have started something since.
    return found | sweep(folder, servers.read_state(folder) or state)
