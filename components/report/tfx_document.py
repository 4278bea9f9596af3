"""tfx.json of a run: what TFX and ML Metadata know of it, for pages that load neither."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.core import json_documents
from components.errors import HistolineError
from components.storage.base import Storage

NAME = "tfx.json"
"""In the run folder."""

SCHEMA, FORMAT = "tfx.schema.json", 1


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """What TFDV found of one feature in one split.

    Attributes:
        feature: Name.
        split: Name.
        kind: TFDV's type, such as FLOAT or STRING.
        count: Examples that have it.
        missing: Examples that lack it.
        mean: Of numbers; None for texts and bytes.
        deviation: Standard deviation, likewise.
        low: Smallest, likewise.
        high: Largest, likewise.
        unique: Different texts; None for numbers.
        bars: Heights of its histogram: equal steps from `low` to `high`, or texts by how often they occur.
        labels: The texts of the bars where there are few; empty otherwise.
    """

    feature: str
    split: str
    kind: str
    count: int
    missing: int
    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None
    unique: int | None
    bars: tuple[float, ...]
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Anomaly:
    """What TFDV's validation objects to.

    Attributes:
        split: Name.
        feature: Name, empty where it speaks of the whole data set.
        text: Its description.
        severity: `error` or `warning`.
    """

    split: str
    feature: str
    text: str
    severity: str


@dataclasses.dataclass(frozen=True)
class BesideModel:
    """The champion beside the candidate in TFMA's evaluation.

    Attributes:
        version: Of the champion; None where there was none.
        reason: Why it does not stand there, as a clause; empty where it does.
    """

    version: int | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An artifact of ML Metadata.

    Attributes:
        id: Number in the store.
        type: Name of its type.
        place: URI.
        state: Such as LIVE.
        properties: Name to value, as text.
    """

    id: int
    type: str
    place: str
    state: str
    properties: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Execution:
    """An execution of ML Metadata.

    Attributes:
        id: Number in the store.
        node: Name of the pipeline's node.
        type: Name of its type.
        state: Such as COMPLETE or CACHED.
        started: ISO 8601, UTC.
        inputs: Numbers of the artifacts that it read.
        outputs: Numbers of the artifacts that it made.
    """

    id: int
    node: str
    type: str
    state: str
    started: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TfxDocument:
    """tfx.json, field by field in the order of the file; `schemas/tfx.schema.json` is the contract.

    Attributes:
        format: Of the file.
        store: Where ML Metadata lies, without a password.
        executions: Of the run, and the ingest of its data, oldest first.
        artifacts: That they read and made.
        statistics: Of every feature and split; empty before validation.
        anomalies: That validation found; None before it.
        beside: The champion in TFMA's evaluation; None before it.
        evaluation: Where TFMA's results lie; empty before it.
    """

    format: int
    store: str
    executions: tuple[Execution, ...]
    artifacts: tuple[Artifact, ...]
    statistics: tuple[FeatureStatistics, ...]
    anomalies: tuple[Anomaly, ...] | None
    beside: BesideModel | None
    evaluation: str


def write(storage: Storage, folder: str, document: TfxDocument) -> None:
    """Writes tfx.json of a run, whole.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it; locked by the caller.
        document: What to keep.
    """
    fields = {field.name: json_documents.plain(getattr(document, field.name)) for field in dataclasses.fields(document)}
    storage.write_atomic(f"{folder}/{NAME}", json_documents.dump(fields, SCHEMA), tmp_dir=f"{folder}/.tmp")


def read(storage: Storage, folder: str) -> TfxDocument | None:
    """tfx.json of a run; None where there is none that can be read.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
    """
    path = f"{folder}/{NAME}"
    if not storage.exists(path):
        return None
    try:
        values = json_documents.parse(storage.read_bytes(path), SCHEMA, storage.uri(path), "Run the stage again.")
    except HistolineError:
        return None
    return from_values(values)


def from_values(values: Mapping[str, Any]) -> TfxDocument:
    """Plain JSON values that follow the schema as a document."""
    return json_documents.typed(TfxDocument, values)
