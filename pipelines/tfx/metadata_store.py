"""Where ML Metadata lies: a SQLite file of the workspace, or a MySQL or PostgreSQL server that workspaces share.

Nothing here imports TFX; `ml_metadata` is loaded where the store is opened. No message holds a password.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from components.errors import HistolineError, TemporaryError, UsageError
from components.storage.atomic_files import StorageConflict

VARIABLE = "HISTOLINE_METADATA"
"""Environment variable that names the store; unlike an option's, its value is in no list of processes."""

PORTS = {"mysql": 3306, "postgresql": 5432}
EXAMPLE = "For example mysql://user:password@host:3306/mlmd or postgresql://user:password@host:5432/mlmd."
TRIES, CONNECT_SECONDS = 20, 10.0
REFUSED = ("mysql_real_connect failed", "connection pointer is NULL")
"""What ML Metadata says where no connection came about; the server's own reason it drops, or writes to stderr."""

BUSY = ("Concurrent writes aborted",)
"""What TFX raises as RuntimeError after half a minute of tries on a locked SQLite file."""


@dataclasses.dataclass(frozen=True)
class Server:
    """A store on a server.

    Attributes:
        kind: `mysql` or `postgresql`.
        host: Name or address.
        port: Number.
        database: Name; created where the user may and it is missing.
        user: Name.
        password: Never shown.
    """

    kind: str
    host: str
    port: int
    database: str
    user: str
    password: str = dataclasses.field(default="", repr=False)

    @property
    def place(self) -> str:
        """The URL without the password: what run.json and messages hold."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{self.user}@{host}:{self.port}/{self.database}"

    def connection(self) -> Any:
        """ML Metadata's ConnectionConfig."""
        from ml_metadata.proto import metadata_store_pb2 as proto

        config: Any = proto.ConnectionConfig()  # type: ignore[attr-defined]
        if self.kind == "mysql":
            target = config.mysql
            target.port, target.database = self.port, self.database
        else:
            target = config.postgresql
            target.port, target.dbname = str(self.port), self.database
        target.host, target.user, target.password = self.host, self.user, self.password
        return config


@dataclasses.dataclass(frozen=True)
class SqliteFile:
    """A store in a file.

    Attributes:
        file: Made where missing.
    """

    file: Path

    @property
    def place(self) -> str:
        """The file."""
        return str(self.file)

    def connection(self) -> Any:
        """ML Metadata's ConnectionConfig."""
        from ml_metadata.proto import metadata_store_pb2 as proto

        config: Any = proto.ConnectionConfig()  # type: ignore[attr-defined]
        config.sqlite.filename_uri = str(self.file)
        config.sqlite.connection_mode = config.sqlite.READWRITE_OPENCREATE
        return config


if TYPE_CHECKING:
    from components.storage.base import Storage

Store = Server | SqliteFile


def workspace_file(storage: Storage, dataset: str, task: str) -> Path:
    """The SQLite file of a data set and task in the workspace's working folder, whether it is there or not."""
    return storage.work_folder() / "metadata" / f"{dataset}-{task}.sqlite"


def pipeline_name(storage: Storage, dataset: str, task: str, server: Server | None) -> str:
    """TFX's name of the pipeline: DATASET-TASK, and in a store that workspaces share what tells them apart.

    Without it, runs of one name in two workspaces would be one run, and the second would find its stages done.

    Args:
        storage: The workspace.
        dataset: Data set.
        task: Task.
        server: Where the store is shared.
    """
    name = f"{dataset}-{task}"
    if server is None:
        return name
    path = "metadata/workspace-id"
    stored, token = storage.read_versioned(path)
    if stored is None:
        own = secrets.token_hex(4).encode()
        try:
            storage.compare_and_swap(path, own, token)
            stored = own
        except StorageConflict:  # another run was faster
            stored = storage.read_bytes(path)
    return f"{name}-{stored.decode().strip()}"


