"""Ingest on 1, 2 and 3 workers of Dask and of Prism against the ingest on this machine alone.

    python benchmarks/bench_engines.py [--patches 50000] [--few 5000] [--workers 1,2,3] [--repeats 1]

Each engine ingests the same drawn patches at two sizes; the straight line through both gives the fixed cost (start of
interpreter, Beam, and of workers where the engine starts them for the job) and the cost per patch. Servers are started
before the clock. Dask's workers are processes of one thread; Prism starts one process a job, so there it is shards
under way in its threads (`--workers`). The bytes are compared each time. Workers share this machine: more of them than
cores can show no gain. Prints JSON lines, the load with each.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import common
from common import emit

sys.path.insert(0, str(common.ROOT))


def digest(folder: Path) -> str:
    """Of all files of a data set but the manifest, which holds times."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != "manifest.json":
            found.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return found.hexdigest()


def ingest(raw: Path, flags: list[str]) -> tuple[float, str]:
    """Wall seconds of one ingest, and the digest of what it made."""
    out = common.WORK / f"out-{os.getpid()}"
    command = ["-m", "pipelines.ingest", "idc", "--input", str(raw), "--workspace", str(out), "--shard-mb", "1"]
    try:
        measured = common.timed([*command, "--json", *flags])
        return measured["wall_s"], digest(Path(measured["printed"]["dataset_dir"]))
    finally:
        shutil.rmtree(out, ignore_errors=True)


@contextlib.contextmanager
def engine(name: str, workers: int) -> Iterator[list[str]]:
    """Flags of a running engine."""
    from tests.support.engines_help import Dask, Portable

    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if name == "local":
            yield ["--engine", "local"]
        elif name == "dask":
            cluster = Dask(home, stack)
            for _ in range(workers):
                cluster.worker()
            cluster.wait_for(workers)
            yield cluster.flags
        else:
            yield [*Portable(home, stack).flags, "--workers", str(workers)]


def main() -> None:
    """Measures every engine at both sizes and prints the ratios to this machine alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=50_000)
    parser.add_argument("--few", type=int, default=5_000)
    parser.add_argument("--workers", default="1,2,3")
    parser.add_argument("--repeats", type=int, default=1)
    common.add_json_option(parser)
    given = parser.parse_args()
    common.environment("bench_engines", given.repeats)
    raws = {count: common.ensure_data("idc", count) for count in (given.few, given.patches)}
    counts = [int(count) for count in given.workers.split(",")]
    expected: dict[int, str] = {}
    lines: dict[str, tuple[float, float]] = {}
    for name, workers in [("local", 0), *((name, count) for name in ("dask", "prism") for count in counts)]:
        label = f"{name}, {workers} worker{'s' if workers > 1 else ''}" if workers else name
        walls = {}
        with engine(name, workers) as flags:
            for count, raw in raws.items():
                common.warm(raw)
                times = []
                for _ in range(given.repeats):
                    wall, made = ingest(raw, flags)
                    if expected.setdefault(count, made) != made:
                        raise SystemExit(f"{label} made other bytes of {count:,} patches than local")
                    times.append(wall)
                walls[count] = statistics.median(times)
        slope = (walls[given.patches] - walls[given.few]) / (given.patches - given.few)
        fixed = walls[given.few] - slope * given.few
        lines[label] = (fixed, slope)
        emit(engine=label, wall_s=walls, fixed_s=fixed, us_per_patch=slope * 1e6, load=os.getloadavg()[0])
    for label, (fixed, slope) in lines.items():
        if label != "local":
            ratio = lines["local"][1] / slope
            common.figure(
                f"engines/{given.patches}/{label}",
                f"ingest of {given.patches:,} patches on {label}: rate per patch / this machine alone; fixed cost",
                f"{ratio:.2f}; {fixed:.1f} s against {lines['local'][0]:.1f} s",
            )
    common.leave_figures(given.json)


if __name__ == "__main__":
    main()
