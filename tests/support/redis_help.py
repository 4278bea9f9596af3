"""A Redis server of a test's own, from Debian's package."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def program() -> str:
    """Path of redis-server; the test is skipped where there is none."""
    if found := shutil.which("redis-server"):
        return found
    if os.environ.get("HISTOLINE_REQUIRE_REDIS"):
        pytest.fail("no Redis here, but HISTOLINE_REQUIRE_REDIS is set")
    pytest.skip("no Redis here: apt-get install redis-server")


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """URL, password included, of a new and empty server that keeps nothing on disk.

    Args:
        folder: For its settings and log.
    """
    path = program()
    password = secrets.token_hex(8)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "redis.conf"
    settings.write_text(f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\ndir {folder}\n')
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen([path, str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None and time.monotonic() < deadline, (folder / "redis.log").read_text()
            time.sleep(0.05)
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(20)
