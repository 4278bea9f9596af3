"""manifest.json: the only commit point of a data set, and all that a later step may rely on.

It carries its own digest, so that an edit by hand is noticed, and a format version, so that an older histoline says
what it can't read instead of guessing.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

from components.errors import DataError, UsageError
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage
from schemas import load_json

FORMAT = 1
"""Raised when a reader of an older version would misread the data set."""

NAME = "manifest.json"


def digest_of(manifest: dict[str, Any]) -> str:
    """SHA-256 over the manifest without its own digest, in canonical JSON."""
    body = {key: value for key, value in manifest.items() if key != "manifest_digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def dump(manifest: dict[str, Any]) -> bytes:
    """Seals a manifest with its digest and returns the file's bytes.

    Raises:
        ValueError: It does not follow `schemas/manifest.schema.json`: a bug, found before anything is committed.
    """
    sealed = {**manifest, "format": FORMAT}
    sealed["manifest_digest"] = digest_of(sealed)
    problem = _schema_problem(sealed)
    if problem:
        raise ValueError(f"manifest breaks its schema: {problem}")
    # In the order in which it was put together, so that splits stand as train, eval, test; the digest sorts.
    return (json.dumps(sealed, indent=1, ensure_ascii=False) + "\n").encode()


def load(storage: Storage, dataset_dir: str) -> dict[str, Any]:
    """Reads and checks the manifest of a committed data set.

    Args:
        storage: The workspace.
        dataset_dir: Folder of the data set, relative to the workspace.

    Raises:
        UsageError: There is none (the ingest did not end), or it is of a newer version.
        DataError: It was edited or damaged.
    """
    where = storage.uri(f"{dataset_dir}/{NAME}")
    try:
        raw = storage.read_bytes(f"{dataset_dir}/{NAME}")
    except StorageMissing:
        raise UsageError(
            f"{storage.uri(dataset_dir)} is not a committed data set: it holds no {NAME}.",
            "Give the folder that ingest printed, or run the same ingest again: it goes on where it stopped.",
        ) from None
    try:
        manifest = json.loads(raw)
        version = manifest["format"]
        if not isinstance(version, int):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{where} is damaged: it is not a manifest.", "Ingest again from the raw folder.") from None
    if version > FORMAT:
        raise UsageError(
            f"{where} has format {version!r}; this histoline reads up to {FORMAT}.", "Upgrade histoline to read it."
        )
    if manifest.get("manifest_digest") != digest_of(manifest):
        raise DataError(
            f"{where} was changed after the commit: its digest does not match its content.",
            "Restore the file, or ingest again from the raw folder.",
        )
    problem = _schema_problem(manifest)
    if problem:
        raise DataError(f"{where} breaks its schema: {problem}.", "Ingest again from the raw folder.")
    return dict(manifest)


def _schema_problem(manifest: dict[str, Any]) -> str:
    import fastjsonschema  # jsonschema takes seconds to import where all its formats are installed

    try:
        _validator()(manifest)
    except fastjsonschema.JsonSchemaValueException as error:
        return str(error.message)[:200]
    return ""


@functools.cache
def _validator() -> Callable[[Any], Any]:
    import fastjsonschema

    validate: Callable[[Any], Any] = fastjsonschema.compile(load_json("manifest.schema.json"))
    return validate


def missing_or_resized(storage: Storage, dataset_dir: str, manifest: dict[str, Any]) -> list[str]:
    """Files that are missing, too many in a Split folder, or of another size than at the commit.

    A quick look that reads no shard; `histoline verify` reads every byte.
    """
    have = {path[len(dataset_dir) + 1 :]: size for path, size in storage.list_files(dataset_dir)}
    problems = []
    for split, facts in manifest["splits"].items():
        wanted = {f"Split-{split}/{shard['file']}": shard["bytes"] for shard in facts["shards"]}
        problems += [f"{path} is missing" for path in wanted if path not in have]
        problems += [
            f"{path} has {have[path]} bytes instead of {size}"
            for path, size in wanted.items()
            if have.get(path, size) != size
        ]
        extra = [p for p in have if p.startswith(f"Split-{split}/") and p not in wanted]
        problems += [f"{path} does not belong here" for path in extra]
        stems = [shard["file"].rsplit(".", 1)[0] for shard in facts["shards"]]
        problems += [f"sidecars/{s}.parquet is missing" for s in stems if f"sidecars/{s}.parquet" not in have]
    problems += [f"{path} is missing" for path in manifest["files"] if path not in have]
    return problems


def flags(manifest: dict[str, Any]) -> list[str]:
    """Reasons why nothing made from this data set may be promoted, as sentences; empty where there are none."""
    sentences = {
        "leaky": "split by image: patients are shared between the splits (made to measure leakage)",
        "not_provably_patient_disjoint": "some patches have no known patient and were put into train",
        "not_patient_clustered": "no patient is known: every image is its own group",
    }
    return [sentences[name] for name in manifest["flags"]]
