"""What every call to Google Storage needs: a client, checksums, conditional writes, errors in sentences."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import math
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from components.errors import TemporaryError, UsageError
from components.storage.atomic_files import StorageConflict, StorageMissing

RETRY_SECONDS = 120.0
"""How long one request is repeated."""

TELL_SECONDS = 10.0
"""A process says at most this often that it tries again."""

_log = logging.getLogger(__name__)
_LOGIN = "Run `gcloud auth application-default login`, or point GOOGLE_APPLICATION_CREDENTIALS at a key file."


def bucket(name: str) -> storage.Bucket:
    """Returns a bucket, through one client per process and emulator (STORAGE_EMULATOR_HOST, anonymous)."""
    return _bucket(name, os.environ.get("STORAGE_EMULATOR_HOST", ""), os.getpid())


@functools.lru_cache(maxsize=16)
def _bucket(name: str, emulator: str, pid: int) -> storage.Bucket:  # a forked child must not share sockets
    with gcs_errors("opening", f"gs://{name}"):
        if emulator:
            client = storage.Client(project="emulator", credentials=AnonymousCredentials())
        else:
            client = storage.Client()
        return client.bucket(name)


def retry_for(seconds: float = RETRY_SECONDS) -> Retry:
    """Returns the library's own retry rule (network, 408, 429, 5xx; 1 s, doubled up to 60 s) that tells, with an end.

    Args:
        seconds: How long one request is repeated.
    """
    return Retry(predicate=DEFAULT_RETRY._predicate, timeout=seconds, on_error=_tell)


_told = -math.inf


def _tell(error: Exception) -> None:
    """Says that requests are repeated, now and then: where one fails, hundreds do."""
    global _told
    if time.monotonic() - _told > TELL_SECONDS:
        _told = time.monotonic()
        why = " ".join(str(error).split())[:200]
        _log.warning("Google Storage does not answer as it should; trying again: %s", why)


@contextlib.contextmanager
def gcs_errors(doing: str, uri: str) -> Iterator[None]:
    """Turns what Google Storage refuses into sentences with the right exit code.

    Args:
        doing: Present participle for the sentence: `writing`, `reading`, `listing`, `deleting`, `locking`.
        uri: What it is done to.

    Raises:
        StorageMissing: Where the object to be read does not exist.
        StorageConflict: Where a precondition failed.
        UsageError: Where rights, credentials, the bucket or the name are in the way.
        TemporaryError: Where the network or the service failed, or bytes arrived damaged.
    """
    name = uri.split("/")[2]
    try:
        yield
    except api.NotFound as error:
        if doing == "reading":
            raise StorageMissing(f"{uri} does not exist.", "Check the path and the bucket.") from error
        raise UsageError(
            f"The bucket {name} does not exist ({doing} {uri}).", "Create it, or give another --workspace."
        ) from error
    except api.PreconditionFailed as error:
        raise StorageConflict(f"{uri} was changed by somebody else meanwhile.", "Run again.") from error
    except (api.Forbidden, api.Unauthorized) as error:
        raise UsageError(
            f"Google refused {doing} {uri}: {error.message}.",
            f"Give the account that runs this the role Storage Object Admin on the bucket {name}.",
        ) from error
    except auth.TransportError as error:
        raise TemporaryError(f"{doing.capitalize()} {uri} failed: {error}.", "Run again.") from error
    except auth.GoogleAuthError as error:
        raise UsageError(f"No valid Google credentials for {uri}: {error}", _LOGIN) from error
    except DataCorruption as error:
        raise TemporaryError(f"{uri} was damaged on its way ({doing}).", "Run again.") from error
    except (
        api.ServerError,
        api.TooManyRequests,
        api.RetryError,
        requests.RequestException,
        ConnectionError,
    ) as error:
        raise TemporaryError(
            f"Google Storage does not answer while {doing} {uri}: {error}.",
            "Check the network, then run again; finished files are kept.",
        ) from error
    except api.ClientError as error:
        raise UsageError(f"{doing.capitalize()} {uri} is not possible: {error.message}.") from error


def crc32c_bytes(data: bytes) -> str:
    """Returns data's CRC-32C as Google Storage writes it: base64 of the big-endian sum."""
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def crc32c_file(path: Path) -> str:
    """Returns a file's CRC-32C as Google Storage writes it."""
    crc = google_crc32c.Checksum()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            crc.update(chunk)
    return base64.b64encode(crc.digest()).decode()


def conditional_write(store: storage.Bucket, name: str, data: bytes, generation: int, retry: Retry) -> int:
    """Writes an object only if it has this generation (0: does not exist), and returns the new one.

    A repeated request can meet its own first success and be refused: every write carries a mark, so that the
    refusal is known for what it is.

    Raises:
        google.api_core.exceptions.PreconditionFailed: Where somebody else's write came first.
    """
    blob = store.blob(name)
    mark = uuid.uuid4().hex
    blob.metadata = {"attempt": mark}
    try:
        blob.upload_from_string(data, if_generation_match=generation, checksum="crc32c", retry=retry)
    except api.PreconditionFailed:
        now = store.get_blob(name, retry=retry)
        if now is None or (now.metadata or {}).get("attempt") != mark:
            raise
        return int(now.generation)
    return int(blob.generation)


def read_with_blob(store: storage.Bucket, name: str, retry: Retry) -> tuple[bytes, Any] | None:
    """Returns an object's content and the metadata of exactly that content, or None where there is none.

    Raises:
        google.api_core.exceptions.PreconditionFailed: Where it changes faster than it can be read.
    """
    for _ in range(10):
        blob = store.get_blob(name, retry=retry)
        if blob is None:
            return None
        with contextlib.suppress(api.NotFound, api.PreconditionFailed):
            data = blob.download_as_bytes(if_generation_match=blob.generation, checksum="crc32c", retry=retry)
            if crc32c_bytes(data) == blob.crc32c:
                return data, blob
    raise api.PreconditionFailed(f"{name} keeps changing")
