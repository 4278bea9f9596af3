"""Whether a worker of a cluster sees the storage that the command sees: a token is written here and read there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
import uuid
from collections.abc import Iterator

from components.errors import HistolineError, UsageError
from components.storage.base import Storage
from components.storage.open import open_storage
from components.version import __version__


@dataclasses.dataclass(frozen=True)
class SharedPlaces:
    """What every worker of a job must see; travels with the job.

    Attributes:
        root: Storage that holds the token.
        path: The token, relative to the root.
        token: Its content.
        folders: Other folders or gs:// prefixes that are read.
        version: Of the code that made the job.
    """

    root: str
    path: str
    token: str
    folders: tuple[str, ...]
    version: str = __version__

    def check(self) -> None:
        """Reads the token, and looks for the folders; once in a process.

        Raises:
            UsageError: This machine sees another storage than the command, or runs another version.
        """
        _check(self)


@functools.lru_cache(maxsize=8)
def _check(places: SharedPlaces) -> None:
    here = f"The worker on {socket.gethostname()}"
    if places.version != __version__:
        raise UsageError(
            f"{here} runs histoline {__version__}, the command {places.version}.", "Install the same on both."
        )
    try:
        seen = open_storage(places.root).read_bytes(places.path).decode()
    except (HistolineError, OSError):
        seen = ""
    unseen = [folder for folder in places.folders if not folder.startswith("gs://") and not os.access(folder, os.R_OK)]
    if seen == places.token and not unseen:
        return
    what = f"has no {unseen[0]}" if unseen else f"does not see what the command wrote to {places.root}"
    raise UsageError(
        f"{here} {what}.",
        "Workers on other machines need a folder that all machines share under one path, or a gs:// bucket.",
    )


@contextlib.contextmanager
def shared_places(storage: Storage, folder: str, *read: str) -> Iterator[SharedPlaces]:
    """Writes a token into storage for the time of a job.

    Args:
        storage: Where the job writes.
        folder: Folder for the token, relative to its root; empty for the root.
        read: Folders or gs:// prefixes that the job reads.
    """
    token = uuid.uuid4().hex
    path = f"{folder}/token-{token}".lstrip("/")
    storage.write_atomic(path, token.encode())
    try:
        yield SharedPlaces(storage.root, path, token, tuple(read))
    finally:
        storage.delete(path)
