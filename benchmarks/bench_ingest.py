"""Speed and memory of the ingest beside a bare loop, naive Beam and TensorFlow Datasets; JSON lines.

    python benchmarks/bench_ingest.py [--sizes 11000,50000,277524] [--repeats 2] [--only wall,naive,tfds,memory,resume]

README.md beside this file says how to read the lines.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import memory
from common import Contender, Criteria, Times, emit

PATIENTS = 279
FULL = 277_524
SMALL = 11_000
PARTS = ("wall", "naive", "tfds", "memory", "resume")


def _printed_work(printed: dict[str, Any]) -> float:
    return float(printed["work_s"])


def _our_work(printed: dict[str, Any]) -> float:
    """Planning, building, running and committing; not the waiting for Beam's import."""
    return float(printed["timings"]["work_s"])


def ours(dataset: str, data: Path, name: str = "ours") -> Contender:
    """The ingest, as a user starts it, into a new workspace."""
    command = ("-m", "pipelines.ingest", "--dataset", dataset, "--input", str(data), "--workspace", "{out}", "--json")
    return Contender(name, command, _our_work)


def script(name: str, file: str, dataset: str, data: Path, *extra: str, repeats: int = 99) -> Contender:
    """One of the other scripts in this folder."""
    command = (str(common.BENCHMARKS / file), "--dataset", dataset, "--input", str(data), "--output", "{out}", *extra)
    return Contender(name, command, _printed_work, repeats)


def beam_import() -> float:
    """Seconds of `import apache_beam` in a fresh interpreter, median of 3 after one that is not counted."""
    code = (
        "import time, warnings; warnings.simplefilter('ignore'); t = time.perf_counter(); "
        "import apache_beam; print(time.perf_counter() - t)"
    )
    seconds = [float(common.python(["-c", code])) for _ in range(4)][1:]
    emit(beam_import_s=statistics.median(seconds), runs=seconds)
    return statistics.median(seconds)


def record_set(folder: Path) -> tuple[int, int]:
    """(number, sum of hashes) of all records under a folder, whatever their order and shards."""
    import xxhash

    from components.datasets.tfrecord import read_records

    count = total = 0
    for shard in sorted(folder.rglob("*.tfrecord")):
        for _, record in read_records(shard):
            count, total = count + 1, (total + xxhash.xxh3_128_intdigest(record)) % (1 << 128)
    return count, total


def bench_wall(sizes: list[int], repeats: int, criteria: Criteria) -> None:
    """Ours beside the bare loop: wall time from process start to exit, and work without start-up."""
    imported = beam_import()
    for size in sizes:
        data = common.ensure_data("idc", size, PATIENTS)
        contenders = [
            ours("idc", data),
            script("bare", "bare.py", "idc", data),
            script("bare_without_features", "bare.py", "idc", data, "--no-features"),
            script("bare_fsync", "bare.py", "idc", data, "--fsync", repeats=1),
            script("bare_threads", "bare.py", "idc", data, "--mode", "threads", repeats=1),
        ]
        written: dict[str, tuple[int, int]] = {}

        def remember(name: str, out: Path, written: dict[str, tuple[int, int]] = written) -> None:
            written[name] = record_set(out)

        first = size == min(sizes)
        times = common.race(contenders, "idc", data, size, repeats, remember if first else None)
        if written:
            same = {name: written[name] == written["ours"] for name in ("bare", "bare_fsync", "bare_threads")}
            emit(same_records_as_ours=same, patches=size, records=written["ours"][0])
        _compare_with_bare(size, times, imported, criteria)


