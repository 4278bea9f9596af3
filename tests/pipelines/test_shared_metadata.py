"""ML Metadata on real servers: MariaDB (MySQL's protocol) and PostgreSQL, from Debian's packages."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from components.errors import TemporaryError, UsageError
from pipelines.tfx.metadata_store import Server, open_store, parse, temporary
from tests.support import ingest_help, train_help
from tests.support.mariadb_help import mariadb
from tests.support.postgresql_help import postgresql
from tests.support.train_help import TINY, record, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

SERVERS = {"mysql": mariadb, "postgresql": postgresql}

OPENS = """
import os
from pipelines.tfx.metadata_store import open_store, parse
open_store(parse(os.environ["HISTOLINE_METADATA"])).get_artifact_types()
"""


@pytest.fixture(scope="module", params=SERVERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a server with an empty data base."""
    with SERVERS[request.param]() as found:
        yield found


def server(url: str, **changes: Any) -> Server:
    """The server of a URL, with another password, say."""
    import dataclasses

    found = parse(url)
    assert found is not None
    return dataclasses.replace(found, **changes)


def test_two_may_open_an_empty_data_base_at_once(url: str) -> None:
    env = {**ingest_help.environment(), "HISTOLINE_METADATA": url, "PYTHONPATH": str(train_help.ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", OPENS], env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in both:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors


def test_a_wrong_password_is_wrong_usage_and_stays_hidden(url: str) -> None:
    with pytest.raises(UsageError, match="refuses the connection") as error:
        open_store(server(url, password="hidden-word"))
    assert "hidden" not in str(error.value)


@pytest.mark.e2e
def test_a_lock_that_another_holds_is_worth_another_try() -> None:
    from ml_metadata.proto import metadata_store_pb2 as proto

    mlmd: Any = proto
    with mariadb() as url:
        one, other = open_store(server(url)), server(url)
        kind = one.put_artifact_type(mlmd.ArtifactType(name="t"))
        (number,) = one.put_artifacts([mlmd.Artifact(type_id=kind, uri="a")])
        with holding(url, f"UPDATE Artifact SET uri='b' WHERE id={number}"):
            with pytest.raises(Exception, match="Lock wait timeout") as error:
                open_store(other).put_artifacts([mlmd.Artifact(id=number, type_id=kind, uri="c")])
            told = temporary(error.value, other)  # type: ignore[arg-type]
            assert isinstance(told, TemporaryError) and "other runs write to" in str(told)
    with pytest.raises(Exception, match="mysql") as error:
        one.get_artifacts_by_id([number])  # the server is gone
    told = temporary(error.value, other)  # type: ignore[arg-type]
    assert isinstance(told, TemporaryError) and "failed: mysql" in str(told)


@contextlib.contextmanager
def holding(url: str, statement: str) -> Iterator[None]:
    """A transaction that stays open over the block."""
    parts = urlsplit(url)
    process = subprocess.Popen(
        ["mariadb", "--no-defaults", "--protocol=tcp", f"--host={parts.hostname}", f"--port={parts.port}",
         f"--user={parts.username}", "--unbuffered", "--skip-column-names", parts.path[1:]],
        env={**os.environ, "MYSQL_PWD": unquote(str(parts.password))}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"BEGIN; {statement}; SELECT 'held';\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == "held"
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.e2e
def test_two_runs_at_once_share_a_store(url: str, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    ingest_help.ingest(train_help.draw(tmp_path / "raw"), workspace)
    env = {**ingest_help.environment(), "HISTOLINE_METADATA": url, "PYTHONPATH": str(train_help.ROOT)}
    both = []
    for name, seed in (("one", 1), ("two", 2)):
        command = ["train", "idc", "--workspace", workspace, "--run-id", name, "--seed", seed, *TINY]
        both.append(
            subprocess.Popen(
                [sys.executable, "-m", f"pipelines.{command[0]}", *map(str, command[1:])],
                cwd=train_help.ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        )
    for process in both:
        said = process.communicate(timeout=900)[0]
        assert process.returncode == 0, said
    secret = unquote(str(urlsplit(url).password))
    for name in ("one", "two"):
        kept = record(workspace, name)
        assert kept["state"] == "done" and kept["options"]["metadata"] == server(url).place
        told = run("lineage", name, "--workspace", workspace, HISTOLINE_METADATA=url).stdout
        assert "Trainer  COMPLETE" in told and "Evaluator  COMPLETE" in told, told
        assert "Ingest  COMPLETE" in told, told
        elsewhere = run("lineage", name, "--workspace", workspace)
        assert elsewhere.returncode == 64 and "HISTOLINE_METADATA" in elsewhere.stderr
    for file in workspace.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file
