"""`histoline train` and `histoline step` as people and schedulers call them, with the real TFX pipeline."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.core import json_documents
from components.storage.open import open_storage
from components.training import checkpoints
from pipelines import train
from tests.support import gcs, ingest_help, train_help
from tests.support.cli_help import invoke
from tests.support.train_help import TINY, lineage, no_tfx, record, run

# Setting up is a whole run; a minute alone, several on a machine that does other things.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


class Trained:
    """A workspace in which one run was promoted."""

    def __init__(self, root: Path) -> None:
        self.raw = train_help.draw(root / "raw")
        self.workspace = root / "w"
        self.data = ingest_help.ingest(self.raw, self.workspace)
        self.result_file = root / "result.json"
        self.done = run(
            "train", "idc", "--workspace", self.workspace, "--run-id", "first", "--json", *TINY,
            HISTOLINE_RESULT_JSON=str(self.result_file),
        )  # fmt: skip

    def copy(self, folder: Path) -> Path:
        """A copy of the workspace, for what changes it."""
        return Path(shutil.copytree(self.workspace, folder / "w"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained once for all tests of this file."""
    made = Trained(tmp_path_factory.mktemp("train"))
    assert made.done.returncode == 0, made.done.stderr
    return made


def test_the_first_model_is_promoted_for_a_stated_reason(trained: Trained) -> None:
    told = json.loads(trained.done.stdout)
    assert told["decision"] == "promoted" and told["state"] == "done"
    assert told["reason"].startswith(
        "Promoted as the first model: it meets the floors, and it beats the colour baseline"
    )
    assert told == json.loads(trained.result_file.read_text())
    assert told["reason"].partition(":")[0] in Path(told["report"]).read_text(encoding="utf-8")
    assert (trained.workspace / "runs/index.html").is_file()
    champion = json.loads((trained.workspace / "models/idc/binary/champion.json").read_text())
    assert champion["version"] == told["version"] and champion["run_id"] == "first"
    told_of = record(trained.workspace, "first")["digests"]
    assert champion["recipe_digest"] == told_of["recipe"] and champion["source_digest"] == told_of["source"] != ""
    fitted = trained.workspace / f"models/idc/binary/{told['version']}/assets.extra/fitted_groups.json"
    assert len(json.loads(fitted.read_text())) == told_groups(trained)["train"]
    assert told["power"].startswith("A model truly better than the colour baseline by 0.01 / 0.02 / 0.05 in AUC")


def told_groups(trained: Trained) -> dict[str, int]:
    """Patients of each split, as the manifest says."""
    folder = trained.workspace / record(trained.workspace, "first")["dataset_dir"]
    splits = json.loads((folder / "manifest.json").read_text())["splits"]
    return {name: facts["groups"] for name, facts in splits.items()}


def test_the_terminal_says_in_one_line_what_the_gate_could_have_found(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"reason": "Refused.", "state": "done", "metrics": {"auc": 0.9}, "decision": "refused", "version": None}
    train.show({**document, "power": "A model truly better by 0.01."}, "/w/runs/idc/binary/r")
    assert "Power:       A model truly better by 0.01.\n" in capsys.readouterr().out
    train.show({**document, "power": ""}, "/w/runs/idc/binary/r")
    assert "Power" not in capsys.readouterr().out


def test_run_json_follows_its_schema_and_is_complete(trained: Trained) -> None:
    kept = record(trained.workspace, "first")
    assert json_documents.problem(kept, "run.schema.json") == ""
    assert [kept["stages"][s]["state"] for s in ("validate", "train", "evaluate", "push", "report")] == [
        "done"
    ] * 5
    assert kept["epochs_run"] == 3 and len(kept["history"]["loss"]) == 3
    assert kept["plan_id"] == trained.data.plan_id
    assert kept["drift"]["skipped"] == "no champion to compare with"
    assert kept["floors"]["blessed"] and kept["floors"]["floors"]["auc"]["value"] > 0.9
    assert kept["floors"]["overall"]["auc"] == pytest.approx(
        kept["metrics"]["test"]["values"]["auc"]["estimate"], abs=2e-3
    )


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
    assert nowhere.returncode == 64 and "There is no run 'nowhere'" in nowhere.stderr
    lost = trained.copy(tmp_path)
    shutil.rmtree(lost / "metadata")
    kept = run("lineage", "first", "--workspace", lost, "--json", path=tmp_path)
    assert kept.returncode == 0 and json.loads(kept.stdout)["executions"] == told["executions"]


def test_the_version_carries_the_statistics_that_later_data_are_compared_with(trained: Trained) -> None:
    version = record(trained.workspace, "first")["version"]
    folder = trained.workspace / "models/idc/binary" / str(version)
    told = json.loads((folder / "assets.extra/statistics.json").read_text())
    assert told["splits"]["train"]["groups"] == trained.data.manifest.splits["train"].groups


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


