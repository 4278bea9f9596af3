"""What dies during a run: the run ends right, no step runs twice at once into one output, no process is left behind.

Real servers on a real PostgreSQL; the step only takes its time. The tests follow one another on the same servers.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from components.core import processes
from pipelines.local_airflow.settings import GPU_POOL, POOL
from tests.support.airflow_help import Airflow, wait_for
from tests.support.postgresql_help import postgresql

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

STEP_SECONDS = 30
HEARTBEAT_TIMEOUT = 20
"""Instead of the real one, so that these tests need not wait for minutes."""


class Faults:
    """The servers, and where each process of a run is."""

    def __init__(self, airflow: Airflow, journal: Path) -> None:
        self.airflow, self.journal = airflow, journal

    def lines(self, kind: str, dataset: str) -> list[int]:
        """Numbers of the processes that noted something."""
        if not self.journal.exists():
            return []
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [int(pid) for what, name, pid in lines if (what, name) == (kind, dataset)]

    def begin(self, dataset: str, count: int = 1) -> int:
        """Waits until a step has begun for the n-th time; its number."""
        wait_for(lambda: len(self.lines("begin", dataset)) >= count, f"{dataset} to begin for the {count}. time")
        return self.lines("begin", dataset)[-1]

    def ancestors(self, pid: int) -> list[int]:
        """Step, shim, Airflow's task process, its worker, scheduler."""
        chain = []
        scheduler = self.server("scheduler")
        while pid != scheduler:
            chain.append(pid)
            process = processes.read_process(pid)
            assert process is not None and process.parent > 1, f"{chain} do not descend from the scheduler"
            pid = process.parent
        return chain

    def server(self, name: str) -> int:
        """Number of a server's process."""
        return int(self.airflow.status()["services"][name]["pid"])

    def kill_server(self, name: str) -> int:
        """Kills a server and waits until another one is well; its number."""
        killed = self.server(name)
        os.kill(killed, signal.SIGKILL)
        return self.replaced(name, killed)

    def replaced(self, name: str, killed: int) -> int:
        """Waits until all is well again with another process in the place of the killed one."""

        def is_well() -> bool:
            state = self.airflow.status()
            return state["healthy"] and state["services"][name]["pid"] not in (None, killed)

        wait_for(is_well, f"another {name}")
        return self.server(name)

    def succeeded(self, dataset: str, run: str, tries: int) -> None:
        """Asserts that a run has ended well, in so many tries, never two at once."""
        dag_id = f"{dataset}_ingest"
        assert self.airflow.finished(dag_id, run) == "success", self.airflow.logs()
        assert self.lines("overlap", dataset) == []
        assert len(self.lines("begin", dataset)) == tries
        assert len(self.lines("end", dataset)) == 1
        assert self.airflow.tasks(dag_id, run)["ingest"]["state"] == "success"


def gone(*pids: int) -> Callable[[], bool]:
    return lambda: all(processes.read_process(pid) is None for pid in pids)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(scope="module")
