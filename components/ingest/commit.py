"""From written shards to a committed data set: policies, audit, tables, manifest.

Reads sidecars only; a shard is opened again just where a policy takes a record out of it. Nothing counts before
manifest.json is written, which is last.
"""

from __future__ import annotations

import collections
import datetime
import hashlib
import os
import shutil
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.core.machine import give_memory_back
from components.core.rejects import REJECT_KINDS, reject_table
from components.datasets import manifest as manifests
from components.datasets.content_digest import ContentDigest, hash_pairs
from components.datasets.latest_pointer import write_latest
from components.datasets.layout import ShardSpec, sha256_file
from components.datasets.manifest import (
    IdsWithoutFile,
    LedgerFile,
    Manifest,
    Policies,
    RejectFacts,
    ShardFacts,
    SplitFacts,
)
from components.errors import DataError
from components.ingest.config import IngestConfig
from components.ingest.copies import Written, read_sidecar, resolve_copies
from components.ingest.shard_jobs import IngestPlan
from components.ingest.thumbnails import write_thumbnails
from components.storage.atomic_files import TMP
from components.storage.base import Storage
from components.storage.open import open_storage
from components.version import INGEST_VERSION, __version__
from schemas.tables import PATCHES, REJECTS, REPETITIVE, SPLITS


def commit(config: IngestConfig, plan: IngestPlan) -> Manifest:
    """Resolves duplicates, audits, and commits what the shard writers left.

    Returns:
        The manifest.

    Raises:
        DataError: Too many faults, or the audit failed; rejects.parquet is left for a look.
    """
    give_memory_back()  # what writing shards left in this process
    storage = open_storage(config.workspace)
    home = plan.write.dataset_dir
    with ThreadPoolExecutor(2) as threads:  # Arrow and NumPy let go of the GIL where the work is
        shards = list(threads.map(lambda spec: read_sidecar(storage, home, spec), plan.specs))
        discovered = pq.ParquetFile(storage.local_copy(plan.rejects_path)).read()
        _check_faults(config, plan, storage, discovered, shards)
        resolution, comparing = resolve_copies(config, plan, storage, shards, threads)
        _remove_strays(storage, home, plan.specs)
        splits, content_digest = _write_patches(plan, storage, shards, threads)
        near = comparing.result()
    rejects = _write_rejects(config, plan, storage, discovered, shards)
    storage.write_atomic(f"{home}/splits.json", plan.ledger.encode())
    written = sum(s.patches for s in splits.values())
    _check_complete(plan, splits, written, len(rejects), storage.uri(home))
    tables = ("patches.parquet", "rejects.parquet", "splits.json")
    pictures = [path[len(home) + 1 :] for path, _ in storage.list_files(f"{home}/thumbnails")]
    manifest = Manifest(
        **_describe(config, plan),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        content_digest=content_digest,
        written=written,
        rejects=_count_rejects(rejects),
        splits=splits,
        policies=Policies(
            on_duplicate=config.on_duplicate,
            on_conflict=config.on_conflict,
            on_infeasible=config.on_infeasible,
            copies_kept_within_split=resolution.within_split,
            blank_copies_exempt=resolution.blank_copies,
        ),
        near_duplicates=near,
        files={name: sha256_file(storage.local_copy(f"{home}/{name}")) for name in (*tables, *pictures)},
    )
    _seal(storage, home, manifest)
    return manifests.load(storage, home)


def _check_complete(plan: IngestPlan, splits: dict[str, SplitFacts], written: int, rejected: int, where: str) -> None:
    """Refuses a data set that lost a class somewhere, or whose counts do not add up."""
    problems = [
        f"class {name} has no patch left in {split}"
        for split, names in plan.expected.items()
        for name in names
        if not splits[split].by_class[name]
    ]
    if written + rejected != plan.found:
        problems.append(f"{written} written + {rejected} rejected is not {plan.found} found (a bug: please report)")
    if problems:
        raise DataError(
            f"The data set in {where} was not committed: {'; '.join(problems)}.",
            "rejects.parquet there says which images were left out and why; use fewer filters, other --ratios, or "
            "--on-infeasible train-only, which keeps rare classes in train.",
        )


