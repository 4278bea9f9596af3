"""Rows of the fault list that need whole processes: kills, closed streams, locales, two at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.fault import Fault, Place
from tests.support import ingest_help

COMMAND = [sys.executable, "-m", "pipelines.cli"]
HERE = """
import sys
from pathlib import Path
from tests.support.ingest_help import ingest
ingest(Path(sys.argv[1]), Path(sys.argv[2]), max_faults=0.5)
"""
"""An ingest without Beam, in a process of its own."""


def shell(line: str) -> Callable[[Place], tuple[int, str]]:
    """A line of a shell in which `histoline` is the command and $W the workspace; `exit code, standard error`."""

    def act(place: Place) -> tuple[int, str]:
        program = " ".join(f"'{part}'" for part in COMMAND)
        script = f"set -o pipefail; histoline() {{ {program} \"$@\"; }}; {line}"
        done = subprocess.run(
            ["bash", "-c", script], env=ingest_help.environment(W=str(place.w)), capture_output=True, text=True,
            timeout=120, cwd=ingest_help.ROOT,
        )  # fmt: skip
        return done.returncode, done.stderr

    return act


def ingest_in(**environment: str) -> Callable[[Place], tuple[int, str]]:
    """An ingest in a process with another environment."""

    def act(place: Place) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", HERE, str(place.raw), str(place.root / "new")], capture_output=True, text=True,
            env=ingest_help.environment(**environment), cwd=ingest_help.ROOT, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stderr

    return act


def killed(after: float) -> Callable[[Place], tuple[int, str]]:
    """SIGKILL to an ingest so many seconds after it has begun to write; then it is run again."""

    def act(place: Place) -> tuple[int, str]:
        workspace = place.root / "new"
        process = subprocess.Popen(
            [sys.executable, "-c", HERE, str(place.raw), str(workspace)], env=ingest_help.environment(),
            cwd=ingest_help.ROOT, stderr=subprocess.PIPE,
        )  # fmt: skip
        while not workspace.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return 0, ""

    return act


def two_at_once(place: Place) -> tuple[int, str]:
    """Two ingests of the command line begin together: one works, the other finds it done."""
    given = ("idc", "--input", place.raw, "--workspace", place.root / "new")
    both = [ingest_help.start(*given) for _ in range(2)]
    ends = [process.communicate(timeout=200) for process in both]
    return max(process.returncode for process in both), "".join(out + error for out, error in ends)


def full_pipe(place: Place) -> tuple[int, str]:
    """Standard output is a disk that is full."""
    if not Path("/dev/full").exists():
        return 75, "The disk is full"
    return shell("histoline runs list --workspace $W > /dev/full")(place)


SLOW: tuple[Fault, ...] = (
    Fault("standard output is closed", shell("histoline datasets list --workspace $W >&-"), slow=True),
    Fault("standard error is closed", shell("histoline datasets show nothing --workspace $W 2>&-"), 64, slow=True),
    Fault("all three streams are closed", shell("histoline datasets list --workspace $W <&- >&- 2>&-"), slow=True),
    Fault("nobody reads the output", shell("histoline datasets list --workspace $W | true; exit 0"), slow=True),
    Fault("standard output is a full disk", full_pipe, 75, "disk is full", slow=True),
    Fault("the locale is C, without UTF-8", ingest_in(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
          left=lambda place: place.same_bytes(), slow=True),
    Fault("another locale, time zone and hash seed", ingest_in(LC_ALL="tr_TR.UTF-8", TZ="Asia/Kathmandu",
          PYTHONHASHSEED="77"), left=lambda place: place.same_bytes(), slow=True),
    *(
        Fault(f"SIGKILL {int(1000 * after)} ms after an ingest has begun to write", killed(after),
              left=lambda place: place.same_bytes(), slow=True)
        for after in (0.0, 0.01, 0.02, 0.04, 0.08)
    ),
    Fault("two ingests at once", two_at_once, left=lambda place: place.same_bytes(), slow=True),
)  # fmt: skip
