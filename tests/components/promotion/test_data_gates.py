"""The gates before training, each on what it reads."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from components.datasets.example import decode_example
from components.datasets.tfrecord import read_records
from components.errors import DataError
from components.metrics import drift
from components.promotion.data_gates import DriftError, check_anomalies, check_drift, check_intact, read_group_means
from components.storage.open import open_storage
from pipelines.tfx.schema import schema_text, write_schema
from tests.support import ingest_help, manifests, trees


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ingest_help.Result:
    """A committed IDC data set; tests that damage it work on a copy."""
    root = tmp_path_factory.mktemp("gates")
    trees.idc_tree(root / "raw", patients=12, per_class=3)
    return ingest_help.ingest(root / "raw", root / "w")


@pytest.fixture
def copy(made: ingest_help.Result, tmp_path: Path) -> Path:
    """The folder of a copy."""
    import shutil

    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


def intact(made: ingest_help.Result, folder: Path) -> None:
    """Runs the gate on a folder."""
    check_intact(open_storage(folder.parent), folder.name, made.manifest)


def test_an_untouched_data_set_passes(made: ingest_help.Result) -> None:
    intact(made, made.folder)


def test_a_changed_byte_in_a_shard_is_found(made: ingest_help.Result, copy: Path) -> None:
    shard = next((copy / "Split-train").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=f"{shard.name} has changed since the commit"):
        intact(made, copy)


def test_a_missing_shard_is_found(made: ingest_help.Result, copy: Path) -> None:
    next((copy / "Split-test").iterdir()).unlink()
    with pytest.raises(DataError, match="is missing"):
        intact(made, copy)


def test_a_shard_too_many_is_found_but_a_stray_note_is_not(made: ingest_help.Result, copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    intact(made, copy)
    shard = next((copy / "Split-eval").iterdir())
    (copy / "Split-eval" / "eval-00001-of-00002.tfrecord").write_bytes(shard.read_bytes())
    with pytest.raises(DataError, match="though the manifest does not name it"):
        intact(made, copy)


def write_anomalies(folder: Path, split: str, severity: str = "ERROR", missing: bool = False) -> None:
    """SchemaDiff.pb as ExampleValidator writes it."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    anomalies = anomalies_pb2.Anomalies(data_missing=missing)
    if severity:
        info = anomalies.anomaly_info["label"]
        info.severity = anomalies_pb2.AnomalyInfo.Severity.Value(severity)
        info.description = "Unexpectedly high value: 7."
    file = folder / f"Split-{split}" / "SchemaDiff.pb"
    file.parent.mkdir(parents=True)
    file.write_bytes(anomalies.SerializeToString())


def test_anomalies_of_any_split_fail(tmp_path: Path) -> None:
    write_anomalies(tmp_path, "train", severity="")
    check_anomalies(tmp_path)
    write_anomalies(tmp_path, "test")
    with pytest.raises(DataError, match="test split, label: Unexpectedly high value: 7"):
        check_anomalies(tmp_path)


def test_warnings_do_not_fail_but_absent_data_and_absent_proof_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SchemaDiff.pb"):
        check_anomalies(tmp_path)
    write_anomalies(tmp_path, "train", severity="WARNING")
    check_anomalies(tmp_path)
    write_anomalies(tmp_path, "eval", severity="", missing=True)
    with pytest.raises(DataError, match="eval split: it holds no examples"):
        check_anomalies(tmp_path)


def test_colours_come_from_the_records(made: ingest_help.Result) -> None:
    got = read_group_means(open_storage(made.folder.parent), made.folder.name, made.manifest)
    reds: dict[str, list[float]] = {}
    for shard in made.folder.glob("Split-*/*.tfrecord"):
        for _, data in read_records(shard):
            example = decode_example(data)
            reds.setdefault(example["group_id"].decode(), []).append(example["color/red_mean"])
    column = list(drift.COLOUR_COLUMNS).index("color/red_mean")
    assert dict(zip(got.groups.tolist(), got.means[:, column], strict=True)) == pytest.approx(
        {group: np.mean(values) for group, values in reds.items()}
    )
    assert dict(zip(got.groups.tolist(), got.splits.tolist(), strict=True)) == made.splits


def shifted(data: drift.GroupMeans) -> drift.GroupMeans:
    """The same patients in another light."""
    return drift.GroupMeans(data.groups, data.splits, data.patches, data.means + 40, data.patch_std)


def test_drift_fails_unless_it_is_accepted(made: ingest_help.Result) -> None:
    data = read_group_means(open_storage(made.folder.parent), made.folder.name, made.manifest)
    champion = drift.statistics(data, {})
    assert check_drift(data, champion, "17")["drifted"] == []
    with pytest.raises(
        DriftError, match="shifted against the data of champion 17: color/.*--accept-drift REASON"
    ) as caught:
        check_drift(shifted(data), champion, "17")
    assert caught.value.exit_code == 65 and caught.value.drift["drifted"]
    assert pickle.loads(pickle.dumps(caught.value)).drift == caught.value.drift
    result = check_drift(shifted(data), champion, "17", accepted="new scanner")
    assert result["drifted"] and result["accepted"] == "new scanner"


def test_drift_is_skipped_without_a_champion_and_says_so(made: ingest_help.Result) -> None:
    data = read_group_means(open_storage(made.folder.parent), made.folder.name, made.manifest)
    assert check_drift(shifted(data), None, "")["skipped"] == "no champion to compare with"
    assert check_drift(shifted(data), None, "9")["skipped"] == "champion 9 carries no colour statistics"


def test_the_schema_follows_the_manifest(made: ingest_help.Result, tmp_path: Path) -> None:
    text = schema_text(made.manifest)
    assert 'name: "image/raw"' in text and "image/encoded" not in text
    encoded = schema_text(dataclasses.replace(made.manifest, image_format="encoded"))
    assert 'name: "image/encoded"' in encoded and "image/raw" not in encoded
    first, again = write_schema(made.manifest, tmp_path), write_schema(made.manifest, tmp_path)
    other = write_schema(dataclasses.replace(made.manifest, stored_size=(25, 25)), tmp_path)
    assert first == again != other and first.read_text() == text


@pytest.mark.parametrize("dataset, task", [("idc", "binary"), ("pcam", "binary"), ("breakhis", "subtype")])
def test_every_feature_of_an_example_is_in_the_schema(dataset: str, task: str) -> None:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    from schemas import classes
    from tests.support.ingest_help import FEATURE_KEYS

    manifest = manifests.manifest(dataset=dataset, classes=classes(dataset, task), stored_size=(50, 40))
    schema = text_format.Parse(schema_text(manifest), schema_pb2.Schema())
    assert {f.name for f in schema.feature} == {*FEATURE_KEYS, "image/raw"}
    by_name = {f.name: f for f in schema.feature}
    assert by_name["label"].int_domain.max == len(manifest.classes) - 1
    assert (by_name["image/width"].int_domain.max, by_name["image/height"].int_domain.min) == (50, 40)
    (names,) = (d for d in schema.string_domain if d.name == "label_names")
    assert tuple(names.value) == manifest.classes