def servers(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("faults")
    airflow = Airflow(
        folder / "home",
        folder / "workspace",
        HISTOLINE_COMMAND=str(Path(__file__).with_name("slow_histoline.py")),
        HISTOLINE_TEST_JOURNAL=str(folder / "journal"),
        HISTOLINE_TEST_SECONDS=str(STEP_SECONDS),
        HISTOLINE_RETRIES_SECONDS="1",
        HISTOLINE_POOL="default_pool",  # several at once
        HISTOLINE_AIRFLOW_DATABASE=database,
    )
    try:
        airflow.up()
        yield airflow
    finally:
        airflow.down()


@pytest.fixture
def faults(servers: Airflow) -> Faults:
    journal = Path(servers.environment["HISTOLINE_TEST_JOURNAL"])
    journal.unlink(missing_ok=True)
    return Faults(servers, journal)


def test_up_twice_is_once_and_the_data_base_is_postgresql(servers: Airflow, database: str) -> None:
    pids = {name: one["pid"] for name, one in servers.status()["services"].items()}
    document = servers.up()
    assert {name: one["pid"] for name, one in document["services"].items()} == pids
    assert document["database"].startswith("postgresql+psycopg2://histoline:***@")
    assert not (servers.home / "airflow.db").exists()
    password = database.split(":")[2].split("@")[0]
    for pid in servers.left():
        assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert password.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    other = servers.run("up", "--workspace", str(servers.workspace) + "-other")
    assert other.returncode == 64 and "runs already" in other.stderr


def test_the_pools_of_the_steps_are_there(servers: Airflow) -> None:
    assert [servers.get(f"/api/v2/pools/{name}")["slots"] for name in (POOL, GPU_POOL)] == [1, 1]


def test_only_this_machine_is_listened_to(servers: Airflow) -> None:
    own = servers.left()
    assert processes.listening(own) == {servers.document["port"]}
    addresses = {
        fields[1].split(":")[0]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == servers.document["port"]
    }
    assert addresses == {"0100007F"}


def test_a_web_server_that_dies_ends_no_step(faults: Faults) -> None:
    run = faults.airflow.trigger("idc_ingest")
    faults.begin("idc")
    faults.kill_server("api-server")
    faults.succeeded("idc", run, tries=1)


def test_a_web_server_that_hangs_for_half_a_minute_ends_no_step(faults: Faults) -> None:
    run = faults.airflow.trigger("idc_ingest")
    faults.begin("idc")
    pid = faults.server("api-server")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(30)
    os.kill(pid, signal.SIGCONT)
    faults.succeeded("idc", run, tries=1)
    assert faults.server("api-server") == pid


def test_a_cancelled_step_is_gone_within_seconds(faults: Faults) -> None:
    run = faults.airflow.trigger("pcam_ingest")
    step = faults.begin("pcam")
    tree = [*faults.ancestors(step)[:3], *(p.pid for p in processes.processes() if p.parent == step)]
    assert len(tree) == 4
    path = f"/api/v2/dags/pcam_ingest/dagRuns/{quote(run, safe='')}"
    status, answer = faults.airflow.request(path, {"state": "failed"}, method="PATCH")
    assert status == 200, answer
    wait_for(gone(*tree), "the cancelled step to be gone", 60)
    assert faults.airflow.state("pcam_ingest", run) == "failed"
    assert faults.lines("end", "pcam") == []


def test_task_process_worker_and_scheduler_die(faults: Faults) -> None:
    # From here on what no longer tells that it lives is given up earlier.
    settings = faults.airflow.home / "airflow.cfg"
    text = settings.read_text()
    for name, value in (
        ("task_instance_heartbeat_timeout = 90", f"task_instance_heartbeat_timeout = {HEARTBEAT_TIMEOUT}"),
        ("task_instance_heartbeat_sec = 10", "task_instance_heartbeat_sec = 2"),
        ("orphaned_tasks_check_interval = 60", "orphaned_tasks_check_interval = 15"),
    ):
        assert name in text
        text = text.replace(name, value)
    settings.write_text(text)
    faults.kill_server("scheduler")

    runs = {dataset: faults.airflow.trigger(f"{dataset}_ingest") for dataset in ("idc", "breakhis")}
    steps = {dataset: faults.begin(dataset) for dataset in runs}
    of_idc, of_breakhis = (faults.ancestors(steps[dataset]) for dataset in ("idc", "breakhis"))
    os.kill(of_idc[2], signal.SIGKILL)  # the task's process
    os.kill(of_breakhis[3], signal.SIGKILL)  # the worker above the task's process
    wait_for(gone(*of_idc[:3], *of_breakhis[:4]), "the steps to die with their Airflow processes", 60)
    for dataset, run in runs.items():
        faults.succeeded(dataset, run, tries=2)


def test_a_scheduler_that_dies_takes_its_steps_along_and_they_come_again(faults: Faults) -> None:
    run = faults.airflow.trigger("pcam_ingest")
    step = faults.begin("pcam")
    chain = faults.ancestors(step)
    faults.kill_server("scheduler")
    assert gone(*chain)(), "a scheduler's workers must not live beside those of the next one"
    faults.succeeded("pcam", run, tries=2)


def test_a_killed_supervisor_is_swept_up(faults: Faults) -> None:
    state = faults.airflow.status()
    run = faults.airflow.trigger("idc_ingest")
    step = faults.begin("idc")
    os.kill(state["supervisor"]["pid"], signal.SIGKILL)
    wait_for(gone(state["supervisor"]["pid"]), "the supervisor to die", 30)
    assert faults.airflow.status()["state"] == "unsupervised"
    document = faults.airflow.up()
    assert gone(step, *(one["pid"] for one in state["services"].values()))()
    assert document["supervisor"]["pid"] != state["supervisor"]["pid"]
    os.kill(document["supervisor"]["pid"], signal.SIGKILL)
    faults.airflow.down()  # asserts that nothing is left
    assert faults.airflow.status()["state"] == "down"
    assert run