def parse(url: str) -> Server | None:
    """The server that a URL names, None where it is empty.

    Args:
        url: `mysql://` or `postgresql://`, with user, host and data base; what is special in a part is percent-encoded.

    Raises:
        UsageError: It is no such URL; the message does not repeat it.
    """
    if not url:
        return None
    scheme = url.partition("://")[0] if "://" in url else ""
    kind = {"postgres": "postgresql"}.get(scheme, scheme)
    if kind not in PORTS:
        known = f"its scheme is {scheme!r}" if re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) else "it has no scheme"
        raise UsageError(f"--metadata can't be used: {known}, not mysql or postgresql.", EXAMPLE)
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS[kind]
    except ValueError:
        raise UsageError("--metadata can't be used: host or port are no host and port.", EXAMPLE) from None
    database = unquote(parts.path.removeprefix("/"))
    missing = [name for name, value in
               (("user", parts.username), ("host", parts.hostname), ("data base", database)) if not value]  # fmt: skip
    if missing or "/" in database or parts.query or parts.fragment:
        what = f"it names no {' and no '.join(missing)}" if missing else "more follows the name of the data base"
        raise UsageError(f"--metadata can't be used: {what}.", EXAMPLE)
    password = unquote(parts.password or "")
    return Server(kind, str(parts.hostname), port, database, unquote(str(parts.username)), password)


def open_store(store: Store) -> Any:
    """Opens ML Metadata.

    Two that open an empty data base at once both make its tables, and one fails: it tries again.

    Args:
        store: Where it lies.

    Returns:
        A `ml_metadata.MetadataStore`.

    Raises:
        TemporaryError: The server can't be reached, or others hold the store.
        UsageError: The server refuses user, password or data base.
    """
    # Its C++ writes progress and the user's name to stderr.
    os.environ.setdefault("GLOG_minloglevel", "4")
    from ml_metadata import errors
    from ml_metadata.metadata_store import metadata_store as mlmd

    if isinstance(store, Server):
        _reach(store)
    for attempt in range(TRIES):
        try:
            return mlmd.MetadataStore(store.connection())
        except (RuntimeError, errors.StatusError) as error:
            if isinstance(store, Server) and any(text in str(error) for text in REFUSED):
                raise UsageError(
                    f"The ML Metadata server {store.place} answers, but refuses the connection.",
                    "Check user, password and data base, and that the user may create it or its tables.",
                ) from None
            if attempt == TRIES - 1:
                raise TemporaryError(
                    f"ML Metadata in {store.place} can't be opened: {_short(error)}.", "Run again."
                ) from error
            time.sleep(0.2 + random.random() / 2)
    raise AssertionError


def _reach(server: Server) -> None:
    try:
        socket.create_connection((server.host, server.port), CONNECT_SECONDS).close()
    except OSError as error:
        raise TemporaryError(
            f"The ML Metadata server {server.place} can't be reached: {error.strerror or error}.",
            "Start it, or check host and port, then run again; what is finished is kept.",
        ) from None


def temporary(error: Exception, store: Store) -> HistolineError | None:
    """What the user is told where a store was busy or went away in the middle of a node; None for anything else.

    Args:
        error: That a node ended with.
        store: It works with.
    """
    from ml_metadata import errors

    text = _short(error)
    busy = isinstance(error, (errors.AbortedError, errors.UnavailableError, errors.DeadlineExceededError))
    if busy or (isinstance(error, RuntimeError) and any(known in str(error) for known in BUSY)):
        return TemporaryError(
            f"ML Metadata is locked: other runs write to {store.place}.", "Run again; what is finished is kept."
        )
    lost = isinstance(error, errors.InternalError) or (
        isinstance(error, RuntimeError) and "connection to Metadata storage" in str(error)
    )
    if lost and isinstance(store, Server):
        return TemporaryError(
            f"The ML Metadata server {store.place} failed: {text}.",
            "See its log, then run again; what is finished is kept.",
        )
    return None


@contextlib.contextmanager
def troubles(store: Store) -> Iterator[None]:
    """Turns what a busy or lost store raises inside the block into an error that a retry can mend.

    Args:
        store: That the block works with.

    Raises:
        TemporaryError: See `temporary`.
    """
    try:
        yield
    except Exception as error:
        problem = temporary(error, store)
        if problem is None:
            raise
        raise problem from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
