"""What Airflow's servers are told: airflow.cfg, environment, passwords and secrets, all inside one private folder.

A configuration file rather than variables: `AIRFLOW_HOME=.airflow .venv-airflow/bin/airflow ...` then just works, and
no secret stands in a process's environment.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import io
import json
import os
import secrets
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.core.processes import MARK
from components.errors import UsageError
from pipelines.local_airflow import celery
from pipelines.local_airflow.supervisor import environment_of, folder_is_private

USERS = ("admin", "viewer")
POOL, GPU_POOL = "histoline_heavy", "histoline_gpu"
"""Airflow pools of one slot that `infra/airflow_prepare.py` makes; the second is for steps that use the device.

So two data sets never train at once on one device, and an ingest does not wait until a training is over.
"""

DEFAULT_PORT = 8080

# What a step may need (GPU, certificates, proxies) and the little that any program needs; never AIRFLOW__*, which
# would overrule the configuration file.
HANDED_ON = (
    "HOME", "LANG", "LANGUAGE", "LC_ALL", "LOGNAME", "SHELL", "TMPDIR", "TZ", "USER", "LD_LIBRARY_PATH",
    "GOOGLE_APPLICATION_CREDENTIALS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
HANDED_ON_BEGINNINGS = ("HISTOLINE_", "CUDA_", "NVIDIA_", "TF_", "XLA_", "OMP_", "LC_")
PRIVATE_UMASK = 0o077
"""Of Airflow's servers: metadata file and logs are for their owner."""

