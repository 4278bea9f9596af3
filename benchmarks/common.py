"""What the benchmarks share: drawn data, contenders as subprocesses, noise, JSON lines."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
WORK = BENCHMARKS / ".work"
PACKAGES = (
    *("apache-beam", "numpy", "opencv-python-headless", "pyarrow", "pyspng-seunglab", "imagecodecs"),
    *("xxhash", "google-crc32c", "tensorflow", "tensorflow-datasets"),
)
QUIET_LOAD = 0.5
"""Load average, or cores that others keep busy during a run, above which a timing is marked as noisy."""

LOAD_AT_START = os.getloadavg()[0]
"""When this process began; more than the cores: others were using the machine."""

WARM_UP_IMAGES = {"idc": 300, "breakhis": 64}
"""Images of a warm-up run by data set: few, but enough for every class to be in every split."""


def emit(**fields: Any) -> None:
    """Prints one JSON line; floats are cut to what a timing can say."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        return [rounded(v) for v in value] if isinstance(value, (list, tuple)) else value

    print(json.dumps(rounded(fields)), flush=True)


FIGURES: dict[str, dict[str, str]] = {}
"""What this process measured and the project states, by name."""


def figure(name: str, what: str, value: str) -> None:
    """Notes one row of docs/figures.md, and prints it.

    Args:
        name: SECTION/..., equal for equal measurements: a later one takes the place of an earlier one.
        what: Is measured, against what, at which size.
        value: With its unit.
    """
    FIGURES[name] = {"what": what, "value": value}
    emit(figure=name, what=what, value=value)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--json FILE`."""
    parser.add_argument("--json", metavar="FILE", help="put the figures into FILE, beside those that it has of others")


def leave_figures(file: str | None) -> None:
    """Adds what was measured to a result file, each figure with date, commit and machine."""
    if not file:
        return
    path = Path(file)
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    where = {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    if LOAD_AT_START > cores() + QUIET_LOAD:
        where["busy"] = f"load average {LOAD_AT_START:.1f} at the start"
    figures |= {name: {**row, **where} for name, row in FIGURES.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def commit() -> str:
    """Short name of the checked-out commit; `+ changes` where sources differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    sources = ("components", "pipelines", "schemas", "benchmarks/*.py")
    return git("rev-parse", "--short=7", "HEAD") + (" + changes" if git("status", "--porcelain", *sources) else "")


def machine() -> str:
    """Cores, processor and memory in words."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{cores()} cores of {names[0] if names else 'an unknown processor'}, {memory_gib():.0f} GiB"


def memory_gib() -> float:
    """Memory of this machine."""
    return int(next(x for x in _lines("/proc/meminfo") if x.startswith("MemTotal")).split()[1]) / 2**20


class Criteria:
    """Prints bars with what was measured, and remembers which were missed."""

    def __init__(self) -> None:
        self.met: list[str] = []
        self.missed: list[str] = []

    def judge(self, text: str, value: float, bar: float, aim: float | None = None, *, at_least: bool) -> None:
        """Prints one criterion.

        Args:
            text: What is compared, with its unit.
            value: Measured.
            bar: Must be reached.
            aim: Ought to be reached.
            at_least: Whether more is better.
        """
        ok = value >= bar if at_least else value <= bar
        (self.met if ok else self.missed).append(text)
        emit(criterion=text, value=value, bar=bar, aim=aim, want=">=" if at_least else "<=", ok=ok)

    def close(self) -> None:
        """Prints how many bars were reached."""
        emit(criteria_met=len(self.met), criteria_missed=self.missed)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def environment(script: str, repeats: int) -> None:
    """Prints versions, cores, memory and load."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    emit(
        benchmark=script,
        python=platform.python_version(),
        versions=versions,
        machine=machine(),
        kernel=platform.release(),
        load=os.getloadavg(),
        repeats=repeats,
        page_cache="warm: every file is read once before it is timed; os.sync() before each run",
        bytecode="cached: each program runs once on a few images before it is timed",
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def ensure_data(dataset: str, patches: int, groups: int | None = None) -> Path:
    """Draws `patches` images into benchmarks/.work/DATASET-PATCHES, unless they stand there already."""
    folder = WORK / f"{dataset}-{patches}"
    if folder.is_dir():
        return folder
    drawing = WORK / f".{folder.name}.drawing"
    shutil.rmtree(drawing, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    command = ["-m", "pipelines.synth", dataset, "--output", str(drawing), "--patches", str(patches), "--json"]
    if groups:
        command += ["--groups", str(groups)]
    started = time.monotonic()
    python(command)
    drawing.rename(folder)
    emit(drawn=folder.name, groups=groups or "default", seconds=time.monotonic() - started)
    return folder


def warm(folder: Path) -> None:
    """Reads every file under a folder once, so that all contenders find it in the page cache."""
    started, files, size = time.monotonic(), 0, 0
    for where, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(where, name), "rb", buffering=0) as file:
                size += len(file.read())
            files += 1
    available = int(next(x for x in _lines("/proc/meminfo") if x.startswith("MemAvailable")).split()[1]) << 10
    emit(
        warmed=folder.name,
        files=files,
        mib=size / 2**20,
        seconds=time.monotonic() - started,
        **({"warning": "more than free memory: it may not stay in the page cache"} if size > available / 2 else {}),
    )


def python(arguments: Sequence[str]) -> str:
    """Runs this interpreter in the project's root and returns its standard output.

    Raises:
        SystemExit: It failed; says what it wrote to standard error.
    """
    # What a user has set must not reach the contenders; a script's own folder is on its path anyway.
    env = {k: v for k, v in os.environ.items() if not k.startswith("HISTOLINE_")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # without cached bytecode each import compiles again: seconds
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, text=True,
        )  # fmt: skip
        if done.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(arguments)} failed with exit code {done.returncode}:\n{errors.read()[-4000:]}")
    return done.stdout


def parse_json(text: str) -> dict[str, Any]:
    """The JSON document that a program printed: all of its output, or the last line of it."""
    try:
        return dict(json.loads(text))
    except ValueError:
        return dict(json.loads(text.strip().splitlines()[-1]))


@dataclasses.dataclass(frozen=True)
class Contender:
    """A program that is timed.

    Attributes:
        name: As printed.
        command: Arguments of the interpreter; `{out}` stands for a new folder's name.
        work: Seconds of work, start-up apart, from the JSON that the program printed.
        repeats: How often at most.
    """

    name: str
    command: tuple[str, ...]
    work: Callable[[dict[str, Any]], float]
    repeats: int = 99


@dataclasses.dataclass
class Times:
    """Timings of one contender, one element a run; `last` is what the last run printed."""

    wall: list[float] = dataclasses.field(default_factory=list)
    work: list[float] = dataclasses.field(default_factory=list)
    last: dict[str, Any] = dataclasses.field(default_factory=dict)

    def summary(self, patches: int) -> dict[str, float]:
        """Best and median, and the rate of the best."""
        return {
            "wall_best_s": min(self.wall),
            "wall_median_s": statistics.median(self.wall),
            "work_best_s": min(self.work),
            "work_median_s": statistics.median(self.work),
            "patches_per_s_of_work": round(patches / min(self.work)),
        }


_warmed: set[str] = set()


def warm_up(contender: Contender, dataset: str, data: Path) -> None:
    """Runs a program once, untimed, on a few images: its bytecode and libraries are cached from then on."""
    key = f"{dataset} {contender.command[:2]}"
    if key in _warmed:
        return
    _warmed.add(key)
    out = WORK / f"out-{os.getpid()}"
    few = str(ensure_data(dataset, WARM_UP_IMAGES[dataset]))
    try:
        python([few if part == str(data) else part.format(out=out) for part in contender.command])
    finally:
        shutil.rmtree(out, ignore_errors=True)


def race(
    contenders: Sequence[Contender],
    dataset: str,
    data: Path,
    patches: int,
    repeats: int,
    keep: Callable[[str, Path], None] | None = None,
) -> dict[str, Times]:
    """Runs contenders in turn, the order turned round each time (A B, B A, ...), and prints each run.

    Args:
        contenders: Programs.
        dataset: `idc` or `breakhis`.
        data: Folder with the input that all of them read.
        patches: Images in it, for rates.
        repeats: Runs of each.
        keep: Called with a name and its output folder after each one's first run, before the folder is removed.
    """
    for contender in contenders:
        warm_up(contender, dataset, data)
    warm(data)
    labels = {"dataset": dataset, "patches": patches}
    times = {contender.name: Times() for contender in contenders}
    for repeat in range(repeats):
        for contender in contenders if repeat % 2 == 0 else contenders[::-1]:
            if repeat >= contender.repeats:
                continue
            out = WORK / f"out-{os.getpid()}"
            try:
                measured = timed([part.format(out=out) for part in contender.command])
                timings = times[contender.name]
                timings.wall.append(measured["wall_s"])
                timings.last = measured.pop("printed")
                timings.work.append(contender.work(timings.last))
                emit(run=contender.name, **labels, repeat=repeat + 1, work_s=timings.work[-1], **measured)
                if keep and not repeat:
                    keep(contender.name, out)
            finally:
                shutil.rmtree(out, ignore_errors=True)
    summaries = {name: timings.summary(patches) for name, timings in times.items()}
    emit(summary={**labels, "repeats": repeats}, contenders=summaries)
    return times


def timed(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs a program from start to exit: wall and CPU seconds, load before it, cores that others used meanwhile."""
    os.sync()  # what the one before left to be written is not charged to this one
    load = os.getloadavg()[0]
    busy, own, started = _busy(), _children(), time.monotonic()
    printed = parse_json(python(arguments))
    wall = time.monotonic() - started
    cpu = _children() - own
    others = max(0.0, (_busy() - busy - cpu) / wall)
    noisy = [f"load average {load:.1f} before"] if load > QUIET_LOAD else []
    noisy += [f"others kept {others:.1f} cores busy"] if others > QUIET_LOAD else []
    measured = {"wall_s": wall, "cpu_s": cpu, "load_before": load, "others_cores": others, "printed": printed}
    return {**measured, "warning": "; ".join(noisy)} if noisy else measured


def _busy() -> float:
    """CPU seconds of this machine so far that were neither idle nor waiting."""
    user, nice, system, _, _, irq, softirq, steal = map(int, _lines("/proc/stat")[0].split()[1:9])
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
