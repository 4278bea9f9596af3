"""A manifest made by hand, for tests that need no data set."""

from __future__ import annotations

from typing import Any

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


def split_facts(name: str, shards: int = 1) -> SplitFacts:
    """A split of ten patches of four groups in this many shards."""
    files = [f"{name}-{index:05d}-of-{shards:05d}.tfrecord" for index in range(shards)]
    return SplitFacts(
        patches=10,
        by_class={"negative": 6, "idc": 4},
        groups_by_class={"negative": 4, "idc": 3},
        shards=tuple(ShardFacts(file, 10 // shards, 100, "a" * 64, "b" * 64) for file in files),
        groups=4,
    )


def manifest(**changes: Any) -> Manifest:
    """A manifest that follows its schema, but for what is changed; not sealed."""
    facts: dict[str, Any] = {
        "histoline_version": "1.2.3",
        "ingest_version": 1,
        "dataset": "idc",
        "task": "binary",
        "plan_id": "0123456789abcdef",
        "input": "/raw/idc",
        "config": {"size": [50, 50], "seed": 0, "max_faults": 0.01, "key_fingerprint": ""},
        "classes": ("negative", "idc"),
        "group_unit": "patient",
        "source_size": (50, 50),
        "stored_size": (50, 50),
        "image_format": "raw",
        "label_region": None,
        "microns_per_pixel": 2.0,
        "found": 33,
        "ledger": LedgerFile("splits.json", "c" * 64),
        "ids_without_file": IdsWithoutFile(1, ("absent",)),
        "flags": (),
        "warnings": ("The eval split is small.",),
        "created": "2024-05-06T07:08:09+00:00",
        "content_digest": "0" * 64,
        "written": 30,
        "rejects": {"truncated": RejectFacts("fault", 1), "duplicate": RejectFacts("policy", 2)},
        "splits": {"train": split_facts("train", 2), "eval": split_facts("eval"), "test": split_facts("test")},
        "policies": Policies("keep-train", "reject-all", "fail", 0, 3),
        "near_duplicates": NearDuplicates(1, (("a (train)", "b (test)"),), False),
        "files": {"splits.json": "c" * 64, "patches.parquet": "d" * 64},
    }
    return Manifest(**{**facts, **changes})
