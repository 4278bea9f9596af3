"""manifest.json: the only commit point of a data set, and all that a later step may rely on.

It carries its own digest, so that an edit by hand is noticed, and a format version, so that an older histoline says
what it can't read instead of guessing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from components.core import json_documents
from components.datasets.layout import shard_path, sidecar_path
from components.errors import DataError, UsageError
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage

FORMAT = 1
"""Raised when a reader of an older version would misread the data set."""

NAME = "manifest.json"
SCHEMA = "manifest.schema.json"
FLAG_REASONS = {
    "leaky": "split by image: patients are shared between the splits (made to measure leakage)",
    "not_provably_patient_disjoint": "some patches have no known patient and were put into train",
    "not_patient_clustered": "no patient is known: every image is its own group",
}


_SHARES_NOBODY = "The data set shares no "


def shares_nobody(unit: str, plan_id: str) -> str:
    """The warning about a data set that has no group in common with the latest one before it.

    Args:
        unit: What a group is.
        plan_id: Of the data set before.
    """
    return f"{_SHARES_NOBODY}{unit} with {plan_id}, the latest one before it: is it the same collection?"


@dataclasses.dataclass(frozen=True)
class ShardFacts:
    """One shard and its sidecar.

    Attributes:
        file: Name of the shard in its Split folder.
        count: Records.
        bytes: Size of the shard.
        sha256: Of the shard.
        sidecar_sha256: Of the sidecar.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    sidecar_sha256: str


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """One split.

    Attributes:
        patches: Records.
        by_class: Class name -> records, in label order.
        groups_by_class: Class name -> groups with such records, in label order.
        shards: In the order in which their records count.
        groups: Groups.
    """

    patches: int
    by_class: Mapping[str, int]
    groups_by_class: Mapping[str, int]
    shards: tuple[ShardFacts, ...]
    groups: int


@dataclasses.dataclass(frozen=True)
class RejectFacts:
    """What was rejected under one code: its kind (`fault`, `policy` or `excluded`) and how many images."""

    kind: str
    count: int


@dataclasses.dataclass(frozen=True)
class LedgerFile:
    """The split ledger: path relative to the data set's folder, and digest."""

    path: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Policies:
    """How duplicates, conflicts and rare classes were dealt with.

    Attributes:
        on_duplicate: Same pixels in two splits.
        on_conflict: Same pixels under two labels.
        on_infeasible: A class with too few groups.
        copies_kept_within_split: Records with the same pixels as another one of their split and label.
        blank_copies_exempt: Constant images that equal another one.
    """

    on_duplicate: str
    on_conflict: str
    on_infeasible: str
    copies_kept_within_split: int
    blank_copies_exempt: int


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """Pairs of patches in two splits that look alike.

    Attributes:
        pairs_across_splits: How many.
        examples: The first of them, as people read them.
        plain_textures_skipped: True where patches were too many and too plain to be compared.
    """

    pairs_across_splits: int
    examples: tuple[tuple[str, ...], ...]
    plain_textures_skipped: bool


