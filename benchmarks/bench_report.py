"""Making the report of a run with 50,000 predictions: wall time of the command, size of the page, peak memory.

    python benchmarks/bench_report.py [--patches 56000] [--repeats 3]

Simple drawn patches of 60 patients, most of them in test; the probabilities are made up, so that no model has to be
trained, and a champion stands beside the candidate. Timed is `histoline report RUN_ID` from start to exit, imports,
figures, gallery, maps and index included; `cpu_seconds` tells how much of it was work where others keep the machine
busy. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import common
from common import Criteria, emit

sys.path.insert(0, str(common.ROOT))

from components.datasets import manifest as manifests
from components.storage.open import open_storage
from tests.support import ingest_help, model_help, report_help

PATIENTS = 60
LIMIT_SECONDS = 15
LIMIT_BYTES = 8_000_000


def prepare(patches: int) -> tuple[Path, str, int]:
    """Draws, ingests and scores; returns (workspace, RUN_ID, predictions)."""
    home = common.WORK / f"report-{patches}"
    shutil.rmtree(home, ignore_errors=True)
    raw, workspace = model_help.idc(home / "raw", PATIENTS, patches // (2 * PATIENTS)), home / "workspace"
    ingest = ["-m", "pipelines.ingest", "idc", "--input", str(raw), "--workspace", str(workspace), "--json"]
    common.python([*ingest, "--ratios", "10/10/80"])
    latest = json.loads((workspace / "datasets" / "idc" / "binary" / "latest.json").read_text())
    folder = workspace / latest["dataset_dir"]
    manifest = manifests.load(open_storage(str(folder.parent)), folder.name)
    studio = report_help.Studio(workspace, ingest_help.Result(folder, manifest, True, None))  # type: ignore[arg-type]
    studio.run("champion", 2.0)
    studio.run("candidate", 2.2, champion=2.0)
    return workspace, "candidate", manifest.splits["eval"].patches + manifest.splits["test"].patches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=56_000)
    parser.add_argument("--repeats", type=int, default=3)
    common.add_json_option(parser)
    given = parser.parse_args()
    workspace, run_id, predictions = prepare(given.patches)
    command = [sys.executable, "-m", "pipelines.report", run_id, "--workspace", str(workspace), "--json"]
    seconds, size = [], 0
    for _ in range(given.repeats):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        size = Path(json.loads(done.stdout)["reports"][0]).stat().st_size
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        emit(event="run", seconds=seconds[-1], cpu_seconds=cpu, load=os.getloadavg()[0], bytes=size)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    emit(event="summary", best=min(seconds), median=sorted(seconds)[len(seconds) // 2], peak_rss_mib=peak, bytes=size)
    criteria = Criteria()
    criteria.judge(f"report of {predictions:,} predictions, s", min(seconds), LIMIT_SECONDS, at_least=False)
    criteria.judge("size of the page, bytes", size, LIMIT_BYTES, at_least=False)
    criteria.close()
    common.figure(
        f"report/{given.patches}",
        f"report of {predictions:,} predictions: wall time, size of the page, peak memory",
        f"{min(seconds):.1f} s (slowest {max(seconds):.1f} s), {size / 1e6:.1f} MB, {peak:.0f} MiB",
    )
    common.leave_figures(given.json)
    shutil.rmtree(workspace.parent)


if __name__ == "__main__":
    main()