NEVER_HANDED_ON = (
    "HISTOLINE_RESULT_JSON", "HISTOLINE_LOG_FORMAT", "HISTOLINE_AIRFLOW_DATABASE", "HISTOLINE_AIRFLOW_BROKER", MARK,
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where one Airflow lives and what it serves.

    Attributes:
        home: AIRFLOW_HOME.
        project: The checkout, with dags/ in it.
        python: Airflow's own interpreter.
        port: Of the web server, on 127.0.0.1.
        database: SQLAlchemy URL of the metadata base.
        workspace: Folder that runs are read from and written to.
        data_roots: Folders that raw patches may be read from; empty for any.
        command: The pipelines' `histoline`.
        workers: Celery's worker processes; 0 where the scheduler runs the tasks itself (LocalExecutor).
        broker: URL through which they get their tasks; empty without workers.
    """

    home: Path
    project: Path
    python: Path
    port: int
    database: str
    workspace: Path
    data_roots: tuple[str, ...]
    command: Path
    workers: int = 0
    broker: str = ""

    @property
    def url(self) -> str:
        """Address for people, on this machine."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def passwords(self) -> Path:
        """The file with the users' passwords."""
        return self.home / "passwords.json"


def existing_roots(roots: Sequence[str]) -> tuple[str, ...]:
    """Data roots, absolute.

    Args:
        roots: As typed; folders, or prefixes of an object store.

    Raises:
        UsageError: A folder is not there.
    """
    found = [root if "://" in root else str(Path(root).expanduser().absolute()) for root in roots]
    missing = [root for root in found if "://" not in root and not os.path.isdir(root)]
    if missing:
        raise UsageError(
            f"The data root {missing[0]} is no folder.", "Make or mount it first, or name another --data-root."
        )
    return tuple(found)


def local_workspace(workspace: str) -> Path:
    """The workspace as an absolute folder.

    Raises:
        UsageError: For an object store: the report pages are served from a folder.
    """
    if "://" in workspace:
        raise UsageError(
            f"Airflow's report pages need a local or mounted workspace, not {workspace}.",
            "Mount the bucket (gcsfuse) and name the mount point, or run `histoline train` with it from the shell.",
        )
    return Path(workspace).expanduser().absolute()


def free_port(wanted: int, exact: bool) -> int:
    """A port of 127.0.0.1 that is free now: `wanted`, else one of the 99 after it, else any.

    Args:
        wanted: The first to try.
        exact: Refuse any other.

    Raises:
        UsageError: Where `exact` and it is taken.
    """
    candidates = [wanted] if exact else [*range(wanted, min(wanted + 100, 65536)), 0]
    for port in candidates:
        with socket.socket() as probe:
            # As the server itself will: a port whose last connections only linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UsageError(f"Port {wanted} of 127.0.0.1 is taken or not allowed.", "Name another --port, or leave it out.")


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, at once whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def make_home(home: Path) -> None:
    """Makes AIRFLOW_HOME, closed to other users.

    Files that an earlier version left readable are closed, too: a copy of them may land in an open folder.

    Raises:
        UsageError: Where it belongs to somebody else.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not folder_is_private(home):
        try:
            home.chmod(0o700)
        except PermissionError as error:
            raise UsageError(f"{home} belongs to another user.", "Name another --home.") from error
    for path in home.rglob("*"):
        with contextlib.suppress(OSError):  # a log that is rotated away meanwhile
            mode = path.lstat().st_mode
            if mode & 0o077 and not path.is_symlink():
                path.chmod(stat.S_IMODE(mode) & 0o700)


def _random() -> str:
    # 32 random bytes in padded URL-safe base64: a password, and also what Airflow's fernet key must look like.
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")


def _kept(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Random values that are made once and then kept in a private file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        values = {}
    if not isinstance(values, dict):
        values = {}
    if path.exists():
        path.chmod(0o600)
    missing = [name for name in names if not values.get(name)]
    for name in missing:
        values[name] = _random()
    if missing:
        write_private(path, json.dumps(values, indent=1) + "\n")
    return {name: str(values[name]) for name in names}


def passwords(place: Place) -> dict[str, str]:
    """The users' passwords, made at the first call; a password that someone wrote into the file stays."""
    return _kept(place.passwords, USERS)


def configuration(place: Place, random: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Airflow's settings, by section, as far as they are not its defaults.

    Args:
        place: See `Place`.
        random: Secret values by name: `fernet`, `jwt`, `session`.
    """
    return {
        "core": {
            "dags_folder": str(place.project / "dags"),
            "plugins_folder": str(place.project / "dags" / "plugins"),
            "load_examples": "False",
            "executor": "CeleryExecutor" if place.workers else "LocalExecutor",
            "parallelism": str(max(4, celery.CONCURRENCY * place.workers)),
            "dags_are_paused_at_creation": "False",
            # "user:role" pairs; never all_admins, which lets any local process and any rebound web page in.
            "simple_auth_manager_users": ",".join(f"{user}:{user}" for user in USERS),
            "simple_auth_manager_passwords_file": str(place.passwords),
            "simple_auth_manager_all_admins": "False",
            "execution_api_server_url": f"{place.url}/execution/",
            "fernet_key": random["fernet"],
            "killed_task_cleanup_time": "10",
        },
        "database": {"sql_alchemy_conn": place.database},
        "api": {
            "host": "127.0.0.1",
            "port": str(place.port),
            "base_url": place.url,
            "workers": "1",
            "secret_key": random["session"],
            "expose_config": "False",
            "expose_stacktrace": "False",
            "enable_swagger_ui": "False",  # its page loads scripts from a public host
            "instance_name": "histoline",
        },
        "api_auth": {"jwt_secret": random["jwt"]},
        "dag_processor": {
            # Each round is a line of the log and a second of work; DAGs change with the checkout, which is rare.
            "refresh_interval": "300",
            "min_file_process_interval": "120",
            "parsing_processes": "1",
            "print_stats_interval": "0",
        },
        "scheduler": {
            # A longer id is no name of a log folder: the task could never begin, and would be tried for ever.
            "allowed_run_id_pattern": "^[A-Za-z0-9_.~:+-]{1,150}$",
            # A task whose process is gone is noticed after a minute and a half, a queued one that nobody runs after
            # one. Longer than a restart of the web server, through which tasks tell that they live.
            "task_instance_heartbeat_timeout": "90",
            "task_instance_heartbeat_sec": "10",
            "orphaned_tasks_check_interval": "60",
        },
        "workers": {
            # A web server that is away for half a minute, or two, must not end a training that took hours.
            "max_failed_heartbeats": "60",
            "min_heartbeat_interval": "5",
            "execution_api_retries": "12",
            "execution_api_retry_wait_max": "10",
            "execution_api_timeout": "20",
        },
        "logging": {
            "base_log_folder": str(place.home / "logs"),
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
            "uvicorn_logging_level": "WARNING",
            "colored_console_log": "False",
            # One line a request, most of them the pages' own polling, would drown everything else.
            "namespace_levels": "http.access=WARNING",
        },
        "email": {"default_email_on_failure": "False", "default_email_on_retry": "False"},
        "metrics": {"statsd_on": "False", "otel_on": "False"},
        **(celery.configuration(place.broker, place.database) if place.workers else {}),
    }


def configuration_text(settings: Mapping[str, Mapping[str, str]]) -> str:
    """The settings as the text of an airflow.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    for section, values in settings.items():
        # Airflow reads `%` as the start of a substitution; passwords in data base URLs are full of them.
        parser[section] = {name: value.replace("%", "%%") for name, value in values.items()}
    text = io.StringIO()
    text.write("# Written by `histoline airflow up`, at each start: changes made here are lost.\n")
    parser.write(text)
    return text.getvalue()


def write_configuration(place: Place) -> None:
    """Writes airflow.cfg, and at the first call passwords and secrets."""
    make_home(place.home)
    passwords(place)
    random = _kept(place.home / "secrets.json", ("fernet", "jwt", "session"))
    write_private(place.home / "airflow.cfg", configuration_text(configuration(place, random)))


def _umask() -> int:
    mask = os.umask(PRIVATE_UMASK)
    os.umask(mask)
    return mask


def server_environment(place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of Airflow's servers, and with it of all tasks."""
    handed_on = environment_of(environ, HANDED_ON, HANDED_ON_BEGINNINGS)
    for name in NEVER_HANDED_ON:
        handed_on.pop(name, None)
    path = os.pathsep.join([str(place.python.parent), environ.get("PATH", os.defpath)])
    return {
        **handed_on,
        "PATH": path,
        "PYTHONWARNINGS": "ignore",
        "PYTHONUNBUFFERED": "1",
        # Servers write for their owner alone; what a step writes into the workspace has the mode that it always has.
        "HISTOLINE_STEP_UMASK": f"{_umask():03o}",
        "AIRFLOW_HOME": str(place.home),
        "HISTOLINE_WORKSPACE": str(place.workspace),
        "HISTOLINE_COMMAND": str(place.command),
        "HISTOLINE_POOL": environ.get("HISTOLINE_POOL") or POOL,
        "HISTOLINE_GPU_POOL": environ.get("HISTOLINE_GPU_POOL") or GPU_POOL,
        **(celery.queues(environ) if place.workers else {}),
        **({"HISTOLINE_DATA_ROOTS": os.pathsep.join(place.data_roots)} if place.data_roots else {}),
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
        MARK: str(place.home),
    }
