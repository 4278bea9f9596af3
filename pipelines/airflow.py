"""Starts, stops and shows the local Airflow: web pages from which runs are triggered, scheduled and watched."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from components.core import processes
from components.core.data_roots import read_roots
from components.errors import TemporaryError, UsageError
from components.storage.local_lock import Flock, hold_flock
from pipelines import console
from pipelines.local_airflow import celery, control, database_url, servers, settings
from pipelines.local_airflow.settings import Place
from pipelines.local_airflow.supervisor import Supervisor
from pipelines.options import json_option, workspace_option

PROJECT = Path(__file__).resolve().parents[1]

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


def _locked(home: Path) -> AbstractContextManager[Flock]:
    settings.make_home(home)
    return hold_flock(home / "up.lock", "histoline airflow", 60, 0.2)


@command.command("up")
@home_option
@workspace_option("Local or mounted folder of data sets, runs and models.")
@click.option("--data-root", "data_roots", multiple=True,
              help="Folder that raw patches may be read from; may be given often. Any folder without it.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=None,
              help=f"On 127.0.0.1. By default {settings.DEFAULT_PORT}, or the next free one.")  # fmt: skip
@click.option("--database", envvar="HISTOLINE_AIRFLOW_DATABASE", default="",
              help="postgresql://USER@HOST:PORT/NAME; a URL with a password stands in HISTOLINE_AIRFLOW_DATABASE or in"
              " a file of mode 0600 (--database @FILE). An SQLite file in --home by default.")  # fmt: skip
@click.option("--executor", type=click.Choice(["local", "celery"]), default=None,
              help="Who runs the tasks: the scheduler's own processes, or Celery's workers, which need PostgreSQL and a"
              " broker.  [default: local]")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), default=None,
              help="Celery workers on this machine.  [default: 2]")  # fmt: skip
@click.option("--broker", envvar=celery.BROKER_VARIABLE, default="",
              help="Celery's broker, redis://HOST:PORT/NUMBER; a URL with a password stands in"
              f" {celery.BROKER_VARIABLE} or in a file of mode 0600 (--broker @FILE).")  # fmt: skip
@click.option("--wait", type=click.FloatRange(1), default=240.0, show_default=True,
              help="Seconds until all must be healthy.")  # fmt: skip
@json_option
@click.pass_context
def up(
    context: click.Context,
    home: str,
    workspace: str,
    data_roots: tuple[str, ...],
    port: int | None,
    database: str,
    executor: str | None,
    workers: int | None,
    broker: str,
    wait: float,
    as_json: bool,
) -> None:
    """Start the servers, or say where they are if they run already.

    What is not said is as it was at the last start in this --home: workspace, data roots, metadata base, executor,
    workers and broker.
    """
    folder = _home(home)
    if _was_typed(context, "database"):
        database_url.refuse_visible_password(database, "--database", "HISTOLINE_AIRFLOW_DATABASE")
    if _was_typed(context, "broker"):
        database_url.refuse_visible_password(broker, "--broker", celery.BROKER_VARIABLE)
    before = control.last_place(folder)
    if before is not None:
        # A start with other places would leave the same DAGs looking for their runs where they are not.
        workspace = workspace if _was_given(context, "workspace") else str(before.workspace)
        roots = data_roots or read_roots() or before.data_roots
        database = database or database_url.kept_database(before.database)
        executor = executor or ("celery" if before.workers else "local")
        workers = workers or (before.workers if executor == "celery" else None)
        broker = broker or before.broker
        port_first = before.port
    else:
        roots, port_first = data_roots or read_roots(), settings.DEFAULT_PORT
    metadata = database_url.metadata_database(folder, database)
    workers, broker = _workers(executor or "local", workers, broker, metadata)
    place = Place(
        home=folder,
        project=PROJECT,
        python=PROJECT / ".venv-airflow" / "bin" / "python",
        port=port or port_first,
        database=metadata,
        workspace=settings.local_workspace(workspace),
        data_roots=settings.existing_roots(roots),
        command=Path(os.environ.get("HISTOLINE_COMMAND", Path(sys.executable).parent / "histoline")).absolute(),
        workers=workers,
        broker=broker,
    )
    control.build_environment(PROJECT)
    with _locked(folder):
        state = servers.read_state(folder)
        if servers.supervisor_lives(state):
            assert state is not None
            place = control.same(place, state, port)
            document = control.wait_until_healthy(place, time.monotonic(), wait, console.log)
        else:
            control.sweep(folder, state)
            supervisor = [sys.executable, "-m", "pipelines.airflow", "supervise", "--home", str(folder)]
            place, document = control.start(place, supervisor, port is not None, wait, console.log)
    console.emit(document, as_json, lambda: _show_up(place, document))


def _workers(executor: str, workers: int | None, broker: str, database: str) -> tuple[int, str]:
    """Number of Celery's workers and URL of their broker; 0 and nothing for the local executor."""
    if executor == "local":
        if workers:
            raise UsageError("--workers is for --executor celery.", "Add it, or leave --workers out.")
        return 0, ""
    celery.refuse_sqlite(database)
    return workers or 2, celery.broker_url(broker)


