"""What TFX leaves of a run that was promoted: lineage, TFMA and TFDV in the report, PushedModel, champion beside it."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.train_help import TINY, Trained, lineage, no_tfx, record, run

# Setting up is a whole run; a minute alone, several on a machine that does other things.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


def test_tfma_slices_say_nothing_where_a_class_is_missing(trained: Trained) -> None:
    slices = record(trained.workspace, "first")["floors"]["slices"]
    by_class = [s for s in slices if s["by"] == "class"]
    by_group = [s for s in slices if s["by"] == "group"]
    test = trained.data.manifest.splits["test"]
    assert {s["value"]: s["patches"] for s in by_class} == test.by_class
    assert all(s["auc"] is None and s["log_loss"] is not None for s in by_class)
    assert len(by_group) == test.groups and all(s["auc"] is not None for s in by_group)


def test_tfma_and_our_own_figures_agree_in_the_report(trained: Trained) -> None:
    from components.report.evidence import collect
    from components.report.tfx_section import section
    from components.storage.open import open_storage

    found = section(collect(open_storage(trained.workspace), "runs/idc/binary/first"))
    assert found is not None and found.beside == "No champion stands beside it: nothing was promoted before."
    assert {name: floor["passed"] for name, floor in found.floors.items()} == dict.fromkeys(found.floors, True)
    assert {figure.name: figure.agrees for figure in found.overall} == {"auc": True, "log_loss": True, "pr_auc": None}
    by_class, by_group = found.slices
    for row in (*by_class.rows, *by_group.rows):
        assert row.patches == row.ours
        assert all(figure.agrees is not False for figure in row.figures)
    assert all(figure.agrees for row in by_group.rows for figure in row.figures if figure.name != "pr_auc")


def test_the_report_tells_what_tfdv_found(trained: Trained) -> None:
    from components.report import tfx_document
    from components.storage.open import open_storage

    told = tfx_document.read(open_storage(trained.workspace), "runs/idc/binary/first")
    assert told is not None and told.anomalies == ()
    by = {(one.feature, one.split): one for one in told.statistics}
    splits = trained.data.manifest.splits
    for split, facts in splits.items():
        names = by["label/name", split]
        assert dict(zip(names.labels, names.bars)) == facts.by_class and names.count == facts.patches
        red = by["color/red_mean", split]
        assert red.missing == 0 and sum(red.bars) == pytest.approx(facts.patches) and red.low < red.mean < red.high
        assert by["patch_id", split].labels == () and by["group_id", split].labels == ()
    text = (trained.workspace / "runs/idc/binary/first/report/index.html").read_text(encoding="utf-8")
    assert text.count('class="spark"') > 20 and "No anomalies" in text and "Ingest" in text


def test_the_lines_that_the_report_offers_load_the_evaluation(trained: Trained) -> None:
    text = (trained.workspace / "runs/idc/binary/first/report/index.html").read_text(encoding="utf-8")
    (lines,) = re.findall(r'<pre class="code" id="tfma-lines">(.*?)</pre>', text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(html.unescape(lines), names)  # what a notebook does
    figures = {key: by_output[""][""] for key, by_output in names["result"].slicing_metrics}
    kept = record(trained.workspace, "first")["floors"]["overall"]
    assert figures[()]["auc"]["doubleValue"] == kept["auc"]


def test_lineage_is_told_as_a_tree_and_as_a_document(trained: Trained, tmp_path: Path) -> None:
    args = ("lineage", "first", "--workspace", trained.workspace)
    tree = run(*args, path=no_tfx(tmp_path))
    assert tree.returncode == 0, tree.stderr
    version = record(trained.workspace, "first")["version"]
    lines = tree.stdout.splitlines()
    assert "Ingest  COMPLETE" in lines[1] and str(trained.raw) in tree.stdout
    assert any("PushedModel  LIVE" in line and f"pushed_version {version}" in line for line in lines)
    told = json.loads(run(*args, "--json", path=tmp_path).stdout)
    made = {artifact["id"]: artifact for artifact in told["artifacts"]}
    nodes = {execution["node"]: execution for execution in told["executions"]}
    assert list(nodes)[0] == "Ingest" and list(nodes)[-1] == "Pusher" and "Champion" not in nodes
    assert {made[n]["type"] for n in nodes["Trainer"]["outputs"]} == {"Model", "ModelRun"}
    assert {made[n]["type"] for n in nodes["Evaluator"]["inputs"]} == {"Examples", "Model", "Schema"}
    nowhere = run("lineage", "nowhere", "--workspace", trained.workspace, path=tmp_path)
    assert nowhere.returncode == 64 and "There is no run or sweep 'nowhere'" in nowhere.stderr
    lost = trained.copy(tmp_path)
    shutil.rmtree(lost / "metadata")
    kept = run("lineage", "first", "--workspace", lost, "--json", path=tmp_path)
    assert kept.returncode == 0 and json.loads(kept.stdout)["executions"] == told["executions"]


def test_lineage_reaches_from_the_raw_folder_to_the_pushed_version(trained: Trained) -> None:
    store = lineage(trained.workspace)
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    types = {t.id: t.name for t in store.get_artifact_types()}
    made = (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT)
    (raw,) = store.get_artifacts_by_type("RawPatches")
    assert raw.uri == str(trained.raw)
    (pushed,) = store.get_artifacts_by_type("PushedModel")
    assert pushed.custom_properties["pushed_version"].string_value == str(
        record(trained.workspace, "first")["version"]
    )
    reached, way = {raw.id}, []
    edge = {raw.id}
    while edge:
        events = store.get_events_by_artifact_ids(list(edge))
        runs = {e.execution_id for e in events if e.type not in made}
        out = (
            {e.artifact_id for e in store.get_events_by_execution_ids(list(runs)) if e.type in made}
            if runs
            else set()
        )
        edge = out - reached
        reached |= out
        way += [types[a.type_id] for a in store.get_artifacts_by_id(list(edge))] if edge else []
    assert pushed.id in reached
    assert [name for name in dict.fromkeys(way) if name in ("Examples", "Model", "PushedModel")] == [
        "Examples",
        "Model",
        "PushedModel",
    ]


@pytest.fixture(scope="module")
def model_artifact(trained: Trained) -> Any:
    """The PushedModel's folder as the artifact that TFX's own components take."""
    import tfx
    from tfx.types import standard_artifacts

    (pushed,) = lineage(trained.workspace).get_artifacts_by_type("PushedModel")
    model = standard_artifacts.Model()
    model.uri = pushed.uri
    model.set_string_custom_property("tfx_version", tfx.__version__)
    return model


def examples_artifact(trained: Trained) -> Any:
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    examples.uri = str(trained.workspace / "datasets/idc/binary" / trained.data.plan_id)
    examples.split_names = '["train", "eval", "test"]'
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    return examples


def test_tfxs_own_bulk_inferrer_reads_the_pushed_model(
    trained: Trained, model_artifact: Any, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2
    from tfx.components.bulk_inferrer.executor import Executor
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts

    version = record(trained.workspace, "first")["version"]
    served = trained.workspace / "models/idc/binary" / str(version)
    here = Path(model_artifact.uri) / "Format-Serving"
    assert {f.relative_to(here) for f in here.rglob("*")} == {f.relative_to(served) for f in served.rglob("*")}
    result = standard_artifacts.InferenceResult()
    result.uri = str(tmp_path / "inference")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(tmp_path / "tmp")
    )
    Executor(context).Do(
        {"examples": [examples_artifact(trained)], "model": [model_artifact]},
        {"inference_result": [result]},
        {"data_spec": '{"example_splits": ["test"]}', "model_spec": '{"model_signature_name": ["bulk_inference"]}'},
    )
    said = {}
    files = [str(file) for file in Path(result.uri).glob("*.gz")]
    for record_bytes in tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record_bytes).predict_log
        (text,) = next(iter(log.request.inputs.values())).string_val
        example = tf.train.Example.FromString(text)
        name = example.features.feature["patch_id"].bytes_list.value[0].decode()
        said[name] = log.response.outputs["probability"].float_val[0]
    rows = pq.read_table(trained.workspace / "runs/idc/binary/first/predictions.parquet").to_pylist()
    assert said == pytest.approx({r["patch_id"]: r["probability"] for r in rows if r["split"] == "test"}, abs=1e-6)


def test_tfma_shows_the_champion_and_blesses_on_floors_alone(
    trained: Trained, model_artifact: Any, tmp_path: Path
) -> None:
    """The promoted model against itself: no difference, which any change threshold would refuse."""
    import tensorflow_model_analysis as tfma
    from tfx.components.evaluator.executor import Executor
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    from components.storage.open import open_storage
    from pipelines.tfx import baseline
    from pipelines.tfx.evaluator import eval_config, read_evaluation

    storage = open_storage(trained.workspace)
    champion = baseline.choose(storage, "idc", "binary", trained.data.manifest.classes, tmp_path / "beside")
    assert champion.reason == "" and champion.version == record(trained.workspace, "first")["version"]
    again = baseline.choose(storage, "idc", "binary", trained.data.manifest.classes, tmp_path / "beside")
    assert again == champion, "named by content: TFX's cache may trust it"
    other = baseline.choose(storage, "idc", "binary", ("benign", "malignant"), tmp_path / "beside")
    assert other.folder == "" and "its classes are negative, idc" in other.reason
    beside = standard_artifacts.Model()
    beside.uri = champion.folder
    beside.set_string_custom_property("tfx_version", model_artifact.get_string_custom_property("tfx_version"))
    evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    evaluation.uri, blessing.uri = str(tmp_path / "evaluation"), str(tmp_path / "blessing")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(tmp_path / "tmp")
    )
    floors = {"auc": 0.7}
    Executor(context).Do(
        {"examples": [examples_artifact(trained)], "model": [model_artifact], "baseline_model": [beside]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "eval_config": proto_utils.proto_to_json(eval_config(tfma, "binary", floors, ("class",))),
            "example_splits": '["test"]',
        },
    )
    assert blessing.get_int_custom_property("blessed") == 1
    found = read_evaluation(Path(evaluation.uri), "binary", floors)
    assert found["blessed"] and found["overall"] == found["champion"] and found["overall"]["auc"] > 0.9
    assert found["difference"] == {"auc": 0.0, "pr_auc": 0.0, "log_loss": 0.0}
    assert found["overall"] == pytest.approx(record(trained.workspace, "first")["floors"]["overall"])


def test_a_metadata_server_that_is_not_there_is_told_before_tfx_is_loaded(trained: Trained, tmp_path: Path) -> None:
    args = ("step", "validate", "idc", "--workspace", trained.workspace, "--run-id", "far", "--seed", "9", *TINY)
    url = "mysql://histo:hidden-word@127.0.0.1:1/mlmd"
    away = run(*args, path=no_tfx(tmp_path), HISTOLINE_METADATA=url)
    assert away.returncode == 75 and "mysql://histo@127.0.0.1:1/mlmd can't be reached" in away.stderr
    folder = trained.workspace / "runs/idc/binary/far"
    kept = [file for file in folder.rglob("*") if file.is_file()]
    assert "hidden-word" not in away.stderr and not any(b"hidden-word" in file.read_bytes() for file in kept)
    shutil.rmtree(folder)