@dataclasses.dataclass(frozen=True)
class IdsWithoutFile:
    """Ids of a group or split file that name no image: how many, and the first of them."""

    count: int
    examples: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """manifest.json, field by field in the order of the file; `schemas/manifest.schema.json` is the contract.

    Attributes:
        histoline_version: That made the data set.
        ingest_version: Version of what decides on its bytes.
        dataset: Such as `idc`.
        task: `binary` or `subtype`.
        plan_id: PLAN_ID.
        input: The raw folder; empty under pseudonymisation.
        config: The part of the ingest's configuration that went into PLAN_ID.
        classes: Class names in label order.
        group_unit: `patient`, `slide` or `image`.
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels as stored.
        image_format: `raw` or `encoded`.
        label_region: (left, top, width, height) in source pixels that the label speaks of; None for all.
        microns_per_pixel: Of the source; None where unknown.
        found: Images found.
        ledger: The split ledger.
        ids_without_file: Ids of group and split files that name no image.
        flags: Keys of `FLAG_REASONS`.
        warnings: Sentences.
        created: Time of the commit, ISO 8601.
        content_digest: Over pixels, labels, groups and splits.
        written: Records in all splits.
        rejects: Code -> what was rejected.
        splits: `train`, `eval` and `test`.
        policies: How duplicates, conflicts and rare classes were dealt with.
        near_duplicates: Pairs across splits that look alike.
        files: Path of every other file -> SHA-256.
        drawn: Whether a program drew the images (`histoline synth`); not in the file where it did not.
        format: `FORMAT` when it was written.
        manifest_digest: Over all of the above; empty until it is written.
    """

    histoline_version: str
    ingest_version: int
    dataset: str
    task: str
    plan_id: str
    input: str
    config: Mapping[str, Any]
    classes: tuple[str, ...]
    group_unit: str
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    image_format: str
    label_region: tuple[int, int, int, int] | None
    microns_per_pixel: float | None
    found: int
    ledger: LedgerFile
    ids_without_file: IdsWithoutFile
    flags: tuple[str, ...]
    warnings: tuple[str, ...]
    created: str
    content_digest: str
    written: int
    rejects: Mapping[str, RejectFacts]
    splits: Mapping[str, SplitFacts]
    policies: Policies
    near_duplicates: NearDuplicates
    files: Mapping[str, str]
    drawn: bool = False
    format: int = FORMAT
    manifest_digest: str = ""

    @property
    def key_fingerprint(self) -> str:
        """Of the pseudonymisation key; empty for plain ids."""
        return str(self.config.get("key_fingerprint", ""))

    @property
    def flag_reasons(self) -> list[str]:
        """Why nothing made from this data set may be promoted, as sentences; empty where there is no reason."""
        return [FLAG_REASONS[name] for name in self.flags]

    @property
    def shares_nobody(self) -> str:
        """The warning of that name, empty where it shares a group with the data set before; see `shares_nobody`."""
        return next((text for text in self.warnings if text.startswith(_SHARES_NOBODY)), "")

    def shards(self, split: str) -> tuple[ShardFacts, ...]:
        """Shards of a split, in order."""
        return self.splits[split].shards

    def all_shards(self) -> Iterator[tuple[str, ShardFacts]]:
        """(split, shard) of all splits, in order."""
        for split, facts in self.splits.items():
            for shard in facts.shards:
                yield split, shard

    def path(self, split: str, shard: ShardFacts) -> str:
        """Path of a shard, relative to the data set's folder."""
        return shard_path(split, shard.file)

    def sidecar(self, shard: ShardFacts) -> str:
        """Path of a shard's sidecar, relative to the data set's folder."""
        return sidecar_path(shard.file)

    def to_document(self) -> dict[str, Any]:
        """Plain JSON values, as reading the file gives them."""
        document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if not self.drawn:
            del document["drawn"]
        return document


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 over a manifest's plain values without its own digest, in canonical JSON."""
    body = {key: value for key, value in document.items() if key != "manifest_digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def dump(manifest: Manifest) -> bytes:
    """Seals a manifest with its format and digest and returns the file's bytes.

    Raises:
        ValueError: It does not follow `schemas/manifest.schema.json`: a bug, found before anything is committed.
    """
    document = {**manifest.to_document(), "format": FORMAT}
    document["manifest_digest"] = digest_of(document)
    problem = json_documents.problem(document, SCHEMA)
    if problem:
        raise ValueError(f"manifest breaks its schema: {problem}")
    # In the order of the fields, so that splits stand as train, eval, test; the digest sorts.
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def load(storage: Storage, dataset_dir: str) -> Manifest:
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
        data = storage.read_bytes(f"{dataset_dir}/{NAME}")
    except StorageMissing:
        raise UsageError(
            f"{storage.uri(dataset_dir)} is not a committed data set: it holds no {NAME}.",
            "Give the folder that ingest printed, or run the same ingest again: it goes on where it stopped.",
        ) from None
    again = "Ingest again from the raw folder."
    document = json_documents.decode(data, FORMAT, where, "a manifest", again)
    if document.get("manifest_digest") != digest_of(document):
        raise DataError(
            f"{where} was changed after the commit: its digest does not match its content.",
            "Restore the file, or ingest again from the raw folder.",
        )
    problem = json_documents.problem(document, SCHEMA)
    if problem:
        raise DataError(f"{where} breaks its schema: {problem}.", again)
    return json_documents.typed(Manifest, document)


def missing_or_resized(storage: Storage, dataset_dir: str, manifest: Manifest) -> list[str]:
    """Files that are missing, too many in a Split folder, or of another size than at the commit.

    A quick look that reads no shard; `histoline verify` reads every byte.
    """
    have = {path[len(dataset_dir) + 1 :]: size for path, size in storage.list_files(dataset_dir)}
    problems = []
    for split, facts in manifest.splits.items():
        wanted = {manifest.path(split, shard): shard.bytes for shard in facts.shards}
        problems += [f"{path} is missing" for path in wanted if path not in have]
        problems += [
            f"{path} has {have[path]} bytes instead of {size}"
            for path, size in wanted.items()
            if have.get(path, size) != size
        ]
        extra = [p for p in have if p.startswith(shard_path(split, "")) and p not in wanted]
        problems += [f"{path} does not belong here" for path in extra]
        sidecars = [manifest.sidecar(shard) for shard in facts.shards]
        problems += [f"{path} is missing" for path in sidecars if path not in have]
    problems += [f"{path} is missing" for path in manifest.files if path not in have]
    return problems
