"""A training run on two Celery workers, with real Redis and PostgreSQL; the worker that trains is killed.

The tests follow one another on the same servers.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from components.core import processes
from pipelines.local_airflow import celery
from tests.support.airflow_help import HISTOLINE, Airflow, wait_for
from tests.support.postgresql_help import postgresql
from tests.support.redis_help import redis

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WORKERS = ("worker-1", "worker-2")
HEARTBEAT_TIMEOUT = 20
"""Instead of the real one, so that the test need not wait for a minute and a half."""

LOOKS = "task_instance_heartbeat_timeout_detection_interval = 2"


class Pair:
    """Two workers, what they run, and what must not be seen of them.

    Attributes:
        airflow: The servers.
        secrets: Passwords of broker and data base.
        run: Of idc_train; empty before it is triggered.
        killed: The worker that was killed.
    """

    def __init__(self, airflow: Airflow, secrets: list[str]) -> None:
        self.airflow, self.secrets = airflow, secrets
        self.run = self.killed = ""

    def step(self, stage: str) -> int | None:
        """Number of the process of a stage that runs."""
        for process in processes.processes():
            try:
                command = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
            except OSError:
                continue
            # The command itself, not the shim above it.
            if command[2:4] == ["step", stage] and f"--workspace={self.airflow.workspace}" in command:
                return process.pid
        return None

    def worker_of(self, pid: int | None) -> tuple[str, list[int]]:
        """The worker above a step, and the processes from the step up to it; nothing where the step has ended."""
        services = self.airflow.status()["services"]
        workers = {services[name]["pid"]: name for name in WORKERS}
        chain = []
        while pid and (process := processes.read_process(pid)):
            chain.append(pid)
            if pid in workers:
                return workers[pid], chain
            pid = process.parent
        return "", []

    def log(self, task: str, attempt: int) -> str:
        """A task's log, as the web server shows it."""
        path = f"/api/v2/dags/idc_train/dagRuns/{quote(self.run, safe='')}/taskInstances/{task}/logs/{attempt}"
        lines = self.airflow.get(path)["content"]
        return "\n".join(str(line.get("event", "")) for line in lines)

    def state_of(self, task: str) -> str | None:
        """State of a task of the run."""
        state = self.airflow.tasks("idc_train", self.run)[task]["state"]
        return None if state is None else str(state)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("celery")
    workspace = folder / "workspace"
    with redis(folder) as broker, postgresql() as database:
        airflow = Airflow(
            folder / "home",
            workspace,
            HISTOLINE_IDC_TRAIN_PRESET="idc_quick",
            HISTOLINE_RETRIES_SECONDS="1",
            HISTOLINE_AIRFLOW_DATABASE=database,
            HISTOLINE_AIRFLOW_BROKER=broker,
        )
        synth = [str(HISTOLINE), "synth", "idc", "--output", str(folder / "raw"), "--patches", "600", "--groups", "40"]
        ingest = [str(HISTOLINE), "ingest", "idc", "--input", str(folder / "raw"), "--workspace", str(workspace)]

        def draw() -> None:
            for command in (synth, ingest):
                subprocess.run(command, check=True, env=airflow.environment)

        try:
            with ThreadPoolExecutor() as beside:
                drawn = beside.submit(draw)
                airflow.up("--executor", "celery", "--workers", "2")
                drawn.result()
            yield Pair(airflow, [str(urlsplit(url).password) for url in (broker, database)])
        finally:
            airflow.down()


def test_a_broker_that_is_away_is_told_before_anything_starts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    nowhere = {"HISTOLINE_AIRFLOW_BROKER": "redis://:s3cret@127.0.0.1:9/0",
               "HISTOLINE_AIRFLOW_DATABASE": "postgresql://u:pass@127.0.0.1:9/none"}  # fmt: skip
    done = Airflow(home, tmp_path, **nowhere).run("up", "--executor", "celery", "--workspace", str(tmp_path))
    assert done.returncode == 75, done.stderr
    assert "Celery's broker at 127.0.0.1:9/0 can't be used" in done.stderr and "s3cret" not in done.stderr
    assert not (home / "servers.json").exists()


def test_workers_are_services_that_hide_their_secrets(pair: Pair) -> None:
    status = pair.airflow.status()
    assert {name for name, one in status["services"].items() if one["healthy"]} >= set(WORKERS)
    own = pair.airflow.left()
    for pid in own:
        seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert not any(secret.encode() in seen for secret in pair.secrets)
    assert processes.listening(own) == {status["port"]}, "no log server"


def test_a_scheduler_that_dies_takes_no_step_of_a_worker_along(pair: Pair) -> None:
    airflow = pair.airflow
    pair.run = airflow.trigger("idc_train")
    wait_for(lambda: pair.step("validate"), "validate to begin")
    step = pair.step("validate")
    # From here on what no longer tells that it lives is given up earlier.
    settings = airflow.home / "airflow.cfg"
    text = settings.read_text()
    assert "task_instance_heartbeat_timeout = 90" in text
    settings.write_text(text.replace("timeout = 90", f"timeout = {HEARTBEAT_TIMEOUT}\n{LOOKS}"))
    scheduler = airflow.status()["services"]["scheduler"]["pid"]
    os.kill(scheduler, signal.SIGKILL)
    wait_for(lambda: airflow.status()["services"]["scheduler"]["pid"] not in (None, scheduler), "another scheduler")
    assert step is not None and processes.read_process(step) is not None
    wait_for(lambda: pair.state_of("validate") == "success", "validate to end well")
    assert airflow.tasks("idc_train", pair.run)["validate"]["try_number"] == 1


def test_train_goes_on_on_the_other_worker_when_its_worker_is_killed(pair: Pair) -> None:
    airflow = pair.airflow
    runs = airflow.workspace / "runs" / "idc" / "binary"
    wait_for(lambda: any(runs.glob("*/checkpoints/*")), "the first checkpoint")
    pair.killed, chain = pair.worker_of(pair.step("train"))
    assert pair.killed, "training was over before it could be killed"
    # The machine is gone, and does not come back with the next start of the worker.
    folder = celery.folder(airflow.home, pair.killed)
    shutil.rmtree(folder)
    folder.write_text("")
    os.killpg(chain[-1], signal.SIGKILL)
    wait_for(lambda: all(processes.read_process(pid) is None for pid in chain), "the step to die with its worker", 30)
    wait_for(lambda: pair.step("train"), "train to begin again")
    assert pair.worker_of(pair.step("train"))[0] == next(name for name in WORKERS if name != pair.killed)
    status = airflow.status()
    assert not status["healthy"] and status["services"][pair.killed]["pid"] is None
    folder.unlink()
    assert airflow.finished("idc_train", pair.run) == "success", airflow.logs()
    tries = {name: task["try_number"] for name, task in airflow.tasks("idc_train", pair.run).items()}
    assert tries.pop("train") == 2
    assert max(tries.values()) == 1, tries
    assert "epoch 1/" in pair.log("train", 1)
    second = pair.log("train", 2)
    assert "histoline step train" in second and "train: done" in second and "epoch 1/" not in second


def test_a_worker_comes_back_once_its_machine_does(pair: Pair) -> None:
    wait_for(lambda: pair.airflow.status()["healthy"], f"{pair.killed} to be well again")
