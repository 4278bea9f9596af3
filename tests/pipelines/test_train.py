"""`histoline train` and `histoline step` as people and schedulers call them, with the real TFX pipeline."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
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
from pipelines import whole_run
from tests.support import gcs, ingest_help, train_help
from tests.support.cli_help import invoke
from tests.support.train_help import TINY, Trained, no_tfx, record, run

# Setting up is a whole run; a minute alone, several on a machine that does other things.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


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
    whole_run.show({**document, "power": "A model truly better by 0.01."}, "/w/runs/idc/binary/r")
    assert "Power:       A model truly better by 0.01.\n" in capsys.readouterr().out
    whole_run.show({**document, "power": ""}, "/w/runs/idc/binary/r")
    assert "Power" not in capsys.readouterr().out


def test_the_command_that_shows_the_curves_is_printed_first(trained: Trained) -> None:
    said = trained.done.stderr.splitlines()[0]
    program, option, logs = shlex.split(said.removeprefix("curves: "))
    assert Path(program).name == "tensorboard" and option == "--logdir"
    assert {part.name for part in Path(logs).iterdir()} == {"train", "validation"}
    assert importlib.util.find_spec("pkg_resources"), "TensorBoard 2.16 does not start without it"


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


def test_the_version_carries_the_statistics_that_later_data_are_compared_with(trained: Trained) -> None:
    version = record(trained.workspace, "first")["version"]
    folder = trained.workspace / "models/idc/binary" / str(version)
    told = json.loads((folder / "assets.extra/statistics.json").read_text())
    assert told["splits"]["train"]["groups"] == trained.data.manifest.splits["train"].groups


@pytest.mark.e2e
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
    assert "run first, which was promoted as version" in told["reason"] and "--force" in again.stderr
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


@pytest.mark.e2e
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
