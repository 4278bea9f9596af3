"""A PostgreSQL server of a test's own, from Debian's packages or wherever `pg_config` leads."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def programs() -> Path:
    """Folder of initdb and pg_ctl; the test is skipped where there is none."""
    candidates = [Path(found).parent] if (found := shutil.which("pg_ctl")) else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "pg_ctl").exists():
            return folder
    if os.environ.get("HISTOLINE_REQUIRE_POSTGRESQL"):
        pytest.fail("no PostgreSQL here, but HISTOLINE_REQUIRE_POSTGRESQL is set")
    pytest.skip("no PostgreSQL here: apt-get install postgresql")


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """URL of a new, empty data base; its password holds what URLs must escape."""
    folder = programs()
    home = Path(tempfile.mkdtemp(prefix="histoline-postgresql-"))
    password = f"p%40{secrets.token_hex(8)}"  # `p@...` once it is unescaped
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "password").write_text(password.replace("%40", "@"))
    prefix: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        prefix = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        for path in (home, home / "password"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*prefix, str(folder / program), *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server inherits it: a pipe would never end
            stderr=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{program} failed; see {home}"

    data = str(home / "data")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home} -c fsync=off"
    run("initdb", "-D", data, "-U", "histoline", "-A", "scram-sha-256", f"--pwfile={home}/password", "-E", "UTF8")
    run("pg_ctl", "-D", data, "-l", str(home / "log"), "-w", "-o", options, "start")
    try:
        yield f"postgresql://histoline:{password}@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(home, ignore_errors=True)
