"""A MariaDB server of a test's own, from Debian's packages: it speaks MySQL's protocol."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest


def programs() -> tuple[str, str, str]:
    """mariadb-install-db, mariadbd and mariadb; the test is skipped where they are not."""
    names = ("mariadb-install-db", "mariadbd", "mariadb")
    found = [shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin") for name in names]
    if None in found:
        if os.environ.get("HISTOLINE_REQUIRE_MARIADB"):
            pytest.fail("no MariaDB here, but HISTOLINE_REQUIRE_MARIADB is set")
        pytest.skip("no MariaDB here: apt-get install mariadb-server")
    return str(found[0]), str(found[1]), str(found[2])


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """URL of a new, empty data base; its password holds what URLs must escape."""
    install, server, client = programs()
    home = Path(tempfile.mkdtemp(prefix="histoline-mariadb-"))
    password = f"p@/{secrets.token_hex(8)}"
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:  # MariaDB refuses to run as root
        os.chown(home, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        [install, "--no-defaults", f"--datadir={home}/data", f"--user={user}", "--skip-test-db",
         "--auth-root-authentication-method=normal"],
        check=True, **quiet,
    )  # fmt: skip
    process = subprocess.Popen(
        [server, "--no-defaults", f"--datadir={home}/data", f"--user={user}", f"--socket={home}/socket",
         f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={home}/pid", f"--log-error={home}/log",
         "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=1"],
        **quiet,
    )  # fmt: skip
    commands = (
        f"CREATE USER histoline@'%' IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO histoline@'%';"
        " CREATE DATABASE mlmd;"
    )
    try:
        for _ in range(300):
            assert process.poll() is None, f"mariadbd ended; see {home}/log"
            asked = [client, "--no-defaults", f"--socket={home}/socket", "--user=root", "--execute", commands]
            if subprocess.run(asked, **quiet).returncode == 0:
                break
            time.sleep(0.1)
        yield f"mysql://histoline:{quote(password, safe='')}@127.0.0.1:{port}/mlmd"
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)
