"""Keeps a few servers running: starts them, restarts one that dies or no longer answers, stops them with all children.

It knows nothing of Airflow: what runs, and how its health is asked for, is handed in.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core import processes

LOG_BYTES = 10_000_000


@dataclass(frozen=True)
class Service:
    """One server.

    Attributes:
        name: What people call it.
        argv: Its command.
        log: File that gets its output.
        folder: Its working folder, made where it is missing; the supervisor's where it has none of its own.
        variables: What its environment has beside, or instead of, the supervisor's.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    folder: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How patient a supervisor is; all in seconds, except `failures`.

    Attributes:
        poll: Between two looks at the processes.
        probe_every: Between two questions after health.
        failures: Bad answers in a row after which a live server is restarted. They are counted, not timed, so that a
            machine that slept or was paused restarts nothing.
        backoff_first: Before the first restart; doubles with each further server.
        backoff_most: Before any restart.
        settled: After so long a life, a server's earlier deaths are forgotten.
        grace: Between TERM and KILL.
    """

    poll: float = 0.5
    probe_every: float = 5.0
    failures: int = 24
    backoff_first: float = 1.0
    backoff_most: float = 30.0
    settled: float = 60.0
    grace: float = 10.0


def backoff(deaths: int, limits: Limits) -> float:
    """Seconds to wait before a restart after so many deaths in a row (1 for the first)."""
    return min(limits.backoff_first * 2.0 ** min(deaths - 1, 30), limits.backoff_most)


def now() -> str:
    """This moment in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@dataclass
class _Running:
    service: Service
    process: subprocess.Popen[bytes] | None = None
    started: int = 0  # ticks since boot
    since: str = ""
    since_clock: float = 0.0
    deaths: int = 0
    restarts: int = 0
    due: float = 0.0
    failures: int = 0
    healthy: bool | None = None
    last_event: str = ""

    def state(self) -> dict[str, Any]:
        return {
            "pid": self.process.pid if self.process else None,
            "started": self.started,
            "since": self.since,
            "restarts": self.restarts,
            "healthy": self.healthy,
            "last_event": self.last_event,
        }


@dataclass
class Supervisor:
    """Runs services until it is told to stop.

    Attributes:
        services: In the order of their start; they stop in this order too.
        environment: What each service gets as its whole environment.
        folder: Their working folder.
        probe: Asks for health: service name to True (well), False (not well) or None (can't be told now). It gets the
            Unix time at which each service was started.
        save: Is handed the services' states whenever they change.
        limits: See `Limits`.
    """

    services: Sequence[Service]
    environment: Mapping[str, str]
    folder: Path
    probe: Callable[[Mapping[str, float]], Mapping[str, bool | None]]
    save: Callable[[dict[str, dict[str, Any]]], None]
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._running = {service.name: _Running(service) for service in self.services}
        self._stopping = False
        self._saved: dict[str, dict[str, Any]] = {}

    def stop(self) -> None:
        """Makes `run` stop everything and return; may be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Starts all services and looks after them until `stop`; then ends them and all that they started."""
        probed = time.monotonic()
        try:
            while not self._stopping:
                for server in self._running.values():
                    self._look_at(server)
                if time.monotonic() - probed >= self.limits.probe_every:
                    self._probe()
                    for server in self._running.values():
                        rotate(server.service.log)
                    probed = time.monotonic()
                self._save()
                time.sleep(self.limits.poll)
        finally:
            for server in self._running.values():
                self._end(server)
            self._save()

    def _save(self) -> None:
        states = {name: server.state() for name, server in self._running.items()}
        if states != self._saved:
            self.save(states)
            self._saved = states

    def _look_at(self, server: _Running) -> None:
        if server.process is None:
            if time.monotonic() >= server.due:
                self._start(server)
        elif (code := server.process.poll()) is not None:
            why = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self._restart_later(server, why)

    def _start(self, server: _Running) -> None:
        log = server.service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        rotate(log)
        # Also of a start that fails: measured from an earlier one, it would count as a long life.
        server.since_clock = time.time()
        with log.open("ab") as output:
            output.write(f"--- {now()} {' '.join(server.service.argv)}\n".encode())
            output.flush()
            folder = server.service.folder or self.folder
            try:
                folder.mkdir(parents=True, exist_ok=True)
                server.process = subprocess.Popen(
                    server.service.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**self.environment, **server.service.variables},
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                output.write(f"--- {now()} could not be started: {error}\n".encode())
                self._count_death(server, f"could not be started: {error}")
                return
        found = processes.read_process(server.process.pid)
        server.started = found.started if found else 0
        server.since, server.since_clock, server.failures, server.healthy = now(), time.time(), 0, None
        self._save()  # at once: whatever finds this supervisor dead must know the new process

    def _count_death(self, server: _Running, why: str) -> None:
        lived = time.time() - server.since_clock
        server.deaths = 1 if lived >= self.limits.settled else server.deaths + 1
        wait = backoff(server.deaths, self.limits)
        server.due = time.monotonic() + wait
        server.restarts += 1
        server.healthy = False
        server.last_event = f"{now()} {why}; started again {wait:g} s later"

    def _restart_later(self, server: _Running, why: str) -> None:
        self._end(server)  # a dead scheduler leaves its workers: none may live beside those of the next one
        self._count_death(server, why)
        with server.service.log.open("a", encoding="utf-8") as output:
            output.write(f"--- {server.last_event}\n")

    def _end(self, server: _Running) -> None:
        if server.process is None:
            return
        session = {server.process.pid: server.started}
        processes.end(lambda: processes.in_sessions(session), self.limits.grace, server.process.poll)
        server.process.poll()
        server.process = None

    def _probe(self) -> None:
        alive = {name: server.since_clock for name, server in self._running.items() if server.process is not None}
        answers = self.probe(alive)
        for name, server in self._running.items():
            answer = answers.get(name)
            if server.process is None or answer is None:
                continue
            server.healthy = answer
            server.failures = 0 if answer else server.failures + 1
            if server.failures >= self.limits.failures:
                self._restart_later(server, f"was alive but not well {server.failures} times in a row")


def rotate(log: Path) -> None:
    """Moves what a log holds into a file beside it, once it is long; its writer goes on at the beginning.

    The writer appends (O_APPEND), so a file that is cut short under its hands has no hole.

    Args:
        log: Need not be there.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size <= LOG_BYTES:
            return
        old = log.with_name(log.name + ".1")
        partial = log.with_name(log.name + ".2")
        shutil.copyfile(log, partial)
        partial.replace(old)
        os.truncate(log, 0)


def environment_of(environ: Mapping[str, str], names: Sequence[str], prefixes: Sequence[str]) -> dict[str, str]:
    """The part of an environment that is handed on: only what is named, or begins as named.

    Args:
        environ: Usually `os.environ`.
        names: Variables to hand on.
        prefixes: Beginnings of further ones.
    """
    return {name: value for name, value in environ.items() if name in names or name.startswith(tuple(prefixes))}


def folder_is_private(folder: Path) -> bool:
    """Says whether a folder belongs to this user and is closed to all others."""
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o077
