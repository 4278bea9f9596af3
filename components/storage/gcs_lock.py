"""Exclusive locks on Google Storage: an object that only one writer can create, kept alive by a heartbeat.

Nothing frees such a lock when its process is killed. So the holder rewrites it every minute, and a lock that
was not rewritten for ten minutes, by the server's clock, may be taken over; so may, at once, a lock of a
process that this machine knows to be dead. A take-over names the generation that it saw, so it never beats a
heartbeat. A holder that was suspended for long can lose its lock: `check` says so.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api_core import exceptions as api
from google.cloud import storage

from components.errors import TemporaryError
from components.storage.gcs_client import conditional_write, gcs_errors, read_with_blob, retry_for
from components.storage.local_lock import busy, read_info

BEAT_SECONDS = 60.0
STALE_SECONDS = 600.0

_log = logging.getLogger(__name__)


class GcsLock:
    """A lock object that this process holds.

    Args:
        store: The bucket.
        name: The lock object's name.
        owner: Who holds it, as a waiting user should read it.
        retry_seconds: How long one request is repeated.
    """

    def __init__(self, store: storage.Bucket, name: str, owner: str, retry_seconds: float) -> None:
        self.store, self.name, self.uri = store, name, f"gs://{store.name}/{name}"
        self.retry = retry_for(retry_seconds)
        self.generation = 0
        self.lost = False
        self.info: dict[str, Any] = {
            "owner": owner,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "process": process_mark(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name=f"heartbeat {name}", daemon=True)
        self._seen = _seconds()

    def try_acquire(self) -> dict[str, Any] | None:
        """Takes the lock if it is free or abandoned; else returns what its holder wrote into it."""
        found = read_with_blob(self.store, self.name, self.retry)
        holder = read_info(found[0]) if found is not None else {}
        if found is not None:
            if not (is_dead(holder) or self._is_stale(found[1])):
                return holder
            _log.warning("%s: taking over the lock that %s left behind", self.uri, holder.get("owner", "?"))
        try:
            self._write(int(found[1].generation) if found is not None else 0)
        except api.PreconditionFailed:
            return holder  # somebody was quicker; the next look says who
        self._beat.start()
        return None

    def check(self) -> None:
        """See `HeldLock.check`."""
        if self.lost or _seconds() - self._seen > STALE_SECONDS * 0.8:
            raise TemporaryError(
                f"The lock {self.uri} was lost: its heartbeat could not be written for too long.",
                "Run again.",
            )

    def release(self) -> None:
        """Stops the heartbeat and deletes the lock if it is still ours; a failure leaves it to go stale."""
        if os.getpid() != self.info["pid"]:
            return  # a forked child that unwinds its parent's stack
        self._stop.set()
        self._beat.join()
        try:
            found = read_with_blob(self.store, self.name, self.retry)
            if found is not None and read_info(found[0]).get("token") == self.info["token"]:
                found[1].delete(if_generation_match=found[1].generation, retry=self.retry)
        except (api.NotFound, api.PreconditionFailed):
            pass
        except Exception as error:  # the work is done: a lock that cannot be deleted must not undo it
            _log.warning("%s could not be deleted and goes stale by itself: %s", self.uri, error)

    def _write(self, generation: int) -> None:
        data = json.dumps(self.info).encode()
        before = _seconds()
        self.generation = conditional_write(self.store, self.name, data, generation, self.retry)
        self._seen = before

    def _keep_alive(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._write(self.generation)
            except api.PreconditionFailed:
                self.lost = True
                return
            except Exception as error:  # the next beat may get through; `check` knows when it is too late
                _log.warning("%s: heartbeat failed: %s", self.uri, error)

    def _is_stale(self, blob: Any) -> bool:
        now = datetime.datetime.now(datetime.timezone.utc)
        if (now - blob.updated).total_seconds() < STALE_SECONDS:
            return False
        # This machine's clock may be wrong: before taking a lock away, ask the server's.
        probe = self.store.blob(f"{self.name}.{self.info['token']}")
        probe.upload_from_string(b"", retry=self.retry)
        try:
            return bool((probe.updated - blob.updated).total_seconds() >= STALE_SECONDS)
        finally:
            with contextlib.suppress(api.NotFound):
                probe.delete(retry=self.retry)


@contextlib.contextmanager
def hold_gcs_lock(lock: GcsLock, wait_seconds: float, poll: float) -> Iterator[GcsLock]:
    """Holds the lock while the `with` block runs.

    Raises:
        TemporaryError: Where the wait was in vain.
    """
    deadline = time.monotonic() + wait_seconds
    with gcs_errors("locking", lock.uri):
        while (holder := lock.try_acquire()) is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise busy(lock.uri, holder, wait_seconds)
            time.sleep(min(poll, left))
    try:
        yield lock
    finally:
        lock.release()


def process_mark(pid: int) -> str:
    """Returns `boot/pid namespace/pid/start time` of a living process of this machine, else an empty string.

    The first two parts tell whether another process's pid means anything here: containers share neither.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # from field 3, proc(5)
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot}/{namespace}/{pid}/{fields[19]}"


def is_dead(holder: dict[str, Any]) -> bool:
    """Says whether a lock's holder ran on this machine and runs no more."""
    theirs = str(holder.get("process", "")).split("/")
    ours = process_mark(os.getpid()).split("/")
    if len(theirs) != 4 or theirs[:2] != ours[:2] or not theirs[2].isdigit():
        return False
    return process_mark(int(theirs[2])) != "/".join(theirs)


def _seconds() -> float:
    # CLOCK_BOOTTIME goes on while the machine sleeps, as the server's clock does.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
