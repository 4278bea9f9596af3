"""A sweep of two small recipes, killed in the middle of the second trial; its test shards are garbage all the while."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import ingest_help, train_help

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

RECIPE = """
dataset: idc
model: cnn_105k
phases: [{{epochs: {epochs}, learning_rate: {rate}}}]
batch_size: 16
"""


def test_a_killed_sweep_goes_on_and_never_opens_the_test_split(tmp_path: Path) -> None:
    data = ingest_help.ingest(train_help.draw(tmp_path / "raw", 40, 3), tmp_path / "w")
    for shard in (data.folder / "Split-test").iterdir():
        shard.write_bytes(b"\xff" * shard.stat().st_size)  # who reads a record of it fails
    recipes = []
    for name, epochs, rate in (("quick", 1, 0.003), ("long", 60, 0.001)):
        recipes.append(tmp_path / f"{name}.yaml")
        recipes[-1].write_text(RECIPE.format(epochs=epochs, rate=rate))
    given = [
        "sweep", "idc", "--workspace", tmp_path / "w", "--recipes", ",".join(map(str, recipes)), "--sweep-id", "both",
        "--choose-only", "--json",
    ]  # fmt: skip
    trials = tmp_path / "w" / "sweeps" / "idc" / "binary" / "both" / "trials"
    environment = ingest_help.environment()
    killed = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *map(str, given)],
        cwd=train_help.ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not any((trials / "1" / "checkpoints").glob("*.npz")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    first = (trials / "0" / "trial.json").read_bytes()
    assert json.loads(first)["state"] == "done"
    assert json.loads((trials / "1" / "trial.json").read_text())["state"] == "running"

    again = train_help.run("cli", *given)
    assert again.returncode == 0, again.stderr
    assert "going on after epoch" in again.stderr and "trial 0 of 2" not in again.stderr
    assert (trials / "0" / "trial.json").read_bytes() == first
    document = json.loads(again.stdout)
    assert [line["state"] for line in document["results"]] == ["done", "done"]
    assert document["winner"] in (0, 1) and document["run"] is None
    assert Path(document["recipe"]).is_file() and "Content-Security-Policy" in Path(document["report"]).read_text()
    assert not (tmp_path / "w" / "runs").exists()

    lineage = train_help.run("cli", "lineage", "both", "--workspace", tmp_path / "w", "--json")
    types = [artifact["type"] for artifact in json.loads(lineage.stdout)["artifacts"]]
    assert {"Examples", "HyperParameters", "TunerResults"} <= set(types)