def _was_given(context: click.Context, name: str) -> bool:
    """Whether a value was typed or stands in the environment."""
    return context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _was_typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _show_up(place: Place, document: dict[str, Any]) -> None:
    click.echo(f"Airflow is healthy at {place.url} (after {document['seconds']} s).")
    click.echo(f"Users admin and viewer; their passwords: {place.passwords}")
    click.echo(f"Workspace: {place.workspace}")
    click.echo(f"Raw patches may be read from: {', '.join(place.data_roots) or 'any folder (--data-root narrows it)'}")
    if place.workers:
        click.echo(f"Celery workers: {place.workers}, broker {database_url.hide_password(place.broker)}")
    where = "" if place.home == PROJECT / ".airflow" else f" --home {shlex.quote(str(place.home))}"
    console.say(f"Stop it with `histoline airflow down{where}`.")


@command.command("status")
@home_option
@json_option
def status(home: str, as_json: bool) -> None:
    """Show each process and its health; exit code 75 where not all is well."""
    document = control.status(_home(home))

    def show() -> None:
        if document["state"] == "down":
            console.say("Airflow is not running. Start it with `histoline airflow up`.")
            return
        click.echo(f"{document['url']}: {'healthy' if document['healthy'] else 'not healthy'}")
        pid = document["supervisor"]["pid"]
        dead = console.runnable("dead: run `histoline airflow up`")
        rows = [("supervisor", pid or "", "alive" if pid else dead, "", "")]
        for name, server in document["services"].items():
            how = "healthy" if server["healthy"] else "alive, not healthy" if server["alive"] else "dead"
            rows.append((name, server["pid"] or "", how, server["since"], server["restarts"]))
        console.table("", ("process", "pid", "state", "since", "restarts"), rows, right=(1, 4))
        for name, server in document["services"].items():
            if server["last_event"]:
                click.echo(f"{name}: {server['last_event']}")

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
        found = control.stop(folder)
    message = f"Airflow is stopped ({len(found)} processes)." if found else "Airflow is not running."
    console.emit({"stopped": len(found)}, as_json, lambda: click.echo(message))


@command.command("supervise", hidden=True)
@home_option
def supervise(home: str) -> None:
    """Run the servers in this process's care until it is told to stop (`up` starts this)."""
    place = control.read_place(_home(home))
    me = processes.read_process(os.getpid())
    assert me is not None, "/proc does not show this process"
    servers.write_state(place, me, {})

    def probe(started: Mapping[str, float]) -> dict[str, bool | None]:
        state = servers.read_state(place.home)
        judged = servers.health(place.home, state, started)
        return servers.to_restart(state, judged) if state else judged

    environment = settings.server_environment(place, os.environ)
    os.umask(settings.PRIVATE_UMASK)
    supervisor = Supervisor(
        services=servers.services(place, environment),
        environment=environment,
        folder=place.home,
        probe=probe,
        save=lambda states: servers.write_state(place, me, states),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor.run()


if __name__ == "__main__":
    sys.exit(console.run(lambda: command.main(standalone_mode=False, prog_name="python -m pipelines.airflow")))
