"""Bytes at rest against the manifest, and records against their sources by an independent decoder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from components.adapters.raw_files import open_source
from components.core.machine import cores
from components.core.rejects import Rejected
from components.datasets import manifest as manifests
from components.datasets.example import decode_example, decode_pixels
from components.datasets.layout import sha256_file, shard_path
from components.datasets.manifest import Manifest
from components.datasets.tfrecord import CorruptRecord, read_at, read_records
from components.errors import UsageError
from components.storage.atomic_files import TMP
from components.storage.base import Storage


@dataclasses.dataclass(frozen=True)
class Verified:
    """What a verification found.

    Attributes:
        findings: One sentence each; empty where all is well.
        files: Files read.
        bytes: Bytes read.
        compared: Records whose pixels were compared with their source.
    """

    findings: list[str]
    files: int
    bytes: int
    compared: int = 0


def verify_bytes(
    storage: Storage, dataset_dir: str, manifest: Manifest, progress: Callable[[int], None] = lambda n: None
) -> Verified:
    """Reads every file of a data set and compares it with the manifest.

    Args:
        storage: Where it lies.
        dataset_dir: Its folder.
        manifest: As `manifest.load` gave it, which has checked the manifest itself.
        progress: Told the bytes of each file as it has been read.
    """
    have = dict(storage.list_files(dataset_dir))
    wanted = {f"{dataset_dir}/{name}": digest for name, digest in _checksums(manifest).items()}
    short = len(dataset_dir) + 1
    findings = [f"{path[short:]} is missing" for path in wanted if path not in have]
    findings += _strays([path[short:] for path in sorted(have.keys() - wanted.keys())])
    present = [path for path in wanted if path in have]

    def check(path: str) -> str:
        local = storage.local_copy(path)
        digest = sha256_file(local)
        progress(have[path])
        if digest == wanted[path]:
            return ""
        return f"{path[short:]} has changed since the commit{_damage(local) if '/Split-' in path else ''}"

    with ThreadPoolExecutor(cores()) as pool:
        findings += [finding for finding in pool.map(check, present) if finding]
    return Verified(findings, len(present), sum(have[path] for path in present))


def _checksums(manifest: Manifest) -> dict[str, str]:
    """SHA-256 of every file that a manifest names, by path relative to the data set's folder."""
    wanted = dict(manifest.files)
    for split, shard in manifest.all_shards():
        wanted[manifest.path(split, shard)] = shard.sha256
        wanted[manifest.sidecar(shard)] = shard.sidecar_sha256
    return wanted


def _strays(paths: list[str]) -> list[str]:
    """Findings on files that the manifest does not name; temporary ones are none."""
    findings = []
    for path in paths:
        if path == manifests.NAME or f"/{TMP}/" in f"/{path}":
            continue
        if "/Split-" in f"/{path}":
            findings.append(f"{path} is read as records by training though the manifest does not name it")
        else:
            findings.append(f"{path} is not in the manifest")
    return findings


def _damage(shard: Path) -> str:
    """Where a damaged shard is damaged, as far as its own checksums tell."""
    last = ""
    try:
        for offset, data in read_records(shard):
            try:
                last = f" after record {decode_example(data)['patch_id']!r} at byte {offset}"
            except (ValueError, KeyError):
                return f": the record at byte {offset} is no Example"
    except CorruptRecord as error:
        return f": {error}{last}"
    return ": every record is intact, but records were added, removed or replaced"


def verify_deep(
    storage: Storage,
    dataset_dir: str,
    manifest: Manifest,
    input_root: str,
    sample: int,
    path_map: dict[str, str] | None,
    progress: Callable[[int], None] = lambda n: None,
) -> Verified:
    """Decodes sources again, by other decoders than the ingest's, and compares every pixel with the records.

    Args:
        storage: Where the data set lies.
        dataset_dir: Its folder.
        manifest: Its manifest.
        input_root: The raw folder.
        sample: Records to compare, spread evenly; 0 for all.
        path_map: Token -> path of a pseudonymised data set.
        progress: Told after each record.

    Raises:
        UsageError: The raw folder is gone, or the data set is pseudonymised and no map was given.
    """
    columns = ["patch_id", "path", "split", "shard", "offset"]
    table = pq.read_table(storage.local_copy(f"{dataset_dir}/patches.parquet"), columns=columns)
    if manifest.key_fingerprint and path_map is None:
        raise UsageError(
            "The data set is pseudonymised: its records don't tell where their sources are.", "Give --path-map."
        )
    n = len(table)
    chosen = range(n) if not sample or sample >= n else sorted({int(i * n / sample) for i in range(sample)})
    source = open_source(input_root)
    findings: list[str] = []
    read = 0
    for row in table.take(list(chosen)).to_pylist():
        path = path_map.get(row["path"], "") if path_map is not None else row["path"]
        data = source.read_any(path, 1 << 30) if path else None
        progress(1)
        if data is None:
            findings.append(f"{row['path']}: its source can't be read under {input_root}")
            continue
        read += len(data)
        shard = storage.local_copy(f"{dataset_dir}/{shard_path(row['split'], row['shard'])}")
        difference = _difference(shard, row["offset"], data, Path(path).suffix.lower(), manifest)
        if difference:
            findings.append(f"{row['path']}: {difference}")
    return Verified(findings, len(chosen), read, len(chosen))


def _difference(shard: Path, offset: int, source: bytes, suffix: str, manifest: Manifest) -> str:
    """How a record's pixels differ from those of its source file, decoded anew; empty where they are equal."""
    from components.images.independent import decode_independent, fit_independent

    try:
        got = decode_pixels(decode_example(read_at(shard, offset)))
        want = fit_independent(decode_independent(source, suffix), manifest.source_size, manifest.stored_size)
    except (Rejected, ValueError) as error:
        return str(error)
    if got.shape != want.shape:
        return f"stored as {got.shape[1]}x{got.shape[0]}, its source gives {want.shape[1]}x{want.shape[0]}"
    if np.array_equal(got, want):
        return ""
    worst = int(np.abs(got.astype(int) - want.astype(int)).max())
    return f"{int((got != want).any(-1).sum())} pixels differ, by up to {worst} grey levels"


def ledger_finding(storage: Storage, dataset_dir: str, manifest: Manifest) -> list[str]:
    """The ledger in splits.json is the one that the manifest was made with."""
    text = storage.read_bytes(f"{dataset_dir}/splits.json")
    same = hashlib.sha256(text).hexdigest() == manifest.ledger.sha256
    return [] if same else ["splits.json is not the ledger of this data set"]
