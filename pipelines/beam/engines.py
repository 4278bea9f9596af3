"""`--engine`: the flags that make each of Beam's engines work here, and a look whether it answers at all.

Loads no Beam: wrong flags and an engine that is not there are told within seconds.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click

from components.errors import TemporaryError, UsageError
from pipelines.beam.flags import runner_args

SETUP_FILE = Path(__file__).resolve().parents[2] / "setup.py"
CONNECT_SECONDS = 3.0

DASK_ADDRESS, JOB_ENDPOINT, WORKER_POOL = "tcp://127.0.0.1:8786", "127.0.0.1:8073", "127.0.0.1:50000"
"""Where Dask's scheduler and Prism listen by themselves, and a worker pool as docs/engines.md starts it."""

START = {
    "dask": "Start one: `dask scheduler`, and `dask worker ADDRESS --nworkers=2 --nthreads=1`.",
    "job": "Start one: Prism is `$(bash infra/prism.sh) --job_port=PORT`; Flink and Spark have their own.",
    "pool": "Start one: `python -m apache_beam.runners.worker.worker_pool_main --service_port=PORT`.",
}


@dataclasses.dataclass(frozen=True)
class Engine:
    """What an engine needs.

    Attributes:
        fixed: Flags that make it work; another value contradicts it.
        defaults: Flags that are given where the user gives none.
        required: Flags that only the user can give.
        own: Prefixes of flags that no other engine takes.
    """

    fixed: Mapping[str, str]
    defaults: Mapping[str, str] = dataclasses.field(default_factory=dict)
    required: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


ENGINES = {
    "local": Engine({"runner": "FnApiRunner"}, own=("direct_",)),
    "dask": Engine(
        # 128 shards are one task by default, and one worker's.
        {"runner": "apache_beam.runners.dask.dask_runner.DaskRunner", "dask_partition_size": "1"},
        {"dask_client_address": DASK_ADDRESS},
        own=("dask_",),
    ),
    "portable": Engine(
        {"runner": "PortableRunner"},
        {"job_endpoint": JOB_ENDPOINT, "environment_type": "EXTERNAL"},
        own=("job_endpoint", "job_server", "artifact_endpoint", "environment_", "sdk_worker_parallelism"),
    ),
    "dataflow": Engine(
        {"runner": "DataflowRunner"},
        required=("project", "region", "temp_location", "sdk_container_image"),
        own=("project", "region", "temp_location", "staging_location", "sdk_container_image", "worker_", "dataflow_"),
    ),
}

engine_option = click.option(
    "--engine",
    envvar="HISTOLINE_ENGINE",
    type=click.Choice(list(ENGINES)),
    help="What does the work: this machine, or a cluster; sets Beam's flags (docs/engines.md).",
)


def parse_flags(args: list[str]) -> dict[str, str]:
    """Value by name of Beam's flags, `--name=value` or `--name value`; empty for a bare flag."""
    found: dict[str, str] = {}
    for at, arg in enumerate(args):
        if not arg.startswith("--"):
            continue
        name, given, value = arg[2:].partition("=")
        if not given and at + 1 < len(args) and not args[at + 1].startswith("--"):
            value = args[at + 1]
        found[name] = value
    return found


def engine_args(name: str | None, extra: list[str]) -> list[str]:
    """Beam's flags for an engine: its own, then those that were given.

    Args:
        name: The engine; None leaves all to the flags that were given.
        extra: Flags for Beam.

    Raises:
        UsageError: A flag contradicts the engine, or one is missing.
    """
    if name is None:
        return runner_args(extra)
    engine, given = ENGINES[name], parse_flags(extra)
    _refuse_contradictions(name, engine, given)
    missing = [flag for flag in engine.required if not given.get(flag)]
    if missing:
        raise UsageError(f"--engine {name} needs --{missing[0]}.", "See docs/engines.md for a complete command.")
    flags = {flag: value for flag, value in engine.fixed.items() if flag not in given}
    flags |= {flag: value for flag, value in _defaults(name, engine, given).items() if flag not in given}
    # Functions of ours are found by name in modules; the session of a command holds nothing that a worker needs.
    # Beam would stage a list of this environment's packages by calling pip, which an environment made by uv lacks.
    off = ["--no_save_main_session", "--experiments=disable_logging_submission_environment"]
    return [*(f"--{flag}={value}" for flag, value in flags.items()), *(off if name != "local" else []), *extra]


