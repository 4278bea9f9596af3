"""A soak: cycles of retraining with growing data and random SIGKILLs, and what has to be true at the end.

Each cycle brings a new patient, ingests, and runs the stages of a training run; every few cycles `histoline prune`
deletes what is old. Every command is killed now and then at a random moment, seeded, and run again until it ends well.
Beside them a supervisor keeps two servers running that are killed, too. The stages run as they do under Airflow, one
process each, but for one thing: they are forked from a process that has imported TFX, which saves 12 s of each.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import soak_checks  # noqa: E402

PRELOADED = ["pipelines.tfx.pipeline", "components.training.trainer", "components.report.page", "keras"]
"""Imported once by the process that stages are forked from; nothing of TensorFlow runs there."""

RECIPE = ("--preset=idc_quick", "--set=augmentation=none", "--set=phases.0.epochs=3", "--set=batch_size=16")
KEPT = ("--keep-sweeps=1", "--keep-datasets=2", "--older-than=0d")
FIRST_PATIENTS, PER_CLASS = 30, 4
SAME_EVERY, PRUNE_EVERY = 7, 4
"""Cycles that bring nothing new, and that end with a pruning."""

MOST_KILLS = 2
"""Of one command in a row; then it is left in peace."""

TRIES = 6


def run_command(argv: Sequence[str], log: str) -> None:
    """Runs a command in this process, a fork: its output goes to a file, its exit code is the process's.

    Args:
        argv: Name of the command's module and its arguments.
        log: File that is appended to.
    """
    import importlib

    from pipelines import console

    with open(log, "ab", buffering=0) as output:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    module = importlib.import_module(f"pipelines.{argv[0]}")
    code = console.run(lambda: module.command.main(list(argv[1:]), standalone_mode=False, prog_name=argv[0]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_supervisor(folder: Path) -> None:
    """Keeps two servers running, as `histoline airflow` does with Airflow's, until it gets SIGTERM."""
    from pipelines.local_airflow.supervisor import Limits, Service, Supervisor

    services = [Service(name, ("sleep", "100000"), folder / f"{name}.log") for name in ("one", "two")]

    def save(states: dict[str, dict[str, Any]]) -> None:
        (folder / "states.partial").write_text(json.dumps(states), encoding="utf-8")
        os.replace(folder / "states.partial", folder / "states.json")

    limits = Limits(poll=0.1, probe_every=0.5, backoff_first=0.1, backoff_most=0.5, grace=1.0)
    supervisor = Supervisor(services, dict(os.environ), folder, lambda alive: dict.fromkeys(alive, True), save, limits)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    supervisor.run()


