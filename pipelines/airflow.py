"""Starts, stops and shows the local Airflow: web pages from which runs are triggered, scheduled and watched."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from components import airflow_servers, airflow_settings, process_tree
from components.airflow_settings import Place
from components.data_roots import read_roots
from components.errors import TemporaryError, UsageError
from components.storage_lock import hold_flock
from components.supervisor import Supervisor
from pipelines import console
from pipelines.datasets import json_option

PROJECT = Path(__file__).resolve().parents[1]
PLACE = "place.json"
STOP_SECONDS = 60

home_option = click.option(
    "--home",
    envvar="HISTOLINE_AIRFLOW_HOME",
    default=str(PROJECT / ".airflow"),
    show_default=".airflow in the checkout",
    help="Airflow's own folder: settings, passwords, logs, SQLite file.",
)


@click.group("airflow")
def command() -> None:
    """Start, stop or show Airflow on this machine."""


def _home(home: str) -> Path:
    return Path(home).expanduser().resolve()


def _locked(home: Path) -> Any:
    airflow_settings.make_home(home)
    return hold_flock(home / "up.lock", "histoline airflow", 60, 0.2)


@command.command("up")
@home_option
@click.option("--workspace", envvar="HISTOLINE_WORKSPACE", default="workspace", show_default=True,
              help="Local or mounted folder of data sets, runs and models.")  # fmt: skip
@click.option("--data-root", "data_roots", multiple=True,
              help="Folder that raw patches may be read from; may be given often. Any folder without it.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=None,
              help=f"On 127.0.0.1. By default {airflow_settings.DEFAULT_PORT}, or the next free one.")  # fmt: skip
@click.option("--database", envvar="HISTOLINE_AIRFLOW_DATABASE", default="",
              help="postgresql://USER:PASSWORD@HOST:PORT/NAME; an SQLite file in --home by default.")  # fmt: skip
@click.option("--wait", type=click.FloatRange(1), default=240.0, show_default=True,
              help="Seconds until all must be healthy.")  # fmt: skip
@json_option
def up(
    home: str,
    workspace: str,
    data_roots: tuple[str, ...],
    port: int | None,
    database: str,
    wait: float,
    as_json: bool,
) -> None:
    """Start the servers, or say where they are if they run already."""
    folder = _home(home)
    roots = data_roots or read_roots()
    place = Place(
        home=folder,
        project=PROJECT,
        python=PROJECT / ".venv-airflow" / "bin" / "python",
        port=port or airflow_settings.DEFAULT_PORT,
        database=airflow_settings.metadata_database(folder, database),
        workspace=airflow_settings.local_workspace(workspace),
        data_roots=tuple(r if "://" in r else str(Path(r).expanduser().absolute()) for r in roots),
        command=Path(os.environ.get("HISTOLINE_COMMAND", Path(sys.executable).parent / "histoline")).absolute(),
    )
    started = time.monotonic()
    _build_environment()
    with _locked(folder):
        state = airflow_servers.read_state(folder)
        if airflow_servers.supervisor_lives(state):
            assert state is not None
            place = _same(place, state, port)
            document = _wait_until_healthy(place, started, wait)
        else:
            _sweep(folder, state)
            place, document = _start(place, port is not None, started, wait)
    console.emit(document, as_json, lambda: _show_up(place, document))


def _start(place: Place, exact_port: bool, started: float, wait: float) -> tuple[Place, dict[str, Any]]:
    """Starts all servers; on another port where somebody was quicker to take the one that was free."""
    while True:
        place = dataclasses.replace(place, port=airflow_settings.free_port(place.port, exact_port))
        airflow_settings.write_configuration(place)
        _prepare(place)
        _start_supervisor(place)
        try:
            return place, _wait_until_healthy(place, started, wait)
        except PortLostError:
            console.log(f"Port {place.port} was taken by another process meanwhile.", "warning")
            _stop(place.home)


class PortLostError(Exception):
    """Another process answers on the port of the web server, which could not be started."""


def _build_environment() -> None:
    script = PROJECT / "infra" / "airflow_setup.sh"
    if not script.is_file():
        raise UsageError(
            f"{PROJECT} is no checkout of histoline: infra/airflow_setup.sh and dags/ are missing.",
            "Clone the project and run `make airflow` there.",
        )
    if subprocess.run(["bash", str(script)], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise UsageError("Airflow's environment .venv-airflow could not be built.", "The lines above say why.")


def _same(place: Place, state: dict[str, Any], port: int | None) -> Place:
    """The running place, which must be the wanted one."""
    running = {
        "workspace": (str(place.workspace), state["workspace"]),
        "data roots": (list(place.data_roots), state["data_roots"]),
        "metadata base": (place.database, state["database"]),
        "port": (port or state["port"], state["port"]),
    }
    other = [name for name, (wanted, is_now) in running.items() if wanted != is_now]
    if other:
        raise UsageError(
            f"Airflow runs already at {state['url']} with another {' and another '.join(other)}.",
            "Run `histoline airflow down` first, or use another --home.",
        )
    return dataclasses.replace(place, port=state["port"])


def _sweep(folder: Path, state: dict[str, Any] | None) -> set[int]:
    """Ends what an earlier supervisor left; returns what was found."""
    found = airflow_servers.left_behind(folder, state)
    if found:
        left = process_tree.end(lambda: airflow_servers.left_behind(folder, state), grace=15)
        if left:
            raise TemporaryError(
                f"Processes {sorted(left)} of {folder} do not end.", "They hang in the system: look at their files."
            )
    (folder / airflow_servers.STATE).unlink(missing_ok=True)
    return found


def _prepare(place: Place) -> None:
    log = place.home / "servers" / "prepare.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(place.python), str(PROJECT / "infra" / "airflow_prepare.py")]
    environment = airflow_settings.server_environment(place, os.environ)
    with log.open("wb") as output:
        done = subprocess.run(
            argv, env=environment, cwd=place.home, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        tail = _tail(log, 5)
        raise UsageError(
            f"The metadata base {airflow_settings.hide_password(place.database)} could not be prepared: {tail}",
            f"All that was said is in {log}.",
        )


def _tail(log: Path, lines: int) -> str:
    try:
        return " / ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return "nothing was said"


def _start_supervisor(place: Place) -> None:
    document = {name: str(value) for name, value in dataclasses.asdict(place).items()}
    document["data_roots"] = json.dumps(place.data_roots)
    airflow_settings.write_private(place.home / PLACE, json.dumps(document, indent=1) + "\n")
    with (place.home / "servers" / "supervisor.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.airflow", "supervise", "--home", str(place.home)],
            cwd=PROJECT,
            # The data base's password stands in a private file: it need not live in a process's environment, too.
            env={name: v for name, v in os.environ.items() if name not in airflow_settings.NEVER_HANDED_ON},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while not airflow_servers.supervisor_lives(airflow_servers.read_state(place.home)):
        if process.poll() is not None or time.monotonic() > deadline:
            log = place.home / "servers" / "supervisor.log"
            raise TemporaryError(f"The supervisor did not start: {_tail(log, 3)}", f"See {log}.")
        time.sleep(0.05)


def _read_place(folder: Path) -> Place:
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
    )


def _wait_until_healthy(place: Place, started: float, wait: float) -> dict[str, Any]:
    deadline = time.monotonic() + wait
    said = False
    while True:
        document = _status(place.home)
        if document["healthy"]:
            return {**document, "seconds": round(time.monotonic() - started, 1)}
        if not said:
            console.log(f"Starting Airflow at {place.url} (its logs: {place.home / 'servers'}) ...")
            said = True
        if airflow_servers.lost_its_port(airflow_servers.read_state(place.home)):
            raise PortLostError
        if time.monotonic() > deadline:
            ill = {name: one for name, one in document["services"].items() if not one["healthy"]}
            tails = "; ".join(f"{name}: {_tail(place.home / 'servers' / f'{name}.log', 2)}" for name in ill)
            raise TemporaryError(
                f"Airflow was not healthy after {wait:g} s ({tails}).",
                "It goes on trying: look with `histoline airflow status`, or stop it with `histoline airflow down`.",
            )
        time.sleep(0.25)


def _show_up(place: Place, document: dict[str, Any]) -> None:
    click.echo(f"Airflow is healthy at {place.url} (after {document['seconds']} s).")
    click.echo(f"Users admin and viewer; their passwords: {place.passwords}")
    click.echo(f"Workspace: {place.workspace}")
    click.echo(f"Raw patches may be read from: {', '.join(place.data_roots) or 'any folder (--data-root narrows it)'}")
    click.echo("Stop it with `histoline airflow down`.")


def _status(folder: Path) -> dict[str, Any]:
    """What runs, and how it is; see `status`."""
    state = airflow_servers.read_state(folder)
    if state is None:
        return {"state": "down", "healthy": False, "url": None, "services": {}, "home": str(folder)}
    supervised = airflow_servers.supervisor_lives(state)
    alive = {
        name: one["pid"] is not None and process_tree.is_alive(one["pid"], one["started"])
        for name, one in state["services"].items()
    }
    told = airflow_servers.hear(state)
    since = {name: _started_unix(one) for name, one in state["services"].items() if alive[name]}
    health = airflow_servers.judge(told, since)
    rows = {
        name: {
            "pid": one["pid"] if alive[name] else None,
            "alive": alive[name],
            "healthy": bool(health.get(name)),
            "since": one["since"],
            "restarts": one["restarts"],
            "said": one["said"],
        }
        for name, one in state["services"].items()
    }
    well = supervised and bool(rows) and all(row["healthy"] for row in rows.values())
    return {
        "state": "up" if supervised else "unsupervised" if any(alive.values()) else "down",
        "healthy": well,
        "url": state["url"],
        "port": state["port"],
        "workspace": state["workspace"],
        "data_roots": state["data_roots"],
        "database": airflow_settings.hide_password(state["database"]),
        "passwords": str(folder / "passwords.json"),
        "home": str(folder),
        "supervisor": {"pid": state["supervisor"]["pid"] if supervised else None, "alive": supervised},
        "services": rows,
    }


def _started_unix(service: dict[str, Any]) -> float:
    import datetime

    return datetime.datetime.fromisoformat(service["since"]).timestamp() if service["since"] else 0.0


@command.command("status")
@home_option
@json_option
def status(home: str, as_json: bool) -> None:
    """Show each process and its health; exit code 75 where not all is well."""
    document = _status(_home(home))

    def show() -> None:
        if document["state"] == "down":
            click.echo("Airflow is not running. Start it with `histoline airflow up`.")
            return
        click.echo(f"{document['url']}: {'healthy' if document['healthy'] else 'not healthy'}")
        pid = document["supervisor"]["pid"]
        rows = [("supervisor", pid or "", "alive" if pid else "dead: run `histoline airflow up`", "", "")]
        for name, one in document["services"].items():
            how = "healthy" if one["healthy"] else "alive, not healthy" if one["alive"] else "dead"
            rows.append((name, one["pid"] or "", how, one["since"], one["restarts"]))
        console.table("", ("process", "pid", "state", "since", "restarts"), rows, right=(1, 4))
        for name, one in document["services"].items():
            if one["said"]:
                click.echo(f"{name}: {one['said']}")

    console.emit(document, as_json, show)
    if document["state"] != "down" and not document["healthy"]:
        raise TemporaryError("Not all of Airflow is healthy.", f"See the logs in {_home(home) / 'servers'}.")


@command.command("down")
@home_option
@json_option
def down(home: str, as_json: bool) -> None:
    """Stop the servers, and every task and step with them."""
    folder = _home(home)
    if not folder.is_dir():
        console.emit({"stopped": 0}, as_json, lambda: click.echo("Airflow is not running."))
        return
    with _locked(folder):
        found = _stop(folder)
    said = f"Airflow is stopped ({len(found)} processes)." if found else "Airflow is not running."
    console.emit({"stopped": len(found)}, as_json, lambda: click.echo(said))


def _stop(folder: Path) -> set[int]:
    """Ends everything of a home; returns what was found."""
    state = airflow_servers.read_state(folder)
    found = airflow_servers.left_behind(folder, state)
    if airflow_servers.supervisor_lives(state):
        assert state is not None
        os.kill(state["supervisor"]["pid"], signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while airflow_servers.supervisor_lives(state) and time.monotonic() < deadline:
            time.sleep(0.1)
    # Read again: the supervisor may have started something since.
    return found | _sweep(folder, airflow_servers.read_state(folder) or state)


@command.command("supervise", hidden=True)
@home_option
def supervise(home: str) -> None:
    """Run the servers in this process's care until it is told to stop (`up` starts this)."""
    place = _read_place(_home(home))
    me = process_tree.read_process(os.getpid())
    assert me is not None, "/proc does not show this process"
    airflow_servers.write_state(place, me, {})

    def probe(started: Mapping[str, float]) -> dict[str, bool | None]:
        return airflow_servers.judge(airflow_servers.hear(airflow_servers.read_state(place.home)), started)

    supervisor = Supervisor(
        services=airflow_servers.services(place),
        environment=airflow_settings.server_environment(place, os.environ),
        folder=place.home,
        probe=probe,
        save=lambda states: airflow_servers.write_state(place, me, states),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor.run()


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.airflow")))
