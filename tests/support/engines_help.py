"""Beam's engines for tests: processes on free loopback ports, each ended by its own process id."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import ingest_help
from tests.support.gcs import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

SLOW = """
import time
from components.adapters.raw_files import FolderSource
def slowed(read):
    def read_many(self, paths, sizes):
        for data in read(self, paths, sizes):
            time.sleep(0.01)
            yield data
    read_many.slow = True
    return read_many
if not hasattr(FolderSource.read_many, "slow"):
    FolderSource.read_many = slowed(FolderSource.read_many)
"""
"""Makes a worker that is started with it slow enough to be met at work."""


@functools.lru_cache(maxsize=1)
def prism() -> str:
    """Prism's path, built where it is not there yet; skips, or fails where HISTOLINE_REQUIRE_PRISM is set."""
    built = subprocess.run(["bash", ROOT / "infra" / "prism.sh"], capture_output=True, text=True)
    if built.returncode == 0:
        return built.stdout.strip()
    problem = f"no Prism here: {built.stderr.strip()[-300:]}"
    if os.environ.get("HISTOLINE_REQUIRE_PRISM"):
        pytest.fail(f"{problem} (HISTOLINE_REQUIRE_PRISM is set)")
    pytest.skip(problem)


@contextlib.contextmanager
def process(*arguments: object, log: Path, **env: str) -> Iterator[psutil.Process]:
    """A server for the time of a block; it and what it started end with the block."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # a pool of workers starts plain `python`
    with open(log, "ab") as out:
        child = subprocess.Popen(
            [str(argument) for argument in arguments],
            env=ingest_help.environment(**{"PATH": path, **env}), cwd=log.parent,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        yield psutil.Process(child.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_for_port(port: int, server: psutil.Process) -> None:
    """Waits until somebody listens there."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert server.is_running() and server.status() != psutil.STATUS_ZOMBIE, "the server ended"
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


def documented(section: str, holds: str, **instead: str) -> list[str]:
    """Words of the command in a section of docs/engines.md that holds a text, with other words in their places.

    Args:
        section: Heading.
        holds: Text of the one line that is meant.
        instead: Word of the line, `_` for what no name may hold, to what replaces it.
    """
    text = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    (line,) = (line for line in text.split("```sh\n")[1].split("```")[0].splitlines() if holds in line)
    for old, new in instead.items():
        assert old.lstrip("_") in line
        line = line.replace(old.lstrip("_"), new)
    return line.removesuffix("&").replace(".venv/bin/", f"{BIN}/").split()


class Dask:
    """A scheduler; workers are added by `worker`.

    Args:
        home: For logs and the workers' own folders.
        stack: Ends the processes.
    """

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        self._home, self._stack = home, stack
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        command = documented("dask", "dask scheduler", _8786=str(port))
        self.scheduler = stack.enter_context(process(*command, "--no-dashboard", log=home / "scheduler.log"))
        wait_for_port(port, self.scheduler)
        self.flags = documented("dask", "histoline ingest", _8786=str(port))[-3:]

    def documented_workers(self) -> None:
        """Starts those of the documentation, two with a nanny each, and waits for them."""
        command = documented("dask", "dask worker", **{"tcp://127.0.0.1:8786": self.address})
        arguments = ["--no-dashboard", f"--local-directory={self._home}"]
        self._stack.enter_context(process(*command, *arguments, log=self._home / "worker.log"))
        self.wait_for(2)

    def worker(self, slow: bool = False) -> psutil.Process:
        """Starts one worker of one thread; with `slow`, one that can be met at work."""
        arguments: list[object] = [self.address, "--nthreads=1", "--no-nanny", "--no-dashboard", "--host=127.0.0.1"]
        if slow:
            (self._home / "slow.py").write_text(SLOW)
            arguments.append(f"--preload={self._home / 'slow.py'}")
        arguments.append(f"--local-directory={self._home}")
        return self._stack.enter_context(process(BIN / "dask", "worker", *arguments, log=self._home / "worker.log"))

    def wait_for(self, count: int) -> None:
        """Waits until so many have come."""
        from distributed import Client

        with Client(self.address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)

    def loaded(self, *modules: str) -> set[str]:
        """Those of the modules that a worker has imported."""
        from distributed import Client

        with Client(self.address, timeout=30, set_as_default=False) as client:
            found = client.run(lambda: [name for name in modules if name in sys.modules])
        return {name for names in found.values() for name in names}


class Portable:
    """Prism, and a pool of workers of the portable job API.

    Args:
        home: For logs.
        stack: Ends the processes.
        slow: Workers that can be met at work.
    """

    def __init__(self, home: Path, stack: contextlib.ExitStack, slow: bool = False) -> None:
        job, web, pool = free_port(), free_port(), free_port()
        env = {}
        if slow:
            (home / "slow").mkdir()
            (home / "slow" / "sitecustomize.py").write_text(SLOW)
            env["PYTHONPATH"] = f"{home / 'slow'}{os.pathsep}{ROOT}"
        command = documented("portable", "--job_port=", _8073=str(job), _8074=str(web))
        server = stack.enter_context(process(prism(), *command[1:], log=home / "prism.log"))
        path, *command = documented("portable", "worker_pool_main", _50000=str(pool))
        assert path.startswith("PATH=")  # `process` sets it
        self.pool = stack.enter_context(process(*command, log=home / "pool.log", **env))
        wait_for_port(job, server)
        wait_for_port(pool, self.pool)
        self.flags = documented("portable", "histoline ingest", _8073=str(job), _50000=str(pool))[-4:]
