"""Gathers what TFX's nodes left into tfx.json, which the report reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.report.tfx_document import FORMAT as DOCUMENT_FORMAT
from components.report.tfx_document import Anomaly, BesideModel, FeatureStatistics, TfxDocument
from pipelines.tfx import lineage
from pipelines.tfx.metadata_store import Store, open_store, troubles

FEW = 10
"""Different texts of a feature that are still named under their bars."""

IDS = ("patch_id", "group_id", "slide_id")
"""Features whose texts are only counted."""

SPLITS = ("train", "eval", "test")


def collect(store: Store, pipeline: str, run_id: str, beside: BesideModel | None) -> TfxDocument:
    """What TFX knows of a run by now.

    Args:
        store: ML Metadata.
        pipeline: TFX's name of the pipeline.
        run_id: RUN_ID.
        beside: The champion in TFMA's evaluation, where that is known.
    """
    with troubles(store):
        executions, artifacts = lineage.read(open_store(store), pipeline, run_id)
    made = {number for execution in executions for number in execution.outputs}
    places = {artifact.type: Path(artifact.place) for artifact in artifacts if artifact.id in made}
    examples = places.get("ExampleStatistics")
    anomalies = places.get("ExampleAnomalies")
    evaluation = places.get("ModelEvaluation")
    done = evaluation is not None and (evaluation / "eval_config.json").is_file()
    return TfxDocument(
        format=DOCUMENT_FORMAT,
        store=store.place,
        executions=executions,
        artifacts=artifacts,
        statistics=statistics(examples) if examples else (),
        anomalies=found_anomalies(anomalies) if anomalies else None,
        beside=beside if done else None,
        evaluation=str(evaluation) if done else "",
    )


def statistics(folder: Path) -> tuple[FeatureStatistics, ...]:
    """TFDV's statistics, feature by feature.

    Args:
        folder: URI of StatisticsGen's output, which holds Split-*/FeatureStats.pb.
    """
    from tensorflow_metadata.proto.v0 import statistics_pb2

    found = []
    for split in SPLITS:
        file = folder / f"Split-{split}" / "FeatureStats.pb"
        if not file.is_file():
            continue
        statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
        for dataset in statistics.datasets:
            found += [_feature(feature, split, int(dataset.num_examples)) for feature in dataset.features]
    order = {split: number for number, split in enumerate(SPLITS)}
    return tuple(sorted(found, key=lambda one: (one.feature, order[one.split])))


def _feature(feature: Any, split: str, examples: int) -> FeatureStatistics:
    kind = feature.WhichOneof("stats")
    values = getattr(feature, kind)
    name = ".".join(feature.path.step) or feature.name
    count = int(values.common_stats.num_non_missing)
    mean = deviation = low = high = unique = None
    bars: list[float] = []
    labels: list[str] = []
    if kind == "num_stats":
        mean, deviation, low, high = values.mean, values.std_dev, values.min, values.max
        equal = [h for h in values.histograms if h.type == h.STANDARD]
        bars = [float(bucket.sample_count) for bucket in equal[0].buckets] if equal else []
    elif kind == "string_stats":
        unique = int(values.unique)
        top = list(values.rank_histogram.buckets)[:FEW]
        bars = [float(bucket.sample_count) for bucket in top]
        labels = [str(bucket.label) for bucket in top] if unique <= FEW and name not in IDS else []
    elif kind == "bytes_stats":
        unique = int(values.unique) or None
    return FeatureStatistics(
        feature=name,
        split=split,
        kind=type(feature).Type.Name(feature.type),
        count=count,
        missing=max(0, examples - count),
        mean=mean,
        deviation=deviation,
        low=low,
        high=high,
        unique=unique,
        bars=tuple(bars),
        labels=tuple(labels),
    )


def found_anomalies(folder: Path) -> tuple[Anomaly, ...] | None:
    """TFDV's anomalies, warnings too; None where nothing was validated.

    Args:
        folder: URI of ExampleValidator's output, which holds Split-*/SchemaDiff.pb.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    files = sorted(folder.glob("Split-*/SchemaDiff.pb"))
    if not files:
        return None
    found = []
    for file in files:
        split = file.parent.name.removeprefix("Split-")
        anomalies = anomalies_pb2.Anomalies.FromString(file.read_bytes())
        named: list[tuple[str, Any]] = sorted(anomalies.anomaly_info.items())
        if anomalies.HasField("dataset_anomaly_info"):
            named.append(("", anomalies.dataset_anomaly_info))
        for name, info in named:
            severity = "warning" if info.severity == anomalies_pb2.AnomalyInfo.WARNING else "error"
            found.append(Anomaly(split, name, str(info.description or info.short_description), severity))
        if anomalies.data_missing:
            found.append(Anomaly(split, "", "It holds no examples.", "error"))
    return tuple(found)
