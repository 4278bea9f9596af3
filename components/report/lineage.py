"""Where a model comes from: raw folder, data set, recipe and code, model, version, each with its digest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from components.report.evidence import Evidence
from components.training.run_types import RunRecord


@dataclasses.dataclass(frozen=True)
class Link:
    """One station.

    Attributes:
        title: What it is.
        place: Where it lies, or what it is called.
        digests: Name to digest or identifier.
    """

    title: str
    place: str
    digests: tuple[tuple[str, str], ...]


def lineage(evidence: Evidence) -> list[Link]:
    """From the raw folder to the pushed version."""
    record, manifest = evidence.record, evidence.manifest
    digests = record.digests
    data = (("plan", record.plan_id), ("content", record.content_digest), ("manifest", record.manifest_digest))
    raw = "unknown, as the data set is gone"
    if manifest is not None:
        raw = manifest.input or "withheld (pseudonymised)"
    recipe = str(record.config.get("title") or record.config.get("model", ""))
    pushed = "not pushed"
    if record.version is not None:
        pushed = f"models/{record.dataset}/{record.task}/{record.version}"
    return [
        Link("Raw patches", raw, ()),
        Link("Data set", record.dataset_dir, data),
        Link("Recipe and code", recipe, _known(digests, config="recipe", source="code", inputs="inputs")),
        Link("Run", evidence.folder, ()),
        Link("Test split", _test(record), _known(digests, test_split="content")),
        Link("Exported model", record.paths.get("model", "none"), _known(digests, model="files")),
        Link("Pushed version", pushed, ()),
    ]


def _known(digests: Mapping[str, str], **names: str) -> tuple[tuple[str, str], ...]:
    return tuple((title, digests[key]) for key, title in names.items() if digests.get(key))


def _test(record: RunRecord) -> str:
    tested = record.metrics.get("test")
    return f"{tested['patches']:,} patches of {tested['groups']} {record.group_unit}s" if tested else "not evaluated"


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as dotted names and values."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            yield from flatten(item, f"{prefix}.{i}")
    else:
        yield prefix, _shown(value)


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)
