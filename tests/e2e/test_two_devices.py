"""`histoline train` on two logical devices: killed on its way, called again, promoted; float32 and float16."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from components.training.trainer import read_result
from tests.support import ingest_help, train_help
from tests.support.train_help import record
from tests.support.training_help import python

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

COMMAND = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pipelines.cli import main
main()
"""

KILLED = """
import os, signal
import components.training.loop as loop
class Killed(loop.NanGuard):
    def on_train_batch_begin(self, batch, logs=None):
        if self._first + self._epoch == 1 and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
loop.NanGuard = Killed
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("two")
    ingest_help.ingest(train_help.draw(home / "raw", patients=26), home / "w")
    return home / "w"


@pytest.mark.parametrize(("precision", "epochs"), [("off", 4), ("on", 2)])
def test_killed_and_called_again_it_goes_on_to_a_decision(workspace: Path, precision: str, epochs: int) -> None:
    run = f"precision-{precision}"
    # Turned by 90 degrees, stripes would change their class. 14 divides neither the training patches nor those of eval,
    # whose last batch leaves one device with few or none.
    command = [
        "train", "idc", "--workspace", workspace, "--run-id", run, "--preset", "idc_quick", "--batch-size", "14",
        "--set", "image_size=[36, 36]",  # float16 is slow on CPUs
        "--set", "augmentation={contrast: 0.1, stain: 0.05}", "--set", "ema=0.9",
        "--set", f"phases=[{{epochs: {epochs - 1}, learning_rate: 0.001}}, {{epochs: 1, learning_rate: 0.001}}]",
        "--set", f"mixed_precision={precision}",
    ]  # fmt: skip
    killed = python(COMMAND.replace("from pipelines", KILLED + "from pipelines"), *command, timeout=800)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = python(COMMAND, *command, timeout=800)
    assert again.returncode == 0, again.stderr
    kept = record(workspace, run)
    assert kept["state"] == "done" and kept["decision"] and kept["epochs_run"] == epochs
    result = read_result(workspace / "runs/idc/binary" / run)
    assert result is not None and all(np.isfinite(values).all() for values in result.history.values())
    assert epochs < 4 or result.history["val_auc"][-1] > 0.9
    wanted = "mixed_float16" if precision == "on" else "float32"
    assert result.hardware == f"2 CPUs side by side, {wanted}"
    assert f"going on after epoch 1 of {epochs}" in again.stdout + again.stderr
