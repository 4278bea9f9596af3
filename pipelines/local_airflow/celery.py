"""Celery's workers: what Airflow is told of them, their broker's address, and how it is known that they are well."""

from __future__ import annotations

import json
import socket
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from components.errors import UsageError
from pipelines.local_airflow import database_url

BROKER_VARIABLE = "HISTOLINE_AIRFLOW_BROKER"
QUEUES = {"HISTOLINE_QUEUE": "cpu", "HISTOLINE_GPU_QUEUE": "gpu"}
"""The queues of dags/settings.toml, by the variable that names them, and what they are called here."""

CONCURRENCY = 2
"""Tasks that one worker runs at a time: a step on the device, and another one."""

VISIBILITY_SECONDS = 14 * 24 * 3600
"""After so long Redis gives a task that nobody has acknowledged to another worker: the longest limit of any task."""

HEARTBEAT_SECONDS = 30.0
"""Older than this, a heartbeat says nothing; there is one every 2 s."""


def broker_url(url: str) -> str:
    """The broker's URL, with a port and a data base.

    Args:
        url: As typed; `@FILE` stands in a private file.

    Raises:
        UsageError: It is missing or names no Redis.
    """
    url = database_url.from_private_file(url, "--broker")
    parts = urllib.parse.urlsplit(url)
    try:
        right = parts.scheme == "redis" and bool(parts.hostname) and (parts.path[1:] or "0").isdigit()
        port = parts.port or 6379
    except ValueError:  # a port that is no number
        right, port = False, 0
    if not right:
        raise UsageError(
            "Celery needs a broker, and it must be a Redis URL." if url else "Celery needs a broker: a Redis server.",
            f"Write --broker redis://HOST:PORT/NUMBER; one with a password stands in {BROKER_VARIABLE} or in a file of"
            " mode 0600 (--broker @FILE). Debian: apt-get install redis-server.",
        )
    where = parts.netloc if parts.port else f"{parts.netloc}:{port}"
    return parts._replace(netloc=where, path=f"/{parts.path.strip('/') or 0}").geturl()


def refuse_sqlite(database: str) -> None:
    """Refuses a metadata base that several workers can't use at once.

    Raises:
        UsageError: It is a file.
    """
    if database.startswith("sqlite"):
        raise UsageError(
            "With --executor celery the metadata base must be PostgreSQL: the workers keep their results in it, too.",
            "Write --database postgresql://USER@HOST:PORT/NAME (a URL with a password stands in"
            " HISTOLINE_AIRFLOW_DATABASE or in --database @FILE), or leave --executor celery out.",
        )


def configuration(broker: str, database: str) -> dict[str, dict[str, str]]:
    """Sections of airflow.cfg that only workers need."""
    return {
        "operators": {"default_queue": QUEUES["HISTOLINE_QUEUE"]},
        "celery": {
            "broker_url": broker,
            "result_backend": f"db+{database}",
            "worker_concurrency": str(CONCURRENCY),
            "sync_parallelism": "1",
            # A broker that is away must end no worker, and with it a training: it is asked for ever.
            "extra_celery_config": json.dumps({"broker_connection_max_retries": None}),
        },
        "celery_broker_transport_options": {"visibility_timeout": str(VISIBILITY_SECONDS)},
    }


def queues(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that name the queues of the steps, for DAGs and workers alike."""
    return {name: environ.get(name) or queue for name, queue in QUEUES.items()}


def names(workers: int) -> tuple[str, ...]:
    """What the workers are called: worker-1, worker-2, ..."""
    return tuple(f"worker-{number}" for number in range(1, workers + 1))


def folder(home: Path, name: str) -> Path:
    """Working folder of a worker: its own, as if it were another machine."""
    return home / "workers" / name


def heartbeat(home: Path, name: str) -> Path:
    """File that a worker touches with each heartbeat that it sends to the broker."""
    return home / "servers" / f"{name}.heartbeat"


def is_well(home: Path, name: str, since: float, now: float) -> bool:
    """Says whether a worker has told the broker lately that it lives.

    Args:
        home: AIRFLOW_HOME.
        name: The worker's.
        since: When it was started (Unix time): a heartbeat from before that is an earlier one's.
        now: This moment (Unix time).
    """
    try:
        beat = heartbeat(home, name).stat().st_mtime
    except OSError:
        return False
    return beat >= since and now - beat <= HEARTBEAT_SECONDS


def broker_answers(url: str) -> bool:
    """Says whether anybody accepts connections at the broker's address."""
    parts = urllib.parse.urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 6379), timeout=2):
            return True
    except OSError:
        return False
