"""The gates before training: bytes as committed, records as the schema says, colours as the champion's data had them.

TFX reads whatever lies in a Split folder, and a TFRecord reader can hang on a damaged record: so checksums come first.
TFX's ExampleValidator never fails a run: its anomalies do so here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.datasets.verify import Verified, verify_bytes
from components.errors import DataError
from components.metrics import drift
from components.promotion import champion as champions
from components.storage.base import Storage
from components.training import run_record
from schemas.tables import COLOUR_COLUMNS

STATISTICS = "statistics.json"
"""Colour statistics of a run's data set, in the run folder and in `assets.extra/` of a version."""


class DriftError(DataError):
    """Colours have shifted.

    Args:
        what: As in `HistolineError`.
        fix: Likewise.
        drift: What run.json keeps under `drift`.
    """

    def __init__(self, what: str, fix: str = "", drift: dict[str, Any] | None = None) -> None:
        super().__init__(what, fix)
        self.drift = drift or {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.what, self.fix, self.drift))


def check_intact(storage: Storage, dataset_dir: str, manifest: Manifest) -> Verified:
    """Compares every file with its checksum in the manifest.

    Files that no step reads (outside the Split folders, not in the manifest) are no reason to stop.

    Args:
        storage: Where the data set lies.
        dataset_dir: Its folder, relative to the storage.
        manifest: As `manifest.load` gave it.

    Returns:
        What was read.

    Raises:
        DataError: A file is missing, changed, or too many in a Split folder.
    """
    result = verify_bytes(storage, dataset_dir, manifest)
    findings = [finding for finding in result.findings if not finding.endswith("is not in the manifest")]
    if findings:
        more = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
        raise DataError(
            f"{storage.uri(dataset_dir)} is not what was committed: {'; '.join(findings[:3])}{more}.",
            "Run the same ingest again: it writes missing and damaged shards anew from the raw folder. Nothing was"
            " trained.",
        )
    return result


def read_anomalies(folder: Path) -> list[str]:
    """What ExampleValidator found, one sentence each.

    Args:
        folder: URI of its output, which holds Split-*/SchemaDiff.pb.

    Raises:
        DataError: There is no SchemaDiff.pb of any split, so nothing was proved.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    found = []
    files = sorted(folder.glob("Split-*/SchemaDiff.pb"))
    if not files:
        raise DataError(
            f"{folder} holds no SchemaDiff.pb: the examples were not validated.", "Run the step again."
        )
    for file in files:
        split = file.parent.name.removeprefix("Split-")
        anomalies = anomalies_pb2.Anomalies.FromString(file.read_bytes())
        named: list[tuple[str, Any]] = sorted(anomalies.anomaly_info.items())
        if anomalies.HasField("dataset_anomaly_info"):
            named.append(("the data set", anomalies.dataset_anomaly_info))
        for name, info in named:
            if info.severity != anomalies_pb2.AnomalyInfo.WARNING:
                found.append(
                    f"{split} split, {name}: {info.description or info.short_description}".rstrip(".")
                )
        if anomalies.data_missing:
            found.append(f"{split} split: it holds no examples")
    return found


def check_anomalies(folder: Path) -> None:
    """Fails where the examples break their schema.

    Args:
        folder: URI of ExampleValidator's output.

    Raises:
        DataError: They do; tells the first three anomalies.
    """
    found = read_anomalies(folder)
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise DataError(
            f"The examples break the data set's schema: {'; '.join(found[:3])}{more}.",
            "Correct the raw data and ingest again, or, where the schema is wrong, schemas/DATASET.pbtxt. Nothing was"
            " trained.",
        )


def read_group_means(storage: Storage, dataset_dir: str, manifest: Manifest) -> drift.GroupMeans:
    """Colour features of all patches from the sidecars, averaged over groups.

    Args:
        storage: Where the data set lies.
        dataset_dir: Its folder, relative to the storage.
        manifest: Its manifest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = storage.local_copies([f"{dataset_dir}/{manifest.sidecar(shard)}" for _, shard in manifest.all_shards()])
    columns = ["group_id", "split", *COLOUR_COLUMNS]
    table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    features = np.stack([table[name].to_numpy() for name in COLOUR_COLUMNS], axis=1)
    return drift.group_means(table["group_id"].to_pylist(), table["split"].to_pylist(), features)