class Soak:
    """One soak.

    Args:
        folder: Where everything of it lies.
        cycles: Of retraining.
        seed: Of patients and kills.
        share: Of commands that are killed.
        keep: Runs that a pruning keeps.
    """

    def __init__(self, folder: Path, cycles: int, seed: int, share: float, keep: int) -> None:
        self.folder, self.cycles, self.share = folder, cycles, share
        self.kept = (f"--keep-runs={keep}", *KEPT)
        self.raw, self.workspace, self.log = folder / "raw", folder / "workspace", folder / "commands.log"
        self.random = random.Random(seed)
        self.patients = 0
        self.seconds: dict[str, float] = {}
        self.kills: collections.Counter[str] = collections.Counter()
        self.ends: collections.Counter[str] = collections.Counter()
        self.decisions: collections.Counter[str] = collections.Counter()
        self.samples: dict[str, list[tuple[int, float, int]]] = collections.defaultdict(list)
        self.disk: list[tuple[int, int, int]] = []
        self.splits: dict[str, str] = {}
        self.moved: list[str] = []
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def arrive(self, count: int) -> None:
        """Draws patients: positive patches have standing stripes, negative ones the same lying down."""
        import numpy as np
        from PIL import Image

        for number in range(self.patients, self.patients + count):
            rng = np.random.default_rng(number)
            own = rng.normal(0, 4, 3)
            for label in (0, 1):
                for i in range(PER_CLASS):
                    name = f"{9000 + number}_idx5_x{50 * i + 1}_y101_class{label}.png"
                    file = self.raw / str(9000 + number) / str(label) / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    wave = 30 * np.sign(np.sin(np.arange(50) * 0.8 + rng.uniform(0, 6)))
                    image = np.broadcast_to(wave if label else wave[:, None], (50, 50))[..., None] + 130 + own
                    image = image + rng.normal(0, 4, (50, 50, 3))
                    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file)
        self.patients += count

    @contextlib.contextmanager
    def supervised(self) -> Iterator[subprocess.Popen[bytes]]:
        """The supervisor of two servers, in a process of its own."""
        home = self.folder / "supervisor"
        home.mkdir()
        command = [sys.executable, str(Path(__file__).resolve()), "--supervise", str(home)]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def kill_server(self) -> None:
        """Kills one of the supervisor's servers."""
        with contextlib.suppress(OSError, ValueError):
            states = json.loads((self.folder / "supervisor" / "states.json").read_text(encoding="utf-8"))
            pid = states[self.random.choice(("one", "two"))]["pid"]
            if pid:
                os.kill(pid, signal.SIGKILL)
                self.kills["server"] += 1

    def command(self, name: str, *arguments: str, result: str = "") -> dict[str, Any]:
        """Runs a command until it ends well, through kills; gives what it left for a scheduler.

        Args:
            name: As the summary counts it.
            arguments: Module and arguments.
            result: File for HISTOLINE_RESULT_JSON; empty for one of this command.
        """
        file = Path(result or self.folder / "result.json")
        kills = 0
        for _ in range(TRIES):
            file.unlink(missing_ok=True)
            os.environ["HISTOLINE_RESULT_JSON"] = str(file)
            kill = kills < MOST_KILLS and self.random.random() < self.share
            after = self.random.uniform(0, 1.1) * self.seconds.get(name, 5.0) if kill else None
            started = time.monotonic()
            code = self.once(name, arguments, after)
            if code == 0:
                self.seconds[name] = 0.7 * self.seconds.get(name, 5.0) + 0.3 * (time.monotonic() - started)
                self.ends[name] += 1
                return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            if code == -signal.SIGKILL:
                kills += 1
                self.kills[name] += 1
            elif code != 75:
                break
        sys.exit(f"{name} ended with {code}: see {self.log}")

    def once(self, name: str, arguments: Sequence[str], after: float | None = None) -> int:
        """Runs a command once and gives its exit code; a signal's number with a minus.

        Args:
            name: As the log has it.
            arguments: Module and arguments.
            after: Seconds after which it is killed; None for never.
        """
        with self.log.open("a", encoding="utf-8") as log:
            end = "" if after is None else f" (killed after {after:.2f} s)"
            log.write(f"--- {name} {' '.join(arguments)}{end}\n")
        process: Any
        if arguments[0] == "ingest":  # forks its own helpers, before it imports anything heavy
            with self.log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.ingest", *arguments[1:]], cwd=ROOT, stdout=output, stderr=output
                )
            wait: Callable[[float | None], Any] = process.wait
            code: Callable[[], int | None] = process.poll
        else:
            process = self.context.Process(target=run_command, args=(arguments, str(self.log)))
            process.start()
            wait, code = process.join, lambda: process.exitcode
        if after is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                wait(after)
            if code() is None:
                process.kill()
        wait(None)
        ended = code()
        if arguments[0] != "ingest":
            process.close()
        return -signal.SIGKILL if ended is None else ended

    def cycle(self, number: int) -> None:
        """One cycle: data, run, and every few a pruning."""
        if number == 1 or number % SAME_EVERY:
            self.arrive(FIRST_PATIENTS if number == 1 else 1)
        place = f"--workspace={self.workspace}"
        self.command("ingest", "ingest", "idc", f"--input={self.raw}", place, "--workers=2")
        self.moved += soak_checks.moved(self.workspace, self.splits)
        run = (f"--run-id=cycle-{number:03d}", place)
        result = self.command("validate", "step", "validate", "idc", *run, *RECIPE, "--gate-policy=auto")
        if result.get("decision") != "unchanged":
            for stage in ("train", "evaluate", "push", "report"):
                result = self.command(stage, "step", stage, "idc", *run)
        self.decisions[str(result.get("decision"))] += 1
        self.kill_server()
        if number % PRUNE_EVERY == 0 or number == self.cycles:
            self.prune(number)

    def prune(self, number: int) -> None:
        """Deletes what is old and notes what is left."""
        told = self.command("prune", "prune", f"--workspace={self.workspace}", *self.kept, "--yes")
        if told["skipped"]:
            sys.exit(f"Nobody works here, and yet: {told['skipped']}")
        runs = len(list((self.workspace / "runs/idc/binary").iterdir()))
        self.disk.append((number, runs, soak_checks.size(self.workspace, without="models")))

    def play(self) -> None:
        """All cycles, with a sample of memory and open files after each."""
        with self.supervised() as supervisor:
            for number in range(1, self.cycles + 1):
                started = time.monotonic()
                self.cycle(number)
                server: Any = forkserver._forkserver  # type: ignore[attr-defined]
                pids = {"supervisor of servers": supervisor.pid, "driver": os.getpid(),
                        "process that stages are forked from": server._forkserver_pid}  # fmt: skip
                for name, pid in pids.items():
                    self.samples[name].append((number, *soak_checks.usage(pid)))
                done = ", ".join(f"{count} {name}" for name, count in sorted(self.decisions.items()))
                print(f"cycle {number} of {self.cycles}: {time.monotonic() - started:.0f} s; {done}; "
                      f"{sum(self.kills.values())} kills", flush=True)  # fmt: skip


def main() -> None:
    """Soaks in a folder of its own, checks, prints a table, and ends with 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo" / "soak", help="made anew")
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=float, default=0.3, help="share of commands that are killed")
    parser.add_argument("--keep", type=int, default=3, help="runs that a pruning keeps")
    parser.add_argument("--supervise", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.supervise:
        run_supervisor(given.supervise)
        return
    for name in [name for name in os.environ if name.startswith("HISTOLINE_")]:
        del os.environ[name]
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'infra'}"
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    soak = Soak(folder, given.cycles, given.seed, given.kills, given.keep)
    started = time.monotonic()
    soak.play()
    rows = soak_checks.check(soak)
    seconds = time.monotonic() - started
    document = {
        "cycles": given.cycles, "seed": given.seed, "seconds": round(seconds), "decisions": soak.decisions,
        "kills": soak.kills, "disk": soak.disk, "samples": soak.samples,
        "seconds_of_commands": {name: round(taken, 1) for name, taken in soak.seconds.items()},
        "checks": [{"check": name, "held": held, "found": found} for name, held, found in rows],
    }  # fmt: skip
    (folder / "soak.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    soak_checks.show(soak, rows, seconds)
    sys.exit(0 if all(held for _, held, _ in rows) else 1)


if __name__ == "__main__":
    main()
