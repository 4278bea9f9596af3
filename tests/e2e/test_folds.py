"""A run of folds that is killed in its second fold, shared by workers, and put together by the real pipeline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support import ingest_help, train_help
from tests.support.train_help import TINY, record, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
RUN = "runs/idc/binary/cv"
FOLDS = ("--folds", "2", "--set", "phases.0.epochs=4")


def start(module: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"pipelines.{module}", *map(str, args)]
    env = {**ingest_help.environment(), "PYTHONPATH": str(train_help.ROOT)}
    return subprocess.Popen(
        command, cwd=train_help.ROOT, env=env, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_killed_in_fold_2_it_goes_on_there_and_workers_share_the_folds(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    ingest_help.ingest(train_help.draw(tmp_path / "raw", 24, 4), workspace)
    common = ("idc", "--workspace", workspace, "--run-id", "cv")
    killed = start("train", *common, *TINY, *FOLDS)
    home = workspace / RUN
    while killed.poll() is None and not list((home / "folds/2/checkpoints").glob("*.npz")):
        time.sleep(0.05)
    assert killed.poll() is None, killed.communicate()[0]
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    first = home / "folds/1/model/saved_model.pb"
    made = first.stat().st_mtime_ns
    assert not (home / "folds/2/model").exists() and not (home / "model").exists()

    workers = {fold: start("step", "train", *common, "--fold", fold) for fold in (1, 2)}
    told = {fold: worker.communicate()[0] for fold, worker in workers.items()}
    assert [worker.returncode for worker in workers.values()] == [0, 0], told
    assert "trained already" in told[1] and "going on after epoch" in told[2]
    assert "epoch 1/4" not in told[2] and first.stat().st_mtime_ns == made

    done = run("train", *common, *TINY, *FOLDS, "--json")
    assert done.returncode == 0, done.stderr
    result, document = json.loads(done.stdout), record(workspace, "cv")
    assert result["folds"] == [1, 2] and result["decision"] in ("promoted", "refused")
    assert first.stat().st_mtime_ns == made and document["decision_by"] == "folds"
    assert document["metrics"]["test"]["groups"] == 24 and len(document["folds"]["members"]) == 2
    rows = pq.read_table(home / "predictions.parquet").to_pylist()
    assert {row["fold"] for row in rows} == {1, 2} and len(rows) == 24 * 8
    text = (home / "report/index.html").read_text(encoding="utf-8")
    assert "Out-of-fold figures are of single models" in text and "Evaluator is left out" in text
    if result["decision"] == "promoted":
        version = workspace / f"models/idc/binary/{result['version']}/assets.extra"
        assert (version / "out_of_fold.parquet").is_file() and (version / "folds.json").is_file()