def check_drift(
    now: drift.GroupMeans,
    champion: Mapping[str, Any] | None,
    version: str,
    accepted: str = "",
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Fails where colours have shifted against the champion's data, unless that was accepted.

    Args:
        now: Of the data set at hand.
        champion: The champion's statistics; None where there is no champion, or it has none.
        version: Of the champion, empty where there is none.
        accepted: Reason given with --accept-drift; empty for none.
        thresholds: See `drift.compare`.

    Returns:
        What run.json keeps under `drift`.

    Raises:
        DriftError: Colours have shifted; `drift` of the error holds which.
    """
    if not version or champion is None:
        report = drift.summary([], accepted)
        if version:
            report["skipped"] = f"champion {version} carries no colour statistics"
        return report
    shifts = drift.compare(now, champion, thresholds)
    report = drift.summary(shifts, accepted, version)
    if report["drifted"] and not accepted:
        raise DriftError(
            f"The colours have shifted against the data of champion {version}: {drift.sentence(shifts)}.",
            "Look at the new images (scanner, stain, file conversion). If the shift is wanted, train with"
            " --accept-drift REASON. Nothing was trained.",
            report,
        )
    return report


def drift_gate(storage: Storage, run_folder: str) -> dict[str, Any]:
    """Writes the run's statistics.json and compares its colours with the champion's data.

    Args:
        storage: The workspace.
        run_folder: Of the run, relative to it.

    Returns:
        What run.json keeps under `drift`.

    Raises:
        DriftError: Colours have shifted and nobody accepted it.
    """
    record = run_record.read(storage, run_folder)
    dataset_dir = record.dataset_dir
    now = read_group_means(storage, dataset_dir, manifests.load(storage, dataset_dir))
    facts = {key: getattr(record, key) for key in ("dataset", "task", "plan_id", "content_digest", "group_unit")}
    text = json.dumps(drift.statistics(now, facts), indent=1, allow_nan=False) + "\n"
    storage.write_atomic(f"{run_folder}/{STATISTICS}", text.encode(), tmp_dir=f"{run_folder}/.tmp")
    version, theirs = champion_statistics(storage, record.dataset, record.task)
    options = record.options
    accepted = str(options.get("accept_drift") or "")
    try:
        report = check_drift(now, theirs, version, accepted, options.get("drift_thresholds"))
    except DriftError as error:
        run_record.update(storage, run_folder, drift=error.drift)
        raise
    changes: dict[str, Any] = {"drift": report}
    if report["drifted"]:
        names = ", ".join(report["drifted"])
        changes["warnings"] = [f"Colour drift against champion {version} ({names}) was accepted: {accepted}"]
    run_record.update(storage, run_folder, **changes)
    return report


def champion_statistics(storage: Storage, dataset: str, task: str) -> tuple[str, Mapping[str, Any] | None]:
    """Version and colour statistics of the champion; an empty version where there is none, None where it has none."""
    folder = champions.home(dataset, task)
    found = champions.load(storage, folder)
    if found is None:
        return "", None
    version = found.current.version
    for path in (
        f"{folder}/{version}/assets.extra/{STATISTICS}",
        f"{run_record.run_dir(dataset, task, found.current.run_id)}/{STATISTICS}",
    ):
        if storage.exists(path):
            try:
                theirs = json.loads(storage.read_bytes(path))
            except ValueError:
                continue
            if isinstance(theirs, dict):
                return str(version), theirs
    return str(version), None
