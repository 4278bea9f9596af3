"""Training as one worker of several, in a process of its own (`components.training.worker_main`).

TensorFlow takes its place in a cluster when it starts, and ends the process where another worker is lost: neither may
happen to the process that holds the run's lock and TFX's metadata. What it says on stdout is the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from components import errors
from components.training.cluster import VARIABLE, Cluster, join_seconds
from components.training.recipe import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
ERROR = "error.json"
POLL_SECONDS = 2.0
LOST_TAIL = ("coordination", "heartbeat", "ollective")
"""Words of TensorFlow's last lines where it ended the process because another worker was lost."""

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """What the process is asked for.

    Attributes:
        config: The recipe as JSON.
        dataset_dir: Local folder of the data set.
        run_dir: Local folder of the run; of workers other than the chief, one that goes with the process.
        parent: Number of the process that asks.
        scratch: Folder for the error.
    """

    config: str
    dataset_dir: str
    run_dir: str
    parent: int
    scratch: str


def train_apart(
    config: TrainingConfig,
    dataset_dir: str | Path,
    run_dir: Path,
    cluster: Cluster,
    *,
    log: Log = lambda line: None,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Trains as this worker; the chief then has the exported model in `run_dir/model`.

    Args:
        config: The recipe; its batch is that of all workers together.
        dataset_dir: Folder of a committed data set.
        run_dir: Local folder of the run.
        cluster: Which worker this is, of which.
        log: Takes progress, a line at a time.
        wanted: Asked now and then; the process is ended once it says no.

    Raises:
        TemporaryError: Another worker did not come, or was lost; what is trained is kept by the chief.
        HistolineError: As the process ended.
    """
    with tempfile.TemporaryDirectory(prefix="histoline-worker-") as scratch:
        request = Request(config.to_json(), os.fspath(dataset_dir), str(run_dir), os.getpid(), scratch)
        file, complaints = Path(scratch, "request.json"), Path(scratch, "stderr")
        file.write_text(json.dumps(dataclasses.asdict(request)))
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            VARIABLE: cluster.to_text(),
        }
        with open(complaints, "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "components.training.worker_main", str(file)],
                cwd=ROOT, env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        with _watched(process, wanted) as watch:
            assert process.stdout is not None
            for line in process.stdout:
                watch.joined = True  # it says nothing before
                log(line.rstrip("\n"))
            code = process.wait()
        if watch.late:
            raise errors.TemporaryError(
                f"{cluster.describe()} has waited {join_seconds():g} s for the other workers in vain.",
                f"Start the command on every machine that {VARIABLE} names, and see that they reach each other.",
            )
        if code:
            raise _ended(code, Path(scratch), complaints.read_text(errors="replace"), cluster)


@dataclasses.dataclass
class _Watch:
    """What the watch over a worker's process knows.

    Attributes:
        joined: The other workers have come.
        late: They did not come in time, so the process was ended.
    """

    joined: bool = False
    late: bool = False


@contextlib.contextmanager
def _watched(process: subprocess.Popen[str], wanted: Callable[[], bool]) -> Iterator[_Watch]:
    """Ends the process where nobody comes, where it is no longer wanted, or where the block is left before its end."""
    over, watch = threading.Event(), _Watch()
    deadline = time.monotonic() + join_seconds()

    def look() -> None:
        while not over.wait(POLL_SECONDS):
            watch.late = not watch.joined and time.monotonic() > deadline
            if watch.late or not wanted():
                process.kill()
                return

    thread = threading.Thread(target=look, name="watch over training", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
        if process.poll() is None:
            process.kill()
            process.wait()


def _ended(code: int, scratch: Path, stderr_text: str, cluster: Cluster) -> Exception:
    """What the end of the process means."""
    kinds = {kind.exit_code: kind for kind in (errors.UsageError, errors.DataError, errors.TemporaryError)}
    if code in kinds and (scratch / ERROR).is_file():
        failure = json.loads((scratch / ERROR).read_text())
        return kinds[code](failure["what"], failure["fix"])
    tail = " ".join(stderr_text.split())[-600:]
    # A traceback is our own; TensorFlow ends a process without one.
    if code < 0 or ("Traceback" not in stderr_text and any(word in tail for word in LOST_TAIL)):
        why = f"was ended by signal {-code}" if code < 0 else "gave up"
        return errors.TemporaryError(
            f"The training process of {cluster.describe()} {why}, as happens when another worker is gone or memory"
            f" runs out. {tail[-300:]}".rstrip(),
            "Start the command again on every machine: training goes on from the last epoch.",
        )
    return RuntimeError(f"the training process of {cluster.describe()} ended with {code}:\n{stderr_text[-2000:]}")
