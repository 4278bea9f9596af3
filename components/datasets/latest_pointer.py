"""latest.json: the data set that training takes by default, and what tells in a moment that nothing has changed.

A finished ingest that is run again is recognised by the request (options and the content of the files that they name)
and by a fingerprint of the raw folder, before any library for tables or images is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core import json_documents
from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.errors import DataError, HistolineError
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage
from components.version import INGEST_VERSION, __version__

FORMAT = 1
SCHEMA = "latest.schema.json"
_DAMAGED = "Delete it and run the ingest again with --ledger PLAN_ID/splits.json of the newest data set."


@dataclasses.dataclass(frozen=True)
class LatestPointer:
    """latest.json of a data set and task; `schemas/latest.schema.json` is the contract.

    Attributes:
        dataset_dir: The data set's folder, relative to the workspace.
        plan_id: PLAN_ID.
        content_digest: Of the data set.
        request: `request_digest` of the ingest; empty where it can't be told from the options alone.
        fingerprint: Of the raw folder.
        extensions: Those that the fingerprint was taken with, sorted.
        format: Not written while it is 1.
    """

    dataset_dir: str
    plan_id: str
    content_digest: str
    request: str = ""
    fingerprint: str = ""
    extensions: tuple[str, ...] = ()
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """The file."""
        document = dataclasses.asdict(self)
        del document["format"]
        return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()


def read_latest(storage: Storage, home: str) -> LatestPointer | None:
    """What latest.json of a data set and task says; None where nothing is committed.

    Args:
        storage: The workspace.
        home: `datasets/DATASET/TASK`.

    Raises:
        UsageError: It is of a newer format.
        DataError: It is damaged.
    """
    where = storage.uri(f"{home}/latest.json")
    try:
        data = storage.read_bytes(f"{home}/latest.json")
    except StorageMissing:
        return None
    document = json_documents.decode(data, FORMAT, where, "a pointer to a data set", _DAMAGED, absent=FORMAT)
    problem = json_documents.problem(document, SCHEMA)
    if problem:
        raise DataError(f"{where} is damaged: {problem}.", _DAMAGED)
    return json_documents.typed(LatestPointer, document)


def write_latest(
    storage: Storage, home: str, manifest: Manifest, request: str, fingerprint: str, extensions: list[str]
) -> None:
    """Lets latest.json name a committed data set.

    Args:
        storage: The workspace.
        home: `datasets/DATASET/TASK`.
        manifest: Of the data set.
        request: `request_digest` of the ingest; empty where it can't be told from the options alone.
        fingerprint: Of the raw folder.
        extensions: Those that the fingerprint was taken with.
    """
    pointer = LatestPointer(
        dataset_dir=f"{home}/{manifest.plan_id}",
        plan_id=manifest.plan_id,
        content_digest=manifest.content_digest,
        request=request,
        fingerprint=fingerprint,
        extensions=tuple(sorted(extensions)),
    )
    data = pointer.to_bytes()
    path = f"{home}/latest.json"
    if not storage.exists(path) or storage.read_bytes(path) != data:
        storage.write_atomic(path, data)


def request_digest(options: Mapping[str, Any]) -> str:
    """Digest of everything but the raw folder that decides on a data set: options, named files, versions.

    Args:
        options: Names to plain values; a `Path` stands for the content of its file.
    """
    values = {}
    for name, value in sorted(options.items()):
        if isinstance(value, Path):
            value = hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else "missing"
        values[name] = value
    body = json.dumps([values, INGEST_VERSION, __version__], sort_keys=True, default=str)
    return hashlib.sha256(body.encode()).hexdigest()


def find_unchanged(storage: Storage, home: str, input_root: str, request: str) -> Manifest | None:
    """The manifest of the latest data set, where this very request on this very folder made it and it is whole.

    Args:
        storage: The workspace.
        home: `datasets/DATASET/TASK`.
        input_root: The raw folder; a gs:// prefix is never recognised here.
        request: `request_digest` of the ingest at hand.
    """
    from components.adapters.listing import fingerprint_folder

    try:
        latest = read_latest(storage, home)
        if latest is None or input_root.startswith("gs://") or not request or latest.request != request:
            return None
        if fingerprint_folder(input_root, latest.extensions) != latest.fingerprint:
            return None
        manifest = manifests.load(storage, latest.dataset_dir)
        return None if manifests.missing_or_resized(storage, latest.dataset_dir, manifest) else manifest
    except (HistolineError, OSError):
        return None  # the ingest itself says what is wrong
