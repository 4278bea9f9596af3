"""A Google Storage emulator for tests: one process on a free loopback port, stopped by its own pid."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.storage.open import open_storage

ROOT = Path(__file__).resolve().parents[2]


@functools.lru_cache(maxsize=1)
def build() -> tuple[str, str]:
    """The emulator's path, built where it is not there yet; else an empty string and what stands in the way."""
    # Other workers wait for the one that builds.
    built = subprocess.run(["bash", ROOT / "infra" / "fake_gcs.sh"], capture_output=True, text=True)
    return (built.stdout.strip(), "") if built.returncode == 0 else ("", built.stderr.strip()[-300:])


def binary() -> str:
    """Returns the emulator; the test is skipped where there is none, or fails where HISTOLINE_REQUIRE_GCS is set."""
    path, problem = build()
    if not path and os.environ.get("HISTOLINE_REQUIRE_GCS"):
        pytest.fail(f"no Google Storage emulator here, but HISTOLINE_REQUIRE_GCS is set: {problem}")
    if not path:
        pytest.skip(f"no Google Storage emulator here: {problem}")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def emulator(seen_at: str = "") -> Iterator[str]:
    """Runs an empty emulator and yields its URL, for STORAGE_EMULATOR_HOST.

    Args:
        seen_at: HOST:PORT by which callers reach it, where something stands in between: answers name it.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    process = subprocess.Popen(
        [binary(), *arguments, "-public-host", seen_at or f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/_internal/healthcheck", timeout=5).close()
                break
            assert process.poll() is None, "the emulator died at start"
            time.sleep(0.05)
        yield url
    finally:
        os.kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def make_bucket(url: str, name: str) -> None:
    """Makes an empty bucket in a running emulator."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(
        project="emulator", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    )
    client.create_bucket(name)


@contextlib.contextmanager
def buckets(monkeypatch: pytest.MonkeyPatch, cache: Path, *names: str) -> Iterator[str]:
    """An emulator with these buckets that the code under test finds; yields its URL."""
    binary()
    with emulator() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setenv("HISTOLINE_CACHE", str(cache))
        for name in names:
            make_bucket(url, name)
        yield url


def upload(folder: Path, prefix: str) -> None:
    """Copies a folder into a bucket."""
    storage = open_storage(prefix)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        storage.write_atomic(file.relative_to(folder).as_posix(), file.read_bytes())