def _compare_with_bare(size: int, times: dict[str, Times], imported: float, criteria: Criteria) -> None:
    # The faster way to use all cores is the reference, whichever it is here.
    reference = min(("bare", "bare_threads"), key=lambda name: min(times[name].work))
    our, bare, plain = times["ours"], times[reference], times["bare_without_features"]
    ratios = {
        "bare_work/our_work": min(bare.work) / min(our.work),
        "bare_wall/our_wall": min(bare.wall) / min(our.wall),
        "bare_work/our_work, medians": statistics.median(bare.work) / statistics.median(our.work),
        "bare_wall/our_wall, medians": statistics.median(bare.wall) / statistics.median(our.wall),
        "bare_fsync_work/our_work": min(times["bare_fsync"].work) / min(our.work),
        "bare_fsync_wall/our_wall": min(times["bare_fsync"].wall) / min(our.wall),
        "bare_without_features_work/our_work (ours has them)": min(plain.work) / min(our.work),
        "bare_without_features_wall/our_wall (ours has them)": min(plain.wall) / min(our.wall),
    }
    features = (min(times["bare"].work) - min(plain.work)) / size * 1e6 * common.cores()
    emit(ratios=ratios, patches=size, reference=reference, features_us_per_patch_and_core=features)
    for kind, ours_s, bare_s in (("work", our.work, bare.work), ("wall", our.wall, bare.wall)):
        what = {"work": "work (interpreter start and imports apart)", "wall": "wall time, process start to exit"}[kind]
        common.figure(
            f"ingest/{size}/{kind}",
            f"{size:,} patches of 50x50, {what}: bare loop / ingest",
            f"{min(bare_s) / min(ours_s):.2f} of best,"
            f" {statistics.median(bare_s) / statistics.median(ours_s):.2f} of medians"
            f" (ingest {min(ours_s):.1f} s, bare loop {min(bare_s):.1f} s; {len(ours_s)} runs)",
        )
    common.figure(
        f"ingest/{size}/beyond",
        f"{size:,} patches, wall time: ingest minus bare loop minus `import apache_beam`",
        f"{min(our.wall) - min(bare.wall) - imported:.1f} s (the import alone {imported:.1f} s)",
    )
    emit(our_stages=our.last["timings"], patches=size, found=our.last["found"], written=our.last["written"])
    if size >= FULL:
        criteria.judge(f"bare_work/our_work, {size} patches", ratios["bare_work/our_work"], 0.85, 1.0, at_least=True)
        criteria.judge(f"bare_wall/our_wall, {size} patches", ratios["bare_wall/our_wall"], 0.7, 0.8, at_least=True)
    if size == SMALL:
        beyond = min(our.wall) - min(bare.wall) - imported
        criteria.judge(f"our_wall - bare_wall - beam_import, s, {size} patches", beyond, 1.5, at_least=False)


def _versus(
    rival: Contender, dataset: str, data: Path, size: int, repeats: int, what: str, bar: float, criteria: Criteria
) -> None:
    """Ours beside one other; the criterion is on work, start-up and imports of both apart."""
    times = common.race([ours(dataset, data), rival], dataset, data, size, repeats)
    our, other = times["ours"], times[rival.name]
    emit(
        ratios={
            f"{rival.name}_work/our_work": min(other.work) / min(our.work),
            f"{rival.name}_wall/our_wall": min(other.wall) / min(our.wall),
            f"{rival.name}_work/our_work, medians": statistics.median(other.work) / statistics.median(our.work),
        },
        patches=size,
        counted="work: from the listing to the last file, without interpreter start and imports, of both",
    )
    common.figure(f"ingest/{size}/{rival.name}", what, f"{min(other.work) / min(our.work):.1f} times as long")
    criteria.judge(what, min(other.work) / min(our.work), bar, at_least=True)


def bench_naive(patches: int, images: int, repeats: int, criteria: Criteria) -> None:
    """Ours beside one Beam element for each file, on small and on large images."""
    for dataset, size, groups, bar in (("idc", patches, PATIENTS, 3.0), ("breakhis", images, None, 2.0)):
        data = common.ensure_data(dataset, size, groups)
        pixels = "50x50" if dataset == "idc" else "700x460"
        what = f"naive Beam (one element for each file) / ingest, work, {size:,} images of {pixels}"
        rival = script("naive_beam", "naive_beam.py", dataset, data)
        _versus(rival, dataset, data, size, repeats, what, bar, criteria)


