"""The soak in its small form: a few cycles of retraining under kills, a pruning, and all that has to be true then."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.core import processes

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_small_soak_holds(tmp_path: Path) -> None:
    folder = tmp_path / "soak"
    command = [sys.executable, str(ROOT / "infra" / "soak.py"), "--folder", str(folder), "--cycles", "2", "--keep", "1"]
    done = subprocess.run([*command, "--kills", "0.25", "--seed", "1"], capture_output=True, text=True)
    said = f"{done.stdout}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, said
    told = json.loads((folder / "soak.json").read_text())
    assert len(told["checks"]) == 12 and all(check["held"] for check in told["checks"]), said
    assert sum(told["kills"].values()) >= 3 and told["decisions"] == {"promoted": 2}, "what was killed, ended well"
    left = [process.pid for process in processes.processes() if str(folder) in _command(process.pid)]
    assert left == [], "no process of it lives on"


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    return ""
