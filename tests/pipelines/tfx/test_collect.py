"""What TFDV left on disk, as the report takes it."""

from __future__ import annotations

from pathlib import Path

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from components.report.tfx_document import Anomaly
from pipelines.tfx.collect import found_anomalies, statistics


def test_anomalies_are_told_with_split_and_severity(tmp_path: Path) -> None:
    assert found_anomalies(tmp_path) is None, "nothing was validated"
    broken = anomalies_pb2.Anomalies(data_missing=True)
    broken.anomaly_info["x"].description = "Out of range."
    broken.anomaly_info["x"].severity = anomalies_pb2.AnomalyInfo.ERROR
    broken.anomaly_info["y"].short_description = "Odd"
    broken.anomaly_info["y"].severity = anomalies_pb2.AnomalyInfo.WARNING
    for split, told in (("eval", broken), ("train", anomalies_pb2.Anomalies())):
        folder = tmp_path / f"Split-{split}"
        folder.mkdir()
        (folder / "SchemaDiff.pb").write_bytes(told.SerializeToString())
    assert found_anomalies(tmp_path) == (
        Anomaly("eval", "x", "Out of range.", "error"),
        Anomaly("eval", "y", "Odd", "warning"),
        Anomaly("eval", "", "It holds no examples.", "error"),
    )


def test_statistics_of_each_kind_of_feature(tmp_path: Path) -> None:
    told = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = told.datasets.add(num_examples=10)
    kinds = statistics_pb2.FeatureNameStatistics
    number = dataset.features.add(type=kinds.FLOAT)
    number.path.step.append("color/red_mean")
    number.num_stats.common_stats.num_non_missing = 8
    number.num_stats.mean, number.num_stats.std_dev, number.num_stats.min, number.num_stats.max = 4.0, 1.0, 1.0, 9.0
    quantiles, equal = (number.num_stats.histograms.add(type=kind) for kind in (1, 0))
    for _ in range(4):
        quantiles.buckets.add(sample_count=2)
    for count in (7, 1):
        equal.buckets.add(sample_count=count)
    for name, label in (("label/name", "idc"), ("group_id", "patient 9")):
        text = dataset.features.add(type=kinds.STRING)
        text.path.step.append(name)
        text.string_stats.unique = 1
        text.string_stats.common_stats.num_non_missing = 10
        text.string_stats.rank_histogram.buckets.add(label=label, sample_count=10)
    (tmp_path / "Split-test").mkdir()
    (tmp_path / "Split-test" / "FeatureStats.pb").write_bytes(told.SerializeToString())
    red, group, label = statistics(tmp_path)
    assert (red.feature, red.split, red.kind, red.count, red.missing) == ("color/red_mean", "test", "FLOAT", 8, 2)
    assert (red.mean, red.deviation, red.low, red.high, red.bars) == (4.0, 1.0, 1.0, 9.0, (7.0, 1.0))
    assert label.labels == ("idc",) and label.bars == (10.0,)
    assert group.labels == () and group.unique == 1, "no patient is named"
