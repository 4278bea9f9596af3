"""The README's commands, as they stand there, on data that a test has drawn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support import train_help

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ELSEWHERE = ("make demo", "make test", "make airflow", ".venv/bin/histoline airflow status", "make airflowdown")
"""Run by .ci/run itself, and by the tests of Airflow beside this one."""


def commands() -> list[str]:
    """Lines of the README's shell blocks, without comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\s+#\s.*", "", line) for block in blocks for line in block.splitlines() if line.strip()]


def test_the_commands_do_what_is_said(tmp_path: Path) -> None:
    home, workspace, other = tmp_path / "home", tmp_path / "workspace", tmp_path / "other"
    raw = train_help.draw(home / "data" / "IDC_regular_ps50_idx5")
    table = tmp_path / "probabilities.parquet"
    given = {"FOLDER": raw, "DIR": raw, "W": other, "probabilities.parquet": table}
    environment = {**os.environ, "HOME": str(home), "HISTOLINE_WORKSPACE": str(workspace)}

    def run(line: str) -> str:
        for word, path in given.items():
            line = re.sub(rf"(?<= ){re.escape(word)}(?= |$)", str(path), line)
        line = line.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        done = subprocess.run(["bash", "-ec", line], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    ran = []
    for line in commands():
        if line.startswith(ELSEWHERE):
            continue
        if " predict " in line and not list((workspace / "models").rglob("champion.json")):
            # Too few patches for a promotion that is earned; what counts here is that the commands work.
            (record,) = (workspace / "runs").rglob("run.json")
            run(f".venv/bin/histoline models promote {record.parent.name} --reason 'the next command needs a model'")
        run(line)
        ran.append(line)
    assert [re.sub(r".*(histoline |pipelines\.)(\w+).*", r"\2", line) for line in ran] == [
        "ingest", "train", "predict", "ingest",
    ]  # fmt: skip
    assert len(pq.read_table(table)) == 400
    latest = [json.loads((w / "datasets/idc/binary/latest.json").read_text()) for w in (workspace, other)]
    assert latest[0]["content_digest"] == latest[1]["content_digest"], "the runner decides on nothing"
