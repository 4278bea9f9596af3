"""From written shards to a committed data set: policies, audit, tables, manifest.

Reads sidecars only; a shard is opened again just where a policy takes a record out of it. Nothing counts before
manifest.json is written, which is last.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import hashlib
import os
import shutil
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.core.machine import give_memory_back
from components.core.rejects import REJECT_KINDS, reject_table
from components.datasets import manifest as manifests
from components.datasets.content_digest import ContentDigest, hash_pairs
from components.datasets.duplicates import Resolution, Rows, near_duplicates, resolve
from components.datasets.latest_pointer import write_latest
from components.datasets.layout import ShardSpec, sha256_file
from components.datasets.manifest import (
    IdsWithoutFile,
    LedgerFile,
    Manifest,
    NearDuplicates,
    Policies,
    RejectFacts,
    ShardFacts,
    SplitFacts,
)
from components.datasets.sidecars import sidecar_meta
from components.errors import DataError
from components.ingest.config import IngestConfig
from components.ingest.rewrite import drop_records
from components.ingest.shard_jobs import IngestPlan
from components.ingest.thumbnails import write_thumbnails
from components.storage.atomic_files import TMP
from components.storage.base import Storage
from components.storage.open import open_storage
from components.version import INGEST_VERSION, __version__
from schemas.tables import PATCHES, REJECTS, REPETITIVE, SPLITS

MAX_EXAMPLES = 20
_MEASURES = [
    *("pixel_hash", "perceptual_hash", "constant"),
    *("color/red_mean", "color/green_mean", "color/blue_mean", "color/tissue_fraction"),
]
"""What policies and audit need of a sidecar beside the columns of patches.parquet."""


@dataclasses.dataclass
class Written:
    """One shard as its sidecar tells of it.

    Attributes:
        spec: The shard.
        meta: count, bytes, sha256, rejects, dropped.
        table: The sidecar's rows.
        sidecar_sha256: Of the sidecar's file.
    """

    spec: ShardSpec
    meta: dict[str, Any]
    table: pa.Table
    sidecar_sha256: str


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
        shards = list(threads.map(lambda spec: _read_sidecar(storage, home, spec), plan.specs))
        discovered = pq.ParquetFile(storage.local_copy(plan.rejects_path)).read()
        _check_faults(config, plan, storage, discovered, shards)
        resolution, comparing = _resolve(config, plan, storage, shards, threads)
        _remove_strays(storage, home, plan.specs)
        splits, content_digest = _write_patches(plan, storage, shards, threads)
        near = comparing.result()
    rejects = _write_rejects(config, plan, storage, discovered, shards)
    storage.write_atomic(f"{home}/splits.json", plan.ledger.encode())
    written = sum(s.patches for s in splits.values())
    problems = [
        f"class {name} has no patch left in {split}"
        for split, names in plan.expected.items()
        for name in names
        if not splits[split].by_class[name]
    ]
    if written + len(rejects) != plan.found:
        problems.append(
            f"{written} written + {len(rejects)} rejected is not {plan.found} found (a bug: please report)"
        )
    if problems:
        raise DataError(
            f"The data set in {storage.uri(home)} was not committed: {'; '.join(problems)}.",
            "rejects.parquet there says which images were left out and why; use fewer filters, other --ratios, or "
            "--on-infeasible train-only, which keeps rare classes in train.",
        )
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
    sealed = manifests.dump(manifest)
    storage.delete_tree(f"{home}/{TMP}")
    storage.sweep(home)
    storage.write_atomic(f"{home}/{manifests.NAME}", sealed)
    return manifests.load(storage, home)


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
    }


def _count_rejects(rejects: pa.Table) -> dict[str, RejectFacts]:
    counts = collections.Counter(rejects.column("code").to_pylist())
    return {code: RejectFacts(REJECT_KINDS[code], n) for code, n in sorted(counts.items())}


def _read_sidecar(storage: Storage, home: str, spec: ShardSpec) -> Written:
    local = storage.local_copy(f"{home}/{spec.sidecar}")
    table = pq.ParquetFile(local).read([*PATCHES.names, *_MEASURES], use_threads=False)
    return Written(spec, sidecar_meta(table.schema), table.replace_schema_metadata(None), sha256_file(local))


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


def _resolve(
    config: IngestConfig, plan: IngestPlan, storage: Storage, shards: list[Written], threads: Executor
) -> tuple[Resolution, Future[NearDuplicates]]:
    """Applies the policies; shards that lose records are rewritten and read again in place.

    Returns:
        What was resolved, and the near-duplicates that a thread is looking for.
    """
    dropped = [d for shard in shards for d in shard.meta["dropped"]]
    shard_of_row = np.concatenate(
        [np.full(len(s.table), i) for i, s in enumerate(shards)]
        + [np.full(len(s.meta["dropped"]), i) for i, s in enumerate(shards)]
    ).astype(np.int64)
    split_of_shard = np.array([SPLITS.index(s.spec.split) for s in shards], np.int8)
    gone = np.frombuffer(bytes.fromhex("".join(d["pixel_hash"] for d in dropped)), np.uint64).reshape(-1, 2)

    def texts(name: str) -> pa.ChunkedArray:
        chunks = [chunk for s in shards for chunk in s.table.column(name).chunks]
        return pa.chunked_array([*chunks, arrow_arrays.strings([d[name] for d in dropped])])

    def numbers(name: str, extra: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([*(arrow_arrays.values(s.table.column(name)) for s in shards), extra])

    rows = Rows(
        patch_id=texts("patch_id"),
        path=texts("path"),
        split=split_of_shard[shard_of_row],
        label=numbers("label", np.array([d["label"] for d in dropped], np.int32)),
        pixel_hash=np.concatenate([*(hash_pairs(s.table.column("pixel_hash")) for s in shards), gone]),
        constant=numbers("constant", np.zeros(len(dropped), bool)),
    )
    resolution = resolve(rows, config.on_duplicate, config.on_conflict)
    if resolution.violations:
        raise DataError(
            f"{len(resolution.violations)} sets of identical images break a rule: "
            f"{'; '.join(resolution.violations[:3])}.",
            "--on-duplicate keep-train and --on-conflict reject-all, the defaults, resolve and list them.",
        )
    near = threads.submit(_near, list(shards), rows, resolution)
    by_shard: dict[int, dict[str, tuple[str, str]]] = collections.defaultdict(dict)
    for drop in resolution.drops:
        by_shard[int(shard_of_row[drop.row])][rows.id(drop.row)] = (drop.code, drop.detail)
    for number, drops in sorted(by_shard.items()):
        drop_records(plan.write, shards[number].spec, drops)
        shards[number] = _read_sidecar(storage, plan.write.dataset_dir, shards[number].spec)
    return resolution, near


def _near(shards: list[Written], rows: Rows, resolution: Resolution) -> NearDuplicates:
    def numbers(name: str) -> npt.NDArray[Any]:
        return np.concatenate([arrow_arrays.values(s.table.column(name)) for s in shards])

    kept = np.ones(sum(len(s.table) for s in shards), bool)
    kept[[d.row for d in resolution.drops if d.row < len(kept)]] = False
    at = np.flatnonzero(kept)
    pairs, crowded = near_duplicates(
        numbers("perceptual_hash")[at],
        rows.split[at],
        np.stack([numbers(f"color/{c}_mean")[at] for c in ("red", "green", "blue")], 1),
        numbers("color/tissue_fraction")[at],
    )
    examples = [
        tuple(f"{rows.name(at[i])} ({SPLITS[rows.split[at[i]]]})" for i in pair) for pair in pairs[:MAX_EXAMPLES]
    ]
    return NearDuplicates(len(pairs), tuple(examples), crowded)


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
