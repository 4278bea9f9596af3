"""The data set card of a report: counts by split and class, policies, rejects with their pictures."""

from __future__ import annotations

import dataclasses

from components.core.text import spaced
from components.datasets.manifest import Manifest
from components.report.evidence import Evidence
from schemas.tables import SPLITS

PER_CODE = 6
"""Thumbnails shown of each reject code."""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A rejected image.

    Attributes:
        path: Of the source file.
        detail: What was wrong with it.
        uri: The picture as a data URI.
    """

    path: str
    detail: str
    uri: str


@dataclasses.dataclass(frozen=True)
class Rejected:
    """Images that were not written for one reason.

    Attributes:
        code: The reason's code.
        kind: fault, policy or excluded.
        count: How many.
        examples: Some paths with details, where there is no picture.
        thumbnails: Some pictures.
    """

    code: str
    kind: str
    count: int
    examples: tuple[tuple[str, str], ...]
    thumbnails: tuple[Thumbnail, ...]


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known of the data set.

    Attributes:
        rows: One per class, then all: name, then (patches, groups) of each split.
        facts: Name to value, in order.
        policies: Likewise, what was done to duplicates, conflicts and the like.
        rejects: By code, the commonest first.
        flags: Reasons why nothing made from these data may be promoted.
        warnings: Of the ingest.
    """

    rows: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
    facts: tuple[tuple[str, str], ...]
    policies: tuple[tuple[str, str], ...]
    rejects: tuple[Rejected, ...]
    flags: tuple[str, ...]
    warnings: tuple[str, ...]


def patch_size(manifest: Manifest) -> str:
    """Width and height of a patch in micrometres, or that they are unknown."""
    scale, (width, height) = manifest.microns_per_pixel, manifest.source_size
    if scale is None:
        return f"unknown ({width} x {height} pixels)"
    return f"{width * scale:.1f} x {height * scale:.1f} µm ({width} x {height} pixels at {scale:g} µm)"


def card(evidence: Evidence, thumbnails: int = PER_CODE) -> Card | None:
    """The card; None where the data set is gone.

    Args:
        evidence: Of the run.
        thumbnails: Pictures shown of each reject code.
    """
    if evidence.manifest is None:
        return None
    manifest, splits = evidence.manifest, evidence.manifest.splits
    rows = [
        (
            spaced(name),
            tuple((splits[s].by_class.get(name, 0), splits[s].groups_by_class.get(name, 0)) for s in SPLITS),
        )
        for name in manifest.classes
    ]
    rows.append(("all", tuple((splits[s].patches, splits[s].groups) for s in SPLITS)))
    stored = " x ".join(map(str, manifest.stored_size))
    region = manifest.label_region
    facts = [
        ("Found", f"{manifest.found:,} images"),
        ("Written", f"{manifest.written:,} patches"),
        ("Rejected", f"{manifest.found - manifest.written:,}"),
        ("Patch size", patch_size(manifest)),
        ("Stored as", f"{stored} pixels, {manifest.image_format}"),
        ("Split by", manifest.group_unit),
        ("Made", f"{manifest.created} by histoline {manifest.histoline_version}"),
    ]
    if region:
        facts.insert(5, ("Label speaks of", f"the {region[2]} x {region[3]} pixels at {region[0]}, {region[1]}"))
    policies = [(spaced(key), str(value)) for key, value in dataclasses.asdict(manifest.policies).items()]
    policies.append(("near duplicates across splits", f"{manifest.near_duplicates.pairs_across_splits:,} pairs"))
    return Card(
        rows=tuple(rows),
        facts=tuple(facts),
        policies=tuple(policies),
        rejects=_rejects(evidence, manifest, thumbnails),
        flags=tuple(manifest.flag_reasons),
        warnings=manifest.warnings,
    )


def _rejects(evidence: Evidence, manifest: Manifest, limit: int) -> tuple[Rejected, ...]:
    rows = evidence.rejects.to_pylist() if evidence.rejects is not None else []
    found = []
    for code, facts in sorted(manifest.rejects.items(), key=lambda item: (-item[1].count, item[0])):
        mine = [row for row in rows if row["code"] == code]
        pictures: list[Thumbnail] = []
        for row in mine:
            if len(pictures) == limit:
                break
            uri = evidence.images.thumbnail(row["thumbnail"])
            if uri is not None:
                pictures.append(Thumbnail(row["path"], row["detail"], uri))
        examples = tuple((row["path"], row["detail"]) for row in mine[:3]) if not pictures else ()
        found.append(Rejected(code, facts.kind, facts.count, examples, tuple(pictures)))
    return tuple(found)
