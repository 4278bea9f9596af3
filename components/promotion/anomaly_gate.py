"""The gate before training: schema anomalies and colour drift fail the run (TFX's ExampleValidator never does)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import DataError
from components.metrics import drift
from components.metrics.colour_baseline import COLOUR_FEATURES
from components.storage.base import Storage


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


def read_group_means(storage: Storage, dataset_dir: str, manifest: Mapping[str, Any]) -> drift.GroupMeans:
    """Colour features of all patches from the sidecars, averaged over groups.

    Args:
        storage: Where the data set lies.
        dataset_dir: Its folder, relative to the storage.
        manifest: Its manifest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    stems = [
        shard["file"].rsplit(".", 1)[0] for facts in manifest["splits"].values() for shard in facts["shards"]
    ]
    files = storage.local_copies([f"{dataset_dir}/sidecars/{stem}.parquet" for stem in stems])
    columns = ["group_id", "split", *COLOUR_FEATURES]
    table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    features = np.stack([table[name].to_numpy() for name in COLOUR_FEATURES], axis=1)
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
        DataError: Colours have shifted; `args` and `shifts` tell which.
    """
    if not version or champion is None:
        told = drift.summary([], accepted)
        if version:
            told["skipped"] = f"champion {version} carries no colour statistics"
        return told
    shifts = drift.compare(now, champion, thresholds)
    told = drift.summary(shifts, accepted, version)
    if told["drifted"] and not accepted:
        raise DriftError(
            f"The colours have shifted against the data of champion {version}: {drift.sentence(shifts)}.",
            "Look at the new images (scanner, stain, file conversion). If the shift is wanted, train with"
            " --accept-drift REASON. Nothing was trained.",
            told,
        )
    return told


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
