"""Processes that work on a storage beside the test."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
    import sys
    from components.storage.open import open_storage
    if sys.argv[1].startswith("gs:"):
        from components.storage import gcs_lock
        gcs_lock.BEAT_SECONDS = 0.1
    with open_storage(sys.argv[1]).lock("run/.lock", owner="the first"):
        print("ready", flush=True)
        sys.stdin.read()
"""
"""Holds the lock run/.lock of the storage in its argument until its input ends."""

READY = """
import sys
print("ready", flush=True)
sys.stdin.readline()
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts a process that says `ready` (or something else) on its first line of output."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def hold(root: str) -> subprocess.Popen[str]:
    """A process that holds run/.lock of a storage."""
    holder = python(HOLD, root)
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    return holder


def side_by_side(imports: str, code: str, *arguments: tuple[object, ...]) -> list[subprocess.Popen[str]]:
    """Processes that begin their work together, after all of them have imported what they need.

    Args:
        imports: Run by each before it waits.
        code: Run by each once all are ready.
        arguments: Of each process.
    """
    whole = textwrap.dedent(imports) + READY + textwrap.dedent(code)
    workers = [python(whole, *given) for given in arguments]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return workers