def _seal(storage: Storage, home: str, manifest: Manifest) -> None:
    """Sweeps what is temporary, then writes the manifest: from here on the data set is committed."""
    sealed = manifests.dump(manifest)
    storage.delete_tree(f"{home}/{TMP}")
    storage.sweep(home)
    storage.write_atomic(f"{home}/{manifests.NAME}", sealed)


def move_latest(config: IngestConfig, plan: IngestPlan, manifest: Manifest, request: str = "") -> bool:
    """Lets latest.json name this data set, where the ingest was a plain one; tells whether it does now.

    Args:
        config: The ingest's configuration.
        plan: Its plan.
        manifest: What was committed.
        request: `request_digest` of the options, so that the same ingest is recognised at once next time.
    """
    if config.moves_latest:
        known = "" if config.rehash else request
        extensions = sorted(config.adapter.extensions)
        write_latest(open_storage(config.workspace), config.home, manifest, known, plan.fingerprint, extensions)
    return config.moves_latest


def _describe(config: IngestConfig, plan: IngestPlan) -> dict[str, Any]:
    """The part of the manifest that was known before the first image was decoded."""
    adapter = config.adapter
    # A folder's name need not be UTF-8, and outside a UTF-8 locale it comes as lone surrogates.
    shown = os.fsencode(config.input_root).decode("utf-8", "backslashreplace")
    return {
        "histoline_version": __version__,
        "ingest_version": INGEST_VERSION,
        "dataset": config.dataset,
        "task": config.task,
        "plan_id": plan.plan_id,
        "input": "" if config.pseudonymise else shown,
        "config": plan.identity,
        "classes": adapter.classes(config.task),
        "group_unit": plan.group_unit,
        "source_size": adapter.source_size,
        "stored_size": config.stored_size,
        "image_format": config.image_format,
        "label_region": adapter.label_region,
        "microns_per_pixel": adapter.microns_per_pixel,
        "found": plan.found,
        "ledger": LedgerFile("splits.json", hashlib.sha256(plan.ledger.encode()).hexdigest()),
        "ids_without_file": IdsWithoutFile(**plan.ids_without_file),
        "flags": tuple(plan.flags),
        "warnings": tuple(plan.warnings),
        "drawn": plan.drawn,
    }


def _count_rejects(rejects: pa.Table) -> dict[str, RejectFacts]:
    counts = collections.Counter(rejects.column("code").to_pylist())
    return {code: RejectFacts(REJECT_KINDS[code], n) for code, n in sorted(counts.items())}


def _check_faults(
    config: IngestConfig, plan: IngestPlan, storage: Storage, discovered: pa.Table, shards: list[Written]
) -> None:
    home = plan.write.dataset_dir
    rows = [tuple(r) for shard in shards for r in shard.meta["rejects"]]
    table = pa.concat_tables([discovered, reject_table(rows)])
    faults = pc.filter(table, pc.is_in(table.column("kind"), value_set=arrow_arrays.strings(["fault"])))
    if len(faults) <= config.max_faults * plan.found:
        return
    scratch = storage.scratch(home)
    pq.write_table(table, scratch / "rejects")
    storage.commit_file(scratch / "rejects", f"{home}/rejects.parquet")
    shutil.rmtree(scratch, ignore_errors=True)
    codes = collections.Counter(faults.column("code").to_pylist())
    shown = "; ".join(f"{f['path']!r}: {f['code']}, {f['detail']}" for f in faults.slice(0, 3).to_pylist())
    raise DataError(
        f"{len(faults)} of {plan.found} images are faulty "
        f"({', '.join(f'{c} {n}' for c, n in codes.most_common())}), more than"
        f" --max-faults {config.max_faults:g} allows. "
        f"First: {shown}. All are listed in {storage.uri(home)}/rejects.parquet.",
        "Repair or remove them, or raise --max-faults if they may be left out.",
    )


