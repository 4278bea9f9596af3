"""One pipeline command as a child process: its log lines, its result, and its certain end. Standard library only."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SHIM = Path(__file__).with_name("shim.py")
POLL_SECONDS = 0.1
KILL_AFTER_SECONDS = 4.0
"""The shim needs up to 3 s and a moment; Airflow kills a task process 5 s after its SIGTERM."""

MAX_LINES = 20_000
"""Log lines past which only the last ones are kept: a log is for people, and Airflow stores every line."""

TAIL_LINES = 50
MAX_LINE_BYTES = 64 * 1024
MAX_RESULT_BYTES = 256 * 1024

ALLOWED = frozenset(
    ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"]
    + ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"]
    + ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"]
    + ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"]
)
"""What a step may know of Airflow's environment, beside HISTOLINE_* and TF_*; never AIRFLOW__* (it holds secrets)."""

SECRET = frozenset(["HISTOLINE_WEBHOOK_URL"])

LogLine = Callable[[str, str], None]


def allowed_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a step gets.

    Args:
        environ: Airflow's own.
    """
    return {
        name: value
        for name, value in environ.items()
        if (name in ALLOWED or name.startswith(("HISTOLINE_", "TF_", "XLA_"))) and name not in SECRET
    }


def parse_line(line: str) -> tuple[str, str]:
    """Level and text of a line of output; what is not `{level, msg}` is info.

    Args:
        line: Without its end.
    """
    if line.startswith("{"):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and {"level", "msg"} <= record.keys():
                return str(record["level"]).lower(), str(record["msg"])
    return "info", line


class StepProcess:
    """A running command and everything that it started.

    Args:
        command: Program and arguments; no shell sees them.
        environ: Its whole environment, apart from what the protocol adds.
        log: Called with level and text for each line of output, from another thread.

    Attributes:
        last_error: Text of the last line of level error, empty where there was none.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: LogLine) -> None:
        self._log = log
        self._stop_at: float | None = None
        self._tail: collections.deque[tuple[str, str]] = collections.deque(maxlen=TAIL_LINES)
        self._lines = 0
        self.last_error = ""
        self._folder = tempfile.TemporaryDirectory(prefix="histoline-step-")
        self._token = f"HISTOLINE_STEP={uuid.uuid4().hex}"
        self._result = Path(self._folder.name, "result.json")
        name, _, token = self._token.partition("=")
        added = {
            name: token,
            "HISTOLINE_RESULT_JSON": str(self._result),
            "HISTOLINE_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        shim = [sys.executable, "-I", "-S", str(SHIM), str(os.getpid())]
        self._process = subprocess.Popen(
            [*shim, *command],
            env={**environ, **added},
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Airflow's servers write for their owner alone; the workspace keeps the modes that its users expect.
            umask=int(environ.get("HISTOLINE_STEP_UMASK") or "-1", 8),
        )
        assert self._process.stdout is not None
        self._pump = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._pump.start()

    def wait(self) -> int:
        """Waits for the end; nothing that the command started lives on.

        Returns:
            The exit code; 128 + N where signal N ended it.
        """
        try:
            # Not the end of the pipe decides (a helper may hold it open), and polling leaves room for signal handlers.
            while self._process.poll() is None:
                if self._stop_at is not None and time.monotonic() > self._stop_at:
                    break
                time.sleep(POLL_SECONDS)
        finally:
            self.end()
        code = self._process.returncode
        return 128 - code if code < 0 else code

    def stop(self) -> None:
        """Asks for the end, at once and from a signal handler; `wait` sees to it."""
        self._stop_at = self._stop_at or time.monotonic() + KILL_AFTER_SECONDS
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Ends what still runs, on every way out; safe to repeat."""
        if self._process.poll() is None:
            self.stop()
            while self._process.poll() is None and time.monotonic() < (self._stop_at or 0):
                time.sleep(0.02)
        # The shim has ended its processes itself, unless it was killed. These two find what it left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._sweep()
        self._process.wait()
        self._pump.join(2.0)

    def result(self) -> dict[str, Any]:
        """What the command left in HISTOLINE_RESULT_JSON; empty where it left nothing that can be read."""
        try:
            data = self._result.read_bytes()
            result = json.loads(data) if len(data) <= MAX_RESULT_BYTES else {}
        except (OSError, ValueError):
            return {}
        return result if isinstance(result, dict) else {}

    def close(self) -> None:
        """Removes the folder that the result came through."""
        self._folder.cleanup()

    def _sweep(self) -> None:
        """Kills processes that carry this step's mark, whatever session they went to."""
        mark = self._token.encode()
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    os.kill(int(name), signal.SIGKILL)

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            while line := stream.readline(MAX_LINE_BYTES):
                self._log_line(*parse_line(line.decode("utf-8", "backslashreplace").rstrip("\r\n")))
        if self._lines > MAX_LINES:
            self._log("warning", f"{self._lines - MAX_LINES:,} more lines were not logged; the last ones were:")
            for level, text in self._tail:
                self._log(level, text)

    def _log_line(self, level: str, text: str) -> None:
        if level in ("error", "critical"):
            self.last_error = text
        self._lines += 1
        if self._lines <= MAX_LINES:
            self._log(level, text)
        else:
            self._tail.append((level, text))