def _refuse_contradictions(name: str, engine: Engine, given: Mapping[str, str]) -> None:
    for flag, value in given.items():
        if flag in engine.fixed and value not in (engine.fixed[flag], engine.fixed[flag].rpartition(".")[2]):
            raise UsageError(
                f"--{flag}={value} contradicts --engine {name}, which sets {engine.fixed[flag]}.",
                "Leave one of the two out.",
            )
        if flag in ("save_main_session", "dask_npartitions", "dask_scheduler_file"):
            raise UsageError(f"--{flag} does not go with --engine {name}.", "Leave it out.")
        others = {other for other, its in ENGINES.items() if other != name and flag.startswith(its.own)}
        if others and not flag.startswith(engine.own):
            raise UsageError(
                f"--{flag} is a flag of --engine {' or '.join(sorted(others))}, not of {name}.", "Leave it out."
            )


def _defaults(name: str, engine: Engine, given: Mapping[str, str]) -> dict[str, str]:
    defaults = dict(engine.defaults)
    if name == "dask":
        defaults["dask_client_address"] = os.environ.get("DASK_SCHEDULER_ADDRESS") or DASK_ADDRESS
    kind = given.get("environment_type", defaults.get("environment_type", ""))
    if kind == "EXTERNAL":
        defaults["environment_config"] = WORKER_POOL
    elif kind == "DOCKER" and not given.get("environment_config"):
        raise UsageError("--environment_type=DOCKER needs --environment_config=IMAGE.", "See docs/engines.md.")
    if kind == "DOCKER" or name == "dataflow":
        # Containers install what is staged; a pool of workers on a machine has the project installed.
        if SETUP_FILE.exists():
            defaults["setup_file"] = str(SETUP_FILE)
    return defaults


def check_endpoints(args: list[str], *places: str) -> None:
    """Connects to what Beam's flags name, so that an engine that is not there is told before any work.

    Args:
        args: Flags for Beam, complete.
        places: Folders or gs:// prefixes that the job reads and writes.

    Raises:
        TemporaryError: Nobody listens there, or a Dask scheduler has no worker.
        UsageError: An address can't be read, or Dataflow's machines can't see a place.
    """
    given = parse_flags(args)
    if given.get("runner") == "DataflowRunner":
        for place in places:
            if not place.startswith("gs://"):
                raise UsageError(f"Dataflow's machines can't see {place}.", "Give a gs://bucket/prefix.")
    if "DaskRunner" in given.get("runner", "") and given.get("dask_client_address"):
        address = given["dask_client_address"]
        _connect("Dask scheduler", "--dask_client_address", address, START["dask"].replace("ADDRESS", address))
        _check_dask_workers(address)
    endpoint = given.get("job_endpoint", "")
    if endpoint and endpoint != "embed":
        port = endpoint.rpartition(":")[2]
        _connect("job service", "--job_endpoint", endpoint, START["job"].replace("PORT", port))
        pool = given.get("environment_config", "")
        # Of a cluster the pool is seen by the engine's machines, not by this one.
        if given.get("environment_type") == "EXTERNAL" and pool and _is_here(endpoint) and _is_here(pool):
            port = pool.rpartition(":")[2]
            _connect("worker pool", "--environment_config", pool, START["pool"].replace("PORT", port))


def _host_and_port(option: str, address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        if parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise UsageError(f"{option}={address} is no HOST:PORT.", "For example 127.0.0.1:8073.")


def _is_here(address: str) -> bool:
    return urlsplit(f"tcp://{address}").hostname in ("localhost", "127.0.0.1", "::1")


def _connect(what: str, option: str, address: str, start: str) -> None:
    try:
        socket.create_connection(_host_and_port(option, address), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise TemporaryError(f"No {what} answers at {address} ({option}): {error.strerror or error}.", start) from None


def _check_dask_workers(address: str) -> None:
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("Dask is not installed here.", "Install the extra: pip install 'histoline[dask]'.") from None
    try:
        with Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
    except (OSError, TimeoutError) as error:
        what = f"What listens at {address} is no Dask scheduler that answers: {error}."
        raise TemporaryError(what, "Check --dask_client_address.") from None
    if not workers:
        start = f"Start one: `dask worker {address} --nworkers=2 --nthreads=1`."
        raise TemporaryError(f"The Dask scheduler at {address} has no worker.", start)