def _remove_strays(storage: Storage, home: str, specs: list[ShardSpec]) -> None:
    wanted = {f"{home}/{s.path}" for s in specs} | {f"{home}/{s.sidecar}" for s in specs}
    for folder in (*(f"Split-{s}" for s in SPLITS), "sidecars"):
        for path, _ in storage.list_files(f"{home}/{folder}"):
            if path not in wanted:
                storage.delete(path)


def _write_patches(
    plan: IngestPlan, storage: Storage, shards: list[Written], threads: Executor
) -> tuple[dict[str, SplitFacts], str]:
    """Writes patches.parquet shard by shard and counts on the way; returns `splits` and the content digest."""
    home, classes = plan.write.dataset_dir, plan.write.classes
    by_class = {s: dict.fromkeys(classes, 0) for s in SPLITS}
    files: dict[str, list[ShardFacts]] = {s: [] for s in SPLITS}
    groups: dict[str, dict[str, set[str]]] = {s: {c: set() for c in classes} for s in SPLITS}
    digest = ContentDigest()
    scratch = storage.scratch(home)
    writing = threads.submit(_write_table, scratch / "patches", shards)
    for shard in shards:
        counts, seen = by_class[shard.spec.split], groups[shard.spec.split]
        labels = arrow_arrays.values(shard.table.column("label"))
        group_ids = shard.table.column("group_id")
        digest.add(hash_pairs(shard.table.column("pixel_hash")), labels, group_ids, shard.spec.split)
        for number, count in enumerate(np.bincount(labels, minlength=len(classes))):
            counts[classes[number]] += int(count)
            if count:
                seen[classes[number]].update(
                    pc.unique(pc.filter(group_ids, arrow_arrays.numbers(labels == number))).to_pylist()
                )
        meta = shard.meta
        facts = ShardFacts(shard.spec.file, meta["count"], meta["bytes"], meta["sha256"], shard.sidecar_sha256)
        files[shard.spec.split].append(facts)
    writing.result()
    storage.commit_file(scratch / "patches", f"{home}/patches.parquet")
    shutil.rmtree(scratch, ignore_errors=True)
    splits = {
        s: SplitFacts(
            patches=sum(by_class[s].values()),
            by_class=by_class[s],
            groups_by_class={c: len(g) for c, g in groups[s].items()},
            shards=tuple(files[s]),
            groups=len(set().union(*groups[s].values())),
        )
        for s in SPLITS
    }
    return splits, digest.hexdigest()


def _write_table(file: Path, shards: list[Written]) -> None:
    with pq.ParquetWriter(file, PATCHES, compression="zstd", use_dictionary=REPETITIVE) as writer:
        for shard in shards:
            writer.write_table(shard.table.select(PATCHES.names))


def _write_rejects(
    config: IngestConfig, plan: IngestPlan, storage: Storage, discovered: pa.Table, shards: list[Written]
) -> pa.Table:
    home = plan.write.dataset_dir
    rows = [tuple(r) for s in shards for r in s.meta["rejects"]]
    rows += [(d["path"], d["code"], d["detail"]) for s in shards for d in s.meta["dropped"]]
    table = pa.concat_tables([discovered, reject_table(rows)])
    table = pc.take(table, pc.sort_indices(table, sort_keys=[("path", "ascending"), ("code", "ascending")]))
    shown = {} if config.pseudonymise else write_thumbnails(storage, home, config.input_root, table)
    names = [shown.get(path, "") for path in table.column("path").to_pylist()]
    table = table.append_column("thumbnail", arrow_arrays.strings(names))
    scratch = storage.scratch(home)
    columns = {name: table.column(name) for name in REJECTS.names}
    pq.write_table(arrow_arrays.table(columns, REJECTS), scratch / "rejects", compression="zstd")
    storage.commit_file(scratch / "rejects", f"{home}/rejects.parquet")
    shutil.rmtree(scratch, ignore_errors=True)
    return table
