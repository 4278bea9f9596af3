"""A pipeline command made of Python for the tests, and a stand-in for Airflow's context."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

PREAMBLE = f"""#!{sys.executable}
import json, os, signal, subprocess, sys, time
def result(**told):
    with open(os.environ["HISTOLINE_RESULT_JSON"], "w") as file:
        json.dump(told, file)
def line(level, msg):
    print(json.dumps({{"level": level, "msg": msg}}), file=sys.stderr, flush=True)
"""


def write_command(folder: Path, body: str, name: str = "histoline") -> Path:
    """Writes an executable `histoline` whose body is Python with `result` and `line` at hand."""
    path = folder / name
    path.write_text(PREAMBLE + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class FakeTi:
    """As much of a task instance as the operator uses."""

    def __init__(self, dag_id: str = "idc_train", run_id: str = "manual__1", try_number: int = 1, max_tries: int = 5):
        self.dag_id, self.run_id, self.try_number, self.max_tries = dag_id, run_id, try_number, max_tries
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def wait_until(condition: Any, seconds: float = 20.0) -> bool:
    """Polls until a condition holds; the time is a bound for a loaded machine, not a measurement."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def read_pids(folder: Path) -> list[int]:
    """Process ids that a command left in files `*.pid`."""
    return [int(path.read_text()) for path in sorted(folder.glob("*.pid")) if path.read_text()]


def environ_without(*names: str) -> dict[str, str]:
    """This environment without some names."""
    return {k: v for k, v in os.environ.items() if k not in names}