def bench_tfds(patches: int, repeats: int, criteria: Criteria) -> None:
    """Ours beside a TensorFlow Datasets builder, once as fast as it goes and once with tfds.features.Image."""
    data = common.ensure_data("idc", patches, PATIENTS)
    for store, name in (("bytes", "tfds_bytes"), ("image", "tfds_image")):
        rival = script(name, "tfds_builder.py", "idc", data, "--store", store)
        what = f"TensorFlow Datasets builder, feature stored as {store} / ingest, work, {patches:,} patches"
        _versus(rival, "idc", data, patches, repeats, what, 8.0, criteria)


def bench_memory(size: int, criteria: Criteria) -> None:
    """Peak of the whole process tree."""
    data = common.ensure_data("idc", size, PATIENTS)
    common.warm(data)
    out = common.WORK / "out-memory"
    shutil.rmtree(out, ignore_errors=True)
    command = [part.format(out=out) for part in ours("idc", data).command]
    try:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=common.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        facts = memory.peak(process)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if process.returncode:
        raise SystemExit(f"the ingest failed with exit code {process.returncode}")
    emit(memory=facts, patches=size, sampled_every_s=memory.EVERY)
    what = f"peak memory of the process tree (PSS), MB, {size} patches"
    shown = f"{size:,} patches, peak memory of the process tree (PSS)"
    common.figure(f"ingest/{size}/memory", shown, f"{facts['pss_mb']:.0f} MB")
    criteria.judge(what, facts["pss_mb"], 500, 350, at_least=False)


def bench_resume(patches: int, repeats: int, criteria: Criteria) -> None:
    """A finished ingest, run again."""
    data = common.ensure_data("idc", patches, PATIENTS)
    contender = ours("idc", data)
    common.warm_up(contender, "idc", data)
    common.warm(data)
    out = common.WORK / "out-resume"
    command = [part.format(out=out) for part in contender.command]
    first: list[float] = []
    again: list[float] = []
    try:
        for _ in range(repeats):
            shutil.rmtree(out, ignore_errors=True)
            for state, times in (("committed", first), ("unchanged", again), ("unchanged", again)):
                measured = common.timed(command)
                printed = measured.pop("printed")
                if printed["state"] != state:
                    raise SystemExit(f"expected state {state}, got {printed['state']}")
                times.append(measured["wall_s"])
                emit(run=f"ours, {state}", patches=patches, **measured, stages=printed["timings"])
    finally:
        shutil.rmtree(out, ignore_errors=True)
    share = min(again) / min(first)
    medians = statistics.median(again) / statistics.median(first)
    emit(ratios={"rerun_wall/first_wall": share, "rerun_wall/first_wall, medians": medians}, patches=patches)
    common.figure(f"ingest/{patches}/rerun", f"{patches:,} patches, run again / first run, wall time", f"{share:.1%}")
    criteria.judge(f"wall time of a re-run / of the first run, {patches} patches", share, 0.1, at_least=False)


def main() -> None:
    """Runs the chosen parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="11000,50000", help="patches of 50x50 for wall; memory takes the largest")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run (default: all)")
    parser.add_argument("--naive-patches", type=int, default=50_000)
    parser.add_argument("--breakhis-images", type=int, default=1_600)
    parser.add_argument("--tfds-patches", type=int, default=50_000)
    parser.add_argument("--resume-patches", type=int, default=50_000)
    common.add_json_option(parser)
    given = parser.parse_args()
    sizes = sorted(int(size) for size in given.sizes.split(","))
    chosen = given.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    criteria = Criteria()
    parts: dict[str, Callable[[], None]] = {
        "wall": lambda: bench_wall(sizes, given.repeats, criteria),
        "naive": lambda: bench_naive(given.naive_patches, given.breakhis_images, given.repeats, criteria),
        "tfds": lambda: bench_tfds(given.tfds_patches, given.repeats, criteria),
        "memory": lambda: bench_memory(sizes[-1], criteria),
        "resume": lambda: bench_resume(given.resume_patches, given.repeats, criteria),
    }
    common.environment("bench_ingest", given.repeats)
    for part in PARTS:
        if part in chosen:
            parts[part]()
    criteria.close()
    common.leave_figures(given.json)


if __name__ == "__main__":
    sys.path.insert(0, str(common.ROOT))
    main()