def test_a_workspace_in_a_bucket_gives_the_same_model(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gcs.buckets(monkeypatch, tmp_path / "cache", "work"):
        gcs.upload(trained.workspace / "datasets", "gs://work/w/datasets")
        args = ("train", "idc", "--workspace", "gs://work/w", "--run-id", "first", *TINY)
        done = run(*args, "--json", HISTOLINE_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        told, here = json.loads(done.stdout), json.loads(trained.done.stdout)
        assert told["report"] == "gs://work/w/runs/idc/binary/first/report/index.html"
        assert {**told, "version": 0, "report": "", "dataset_dir": ""} == {
            **here, "version": 0, "report": "", "dataset_dir": "",
        }  # fmt: skip
        bucket, folder = open_storage("gs://work/w"), open_storage(trained.workspace)
        of_run, of_models = "runs/idc/binary/first", "models/idc/binary"
        there, before = (json.loads(s.read_bytes(f"{of_run}/run.json")) for s in (bucket, folder))
        for name in ("metrics", "temperature", "threshold", "floors", "manifest_digest", "reason"):
            assert there[name] == before[name], name
        assert there["history"]["loss"] == before["history"]["loss"]
        weights = "model/variables/variables.data-00000-of-00001"
        assert bucket.read_bytes(f"{of_run}/{weights}") == folder.read_bytes(f"{of_run}/{weights}")
        for table in ("predictions", "comparison"):
            tables = [pq.read_table(s.local_copy(f"{of_run}/{table}.parquet")) for s in (bucket, folder)]
            assert tables[0].equals(tables[1])
        champion = json.loads(bucket.read_bytes(f"{of_models}/champion.json"))
        assert champion["version"] == told["version"] and champion["run_id"] == "first"
        names = {path.partition(f"{of_run}/")[2] for path, _ in bucket.list_files(of_run)}
        here_names = {path.partition(f"{of_run}/")[2] for path, _ in folder.list_files(of_run)}
        assert {name for name in here_names - names if not name.startswith(("checkpoints/", "tensorboard/"))} == set()
        assert not any(name.startswith("checkpoints/") or ".lock" in name for name in names)
        assert any(name.startswith("tensorboard/") for name in names)
        assert not list((tmp_path / "cache").glob(f"work/*/{of_run}")), "nothing in it is of use any more"
        again = run(*args, path=no_tfx(tmp_path / "none"), HISTOLINE_CACHE=str(tmp_path / "elsewhere"))
        assert again.returncode == 0 and "nothing to do" in again.stderr, "another machine knows that it is over"




def test_the_same_again_is_an_explained_no_op_that_loads_nothing(trained: Trained, tmp_path: Path) -> None:
    again = run(
        "train",
        "idc",
        "--workspace",
        trained.workspace,
        "--run-id",
        "again",
        "--json",
        *TINY,
        path=no_tfx(tmp_path),
    )
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["decision"] == "unchanged" and told["state"] == "done" and told["version"] is None
    assert "run first, which was promoted as version" in told["reason"] and "--force" in told["reason"]
    assert json_documents.problem(record(trained.workspace, "again"), "run.schema.json") == ""
    for stage in ("train", "evaluate", "push", "report"):
        step = run("step", stage, "idc", "--workspace", trained.workspace, "--run-id", "again", path=tmp_path)
        assert step.returncode == 0 and "nothing to do" in step.stderr


def test_finished_stages_do_nothing_again(trained: Trained, tmp_path: Path) -> None:
    before = record(trained.workspace, "first")
    args = ("--workspace", trained.workspace, "--run-id", "first")
    for stage in ("validate", "train", "evaluate", "push", "report"):
        step = run("step", stage, "idc", *args, *(TINY if stage == "validate" else ()), path=no_tfx(tmp_path))
        assert step.returncode == 0 and "nothing to do" in step.stderr, step.stderr
    assert record(trained.workspace, "first") == before


def test_a_metadata_server_that_is_not_there_is_told_before_tfx_is_loaded(trained: Trained, tmp_path: Path) -> None:
    args = ("step", "validate", "idc", "--workspace", trained.workspace, "--run-id", "far", "--seed", "9", *TINY)
    url = "mysql://histo:hidden-word@127.0.0.1:1/mlmd"
    away = run(*args, path=no_tfx(tmp_path), HISTOLINE_METADATA=url)
    assert away.returncode == 75 and "mysql://histo@127.0.0.1:1/mlmd can't be reached" in away.stderr
    folder = trained.workspace / "runs/idc/binary/far"
    kept = [file for file in folder.rglob("*") if file.is_file()]
    assert "hidden" not in away.stderr and not any(b"hidden" in file.read_bytes() for file in kept)
    shutil.rmtree(folder)


def test_other_options_for_a_run_that_has_begun_are_wrong_usage(trained: Trained, tmp_path: Path) -> None:
    args = ("--workspace", trained.workspace, "--run-id", "first")
    other = run("step", "validate", "idc", *args, *TINY, "--seed", "5", path=no_tfx(tmp_path))
    assert other.returncode == 64 and "Choose another --run-id" in other.stderr
    late = run("step", "train", "idc", *args, "--seed", "5", path=tmp_path)
    assert late.returncode == 64 and "Only `step validate` takes --seed" in late.stderr
    none = run("step", "train", "idc", "--workspace", trained.workspace, "--run-id", "nowhere", path=tmp_path)
    assert none.returncode == 64 and "There is no run" in none.stderr


def test_a_damaged_shard_stops_the_run_before_training(trained: Trained, tmp_path: Path) -> None:
    workspace = trained.copy(tmp_path)
    shard = next((workspace / "datasets/idc/binary" / trained.data.plan_id / "Split-train").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    result = tmp_path / "result.json"
    failed = run(
        "train", "idc", "--workspace", workspace, "--run-id", "bad", "--seed", "2", *TINY,
        HISTOLINE_RESULT_JSON=str(result), HISTOLINE_LOG_FORMAT="json",
    )  # fmt: skip
    assert failed.returncode == 65, failed.stderr
    lines = [json.loads(line) for line in failed.stderr.splitlines()]
    assert lines[-1]["level"] == "error" and f"{shard.name} has changed since the commit" in lines[-1]["msg"]
    kept = record(workspace, "bad")
    assert (
        kept["state"] == "failed"
        and kept["error"]["stage"] == "validate"
        and kept["error"]["exit_code"] == 65
    )
    assert not (workspace / "runs/idc/binary/bad/checkpoints").exists() and "train" not in kept["stages"]
    told = json.loads(result.read_text())
    assert told["state"] == "failed" and shard.name in told["reason"]


def test_another_scanner_is_caught_and_can_be_accepted(trained: Trained, tmp_path: Path) -> None:
    workspace = trained.copy(tmp_path)
    ingest_help.ingest(train_help.draw(tmp_path / "raw", red=40), workspace)
    args = ("step", "validate", "idc", "--workspace", workspace, "--run-id", "red", *TINY)
    caught = run(*args)
    assert caught.returncode == 65 and "color/red_mean" in caught.stderr and "--accept-drift" in caught.stderr
    told = json.loads((workspace / "runs/idc/binary/red/tfx.json").read_text())
    assert told["executions"][-1]["node"] == "AnomalyGate" and told["executions"][-1]["state"] == "FAILED"
    assert told["anomalies"] == [] and told["statistics"] and told["evaluation"] == ""
    assert 'id="tfx"' in (workspace / "runs/idc/binary/red/report/index.html").read_text(encoding="utf-8")
    kept = record(workspace, "red")
    assert kept["state"] == "failed" and "color/red_mean" in kept["drift"]["drifted"]
    assert invoke(*args, "--accept-drift", "new scanner in room 3") == 0
    kept = record(workspace, "red")
    assert (
        kept["drift"]["accepted"] == "new scanner in room 3" and "color/red_mean" in kept["drift"]["drifted"]
    )
    assert any("new scanner in room 3" in warning for warning in kept["warnings"])


def killed_after_an_epoch(process: subprocess.Popen[str], folder: Path) -> checkpoints.Position:
    """Kills a training process and its children once it has a checkpoint; where the newest one stands."""
    while process.poll() is None and not list(folder.glob("epoch-*.npz")):
        time.sleep(0.05)
    assert process.poll() is None, "training ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    newest = max(int(file.stem.partition("-")[2]) for file in folder.glob("epoch-*.npz"))
    return checkpoints.load(folder, newest).position


@pytest.mark.e2e
def test_steps_survive_sigkill(trained: Trained, tmp_path: Path) -> None:
    workspace = trained.copy(tmp_path)
    args: list[Any] = ["idc", "--workspace", workspace, "--run-id", "killed"]
    recipe = [*TINY, "--seed", "3", "--epochs", "12"]
    assert run("step", "validate", *args, *recipe).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.step", "train", *map(str, args)],
        cwd=train_help.ROOT, env=ingest_help.environment(), start_new_session=True, text=True,
    )  # fmt: skip
    folder = workspace / "runs/idc/binary/killed"
    before = killed_after_an_epoch(process, folder / "checkpoints")
    assert 0 < before.epoch < 12
    assert record(workspace, "killed")["stages"]["train"]["state"] == "running"
    early = run("step", "evaluate", *args)
    assert early.returncode == 64 and "train has not ended well" in early.stderr
    for stage in ("train", "evaluate", "push", "report"):
        step = run("step", stage, *args)
        assert step.returncode == 0, step.stderr
        if stage == "train":
            said = step.stdout + step.stderr
            assert f"going on after epoch {before.epoch} of 12" in said and f"epoch {before.epoch}/12" not in said
    kept = record(workspace, "killed")
    # Of the epochs before the kill, the very figures, the seconds that they took among them: none was done again.
    assert "seconds" in before.history
    assert {name: kept["history"][name][: before.epoch] for name in before.history} == before.history
    assert kept["state"] == "done" and kept["epochs_run"] == 12 == len(kept["history"]["loss"])
