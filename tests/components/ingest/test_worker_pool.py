"""Helper processes: killed ones are told, none outlives its parent, and the first cause of a failure comes through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.errors import DataError, TemporaryError, UsageError
from components.ingest import worker_pool

ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import sys, time
from components.ingest.worker_pool import helper_pool
with helper_pool(2) as pool:
    for _ in range(50):
        pool.submit(time.sleep, 0.05).result()
    print(*[process.pid for process in pool._processes.values()], flush=True)
    time.sleep(120)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def all_gone(pids: list[int], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def parent():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="helpers are tied to their parent on Linux only")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_helpers_end_with_their_parent(parent: subprocess.Popen[str], sign: signal.Signals) -> None:
    helpers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(helpers) == 2 and not any(gone(pid) for pid in helpers)
    parent.send_signal(sign)
    parent.wait(30)
    assert all_gone(helpers)


def test_helpers_work_and_are_gone_afterwards() -> None:
    with worker_pool.helper_pool(2) as pool:
        assert worker_pool.shard_executor(3) == (pool, False)
        assert pool.submit(os.getppid).result() == os.getpid()
        helpers = [process.pid for process in pool._processes.values()]
    assert all_gone(helpers)


def test_a_killed_helper_is_a_temporary_error() -> None:
    with pytest.raises(TemporaryError, match="was killed"), worker_pool.helper_pool(1) as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


def test_an_error_of_the_work_comes_through_and_leaves_no_helper() -> None:
    helpers: list[int] = []
    with pytest.raises(ZeroDivisionError), worker_pool.helper_pool(1) as pool:
        pool.submit(time.sleep, 0).result()
        helpers += [process.pid for process in pool._processes.values()]
        pool.submit(divmod, 1, 0).result()
    assert helpers and all_gone(helpers)


def test_a_helper_leaves_ctrl_c_to_its_parent() -> None:
    with worker_pool.helper_pool(1) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN


def test_without_helpers_a_dofn_gets_threads_of_its_own() -> None:
    executor, own = worker_pool.shard_executor(3)
    assert own and isinstance(executor, ThreadPoolExecutor)
    executor.shutdown()


@pytest.mark.parametrize("kind", [UsageError, DataError, TemporaryError])
def test_first_cause_in_a_remote_traceback(kind: type[Exception]) -> None:
    text = f"Traceback:\n  somewhere\ncomponents.errors.{kind.__name__}: It is full. [while running 'WriteShard']\nmore"
    cause = worker_pool.first_cause(text)
    assert type(cause) is kind and str(cause) == "It is full."
    assert worker_pool.first_cause("ValueError: no") is None


def test_the_listener_hears_results_and_the_first_failure_is_what_is_raised() -> None:
    heard: list[int] = []
    with worker_pool.listening(heard.append):
        worker_pool.finished(1)
    worker_pool.finished(2)
    assert heard == [1]
    with pytest.raises(DataError, match="first"), worker_pool.listening(heard.append):
        worker_pool.failed(DataError("first"))
        worker_pool.failed(DataError("second"))
        raise RuntimeError("wrapped by Beam")
    with pytest.raises(RuntimeError, match="ours"), worker_pool.listening(heard.append):
        raise RuntimeError("ours alone")
