"""Leakage, looked for again from the records themselves; neither sidecars nor the ingest's own counts are trusted."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from components.core import arrow_arrays
from components.core.array_types import Array, Bools, Integers
from components.datasets.duplicates import Rows, resolve
from components.datasets.example import decode_example, decode_pixels
from components.datasets.manifest import Manifest
from components.datasets.tfrecord import CorruptRecord, read_records
from components.storage.base import Storage
from components.storage.open import open_storage
from schemas.tables import SPLITS


@dataclasses.dataclass(frozen=True)
class ShardRecords:
    """What one shard's records say.

    Attributes:
        split: Its split.
        patch_id: One per record.
        group_id: One per record.
        label: int32[N].
        pixel_hash: uint64[N, 2].
        constant: bool[N].
        problem: Why reading stopped; empty where it did not.
    """

    split: str
    patch_id: list[str]
    group_id: list[str]
    label: Integers
    pixel_hash: Array
    constant: Bools
    problem: str = ""


def read_shard(root: str, path: str, split: str) -> ShardRecords:
    """Reads every record of a shard.

    Args:
        root: Storage root.
        path: The shard, relative to it.
        split: Its split.
    """
    ids, groups, labels, hashes, constant = [], [], [], [], []
    problem = ""
    try:
        for _, data in read_records(open_storage(root).local_copy(path)):
            features = decode_example(data)
            pixels = decode_pixels(features)
            ids.append(bytes(features["patch_id"]).decode())  # type: ignore[arg-type]
            groups.append(bytes(features["group_id"]).decode())  # type: ignore[arg-type]
            labels.append(features["label"])
            hashes.append(xxhash.xxh3_128_digest(pixels.tobytes()))
            constant.append(bool((pixels == pixels[0, 0]).all()))
    except (CorruptRecord, ValueError, KeyError) as error:
        problem = f"{path}: {error}"
    pairs = np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2)
    return ShardRecords(split, ids, groups, np.array(labels, np.int32), pairs, np.array(constant, bool), problem)


@dataclasses.dataclass(frozen=True)
class Audited:
    """What an audit found.

    Attributes:
        findings: One sentence each; empty where all is well.
        records: Records read.
        shared_groups: Groups that stand in more than one split.
        duplicates_within: Identical images within one split and label (allowed).
        near_duplicates: Pairs across splits that look alike, as counted at the ingest.
    """

    findings: list[str]
    records: int
    shared_groups: int
    duplicates_within: int
    near_duplicates: int


def audit(storage: Storage, dataset_dir: str, manifest: Manifest, shards: list[ShardRecords]) -> Audited:
    """Checks that no group and no picture stands in two splits, and that all counts reconcile.

    Args:
        storage: Where the data set lies.
        dataset_dir: Its folder.
        manifest: Its manifest.
        shards: `read_shard` of every shard that the manifest names.
    """
    findings = [f"{s.problem} (histoline verify says more)" for s in shards if s.problem]
    shared, group_findings = _group_findings(manifest, shards)
    findings += group_findings
    findings += _count_findings(manifest, shards)
    findings += _table_findings(storage, dataset_dir, manifest, shards)
    resolution = _identical(shards)
    policies = "ingest again with --on-duplicate keep-train and --on-conflict reject-all"
    findings += [f"{v}: {policies}" for v in resolution.violations[:20]]
    near = manifest.near_duplicates.pairs_across_splits
    return Audited(findings, sum(len(s.patch_id) for s in shards), shared, resolution.within_split, near)


def _group_findings(manifest: Manifest, shards: list[ShardRecords]) -> tuple[int, list[str]]:
    """How many groups stand in more than one split, and the finding on them."""
    splits_of: dict[str, set[str]] = collections.defaultdict(set)
    for shard in shards:
        for group in set(shard.group_id):
            splits_of[group].add(shard.split)
    shared = sorted(group for group, splits in splits_of.items() if len(splits) > 1)
    if not shared:
        return 0, []
    named = "; ".join(f"{g!r} in {' and '.join(sorted(splits_of[g]))}" for g in shared[:5])
    where = f"{len(shared)} {manifest.group_unit}s stand in more than one split: {named}"
    return len(shared), [f"{where}. Such a set can't judge a model"]


def _count_findings(manifest: Manifest, shards: list[ShardRecords]) -> list[str]:
    """Classes whose records are not as many as the manifest says, or that a split lacks."""
    seen: collections.Counter[tuple[str, int]] = collections.Counter()
    for shard in shards:
        seen.update({(shard.split, label): int((shard.label == label).sum()) for label in range(len(manifest.classes))})
    findings = []
    for split, facts in manifest.splits.items():
        for label, name in enumerate(manifest.classes):
            if seen[split, label] != facts.by_class[name]:
                findings.append(f"{split} holds {seen[split, label]} {name}, the manifest says {facts.by_class[name]}")
            in_train = manifest.splits["train"].by_class[name]
            if not seen[split, label] and in_train and manifest.policies.on_infeasible == "fail":
                findings.append(f"{split} holds no {name}")
    return findings


def _table_findings(
    storage: Storage, dataset_dir: str, manifest: Manifest, shards: list[ShardRecords]
) -> list[str]:
    findings = []
    listed = pq.read_table(
        storage.local_copy(f"{dataset_dir}/patches.parquet"), columns=["patch_id", "group_id", "split", "label"]
    )
    rejected = pq.read_metadata(storage.local_copy(f"{dataset_dir}/rejects.parquet")).num_rows
    if len(listed) + rejected != manifest.found:
        findings.append(f"{len(listed)} written + {rejected} rejected is not {manifest.found} found")
    says = {r["patch_id"]: (r["group_id"], r["split"], r["label"]) for r in listed.to_pylist()}
    holds = {
        patch: (group, shard.split, label)
        for shard in shards
        for patch, group, label in zip(shard.patch_id, shard.group_id, shard.label.tolist())
    }
    records = sum(len(s.patch_id) for s in shards)
    if len(says) != len(listed) or len(holds) != records:
        findings.append("a patch_id stands twice")
    odd = [patch for patch in says.keys() | holds.keys() if says.get(patch) != holds.get(patch)]
    if odd:
        first = sorted(odd)[0]
        findings.append(
            f"{len(odd)} patches differ between records and patches.parquet, such as {first!r}: "
            f"{holds.get(first, 'in no shard')} and {says.get(first, 'not listed')}"
        )
    return findings


def _identical(shards: list[ShardRecords]) -> Any:
    ids = pa.chunked_array([arrow_arrays.strings(s.patch_id) for s in shards], pa.string())
    rows = Rows(
        patch_id=ids,
        path=ids,
        split=np.concatenate([np.full(len(s.patch_id), SPLITS.index(s.split), np.int8) for s in shards]),
        label=np.concatenate([s.label for s in shards]),
        pixel_hash=np.concatenate([s.pixel_hash for s in shards]),
        constant=np.concatenate([s.constant for s in shards]),
    )
    return resolve(rows, "fail", "fail")
