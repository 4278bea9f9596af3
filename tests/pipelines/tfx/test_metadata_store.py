"""Where ML Metadata lies: URLs, refusals, and what a busy or lost store becomes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from components.errors import TemporaryError, UsageError
from components.storage.open import open_storage
from pipelines.tfx import metadata_store
from pipelines.tfx.metadata_store import Server, SqliteFile, open_store, parse, pipeline_name, temporary

SECRET = "p%40ss%2Fw0rd"
SERVER = Server("mysql", "127.0.0.1", 3306, "mlmd", "histo", "hidden-word")


def test_urls_name_a_server() -> None:
    found = parse(f"postgresql://histo:{SECRET}@db.example:6000/mlmd")
    assert found == Server("postgresql", "db.example", 6000, "mlmd", "histo", "p@ss/w0rd")
    assert found is not None and found.place == "postgresql://histo@db.example:6000/mlmd"
    assert "w0rd" not in repr(found) and "w0rd" not in found.place
    assert parse(f"mysql://histo:{SECRET}@db.example/mlmd") == Server(
        "mysql", "db.example", 3306, "mlmd", "histo", "p@ss/w0rd"
    )
    assert parse("") is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"sqlite://u:{SECRET}@h/d", "scheme is 'sqlite'"),
        (f"u:{SECRET}@h/d", "no scheme"),
        (f"mysql://:{SECRET}@h/d", "no user"),
        (f"mysql://u:{SECRET}@h", "no data base"),
        (f"mysql://u:{SECRET}@h:{SECRET}/d", "host or port"),
        (f"mysql://u:{SECRET}@h/d/e", "more follows"),
        (f"postgresql://u:{SECRET}@h/d?sslmode=require", "more follows"),
    ],
)
def test_wrong_urls_are_wrong_usage_and_never_repeated(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        parse(url)
    assert "w0rd" not in str(error.value)


def test_a_server_that_is_not_there_may_come_back() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(TemporaryError, match=f"histo@127.0.0.1:{port}/mlmd can't be reached") as error:
        open_store(Server("mysql", "127.0.0.1", port, "mlmd", "histo", "hidden-word"))
    assert "hidden" not in str(error.value)


def test_busy_and_lost_stores_are_worth_another_try(tmp_path: Path) -> None:
    from ml_metadata import errors

    file = SqliteFile(tmp_path / "a.sqlite")
    deadlock = errors.make_exception("mysql_query aborted: errno: Deadlock found", errors.ABORTED)
    lost = errors.make_exception("mysql_query failed: errno: Lost connection to MySQL server", errors.INTERNAL)
    for error, store in (
        (RuntimeError("Concurrent writes aborted"), file), (deadlock, file), (deadlock, SERVER), (lost, SERVER),
    ):  # fmt: skip
        problem = temporary(error, store)
        assert isinstance(problem, TemporaryError) and store.place in str(problem) and "hidden" not in str(problem)
    assert "Lost connection" in str(temporary(lost, SERVER))
    for bug in (lost, RuntimeError("something else"), ValueError("a bug")):
        assert temporary(bug, file) is None
        with pytest.raises(type(bug)), metadata_store.troubles(file):
            raise bug
    with pytest.raises(TemporaryError, match="other runs write"), metadata_store.troubles(file):
        raise deadlock


def test_workspaces_that_share_a_store_do_not_share_their_runs(tmp_path: Path) -> None:
    one, other = open_storage(tmp_path / "one"), open_storage(tmp_path / "other")
    assert pipeline_name(one, "idc", "binary", None) == "idc-binary"
    names = {pipeline_name(storage, "idc", "binary", SERVER) for storage in (one, other, one)}
    assert len(names) == 2 and all(name.startswith("idc-binary-") for name in names)


def test_a_store_that_is_being_made_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_metadata.metadata_store import metadata_store as mlmd

    tries, real = [], mlmd.MetadataStore

    def racing(connection: object) -> object:
        tries.append(connection)
        if len(tries) == 1:
            raise RuntimeError("There are a subset of tables in MLMD instance. Please retry the connection.")
        return real(connection)

    monkeypatch.setattr(mlmd, "MetadataStore", racing)
    monkeypatch.setattr(metadata_store.time, "sleep", lambda seconds: None)
    assert open_store(SqliteFile(tmp_path / "a.sqlite")).get_artifact_types() == []
    assert len(tries) == 2


def test_a_run_goes_on_in_the_store_that_it_was_begun_in(tmp_path: Path) -> None:
    from components.training import run_record
    from pipelines.tfx.stage_nodes import check_store
    from tests.support.manifests import manifest

    storage = open_storage(tmp_path)
    options = {"metadata": SERVER.place}
    folder = "runs/idc/binary/a"
    begun = run_record.create(storage, folder, config={}, dataset_dir="d", manifest=manifest(), options=options)
    check_store(begun, SERVER)
    for other in (None, Server("mysql", "127.0.0.1", 3306, "other", "histo", "hidden-word")):
        with pytest.raises(UsageError, match="keeps its lineage in mysql://histo@127.0.0.1:3306/mlmd") as error:
            check_store(begun, other)
        assert "HISTOLINE_METADATA" in str(error.value) and "hidden" not in str(error.value)


@pytest.mark.parametrize("command", [("train", "idc"), ("step", "validate", "idc", "--run-id", "a"), ("lineage", "a")])
def test_commands_refuse_a_wrong_url_first(command: tuple[str, ...], tmp_path: Path) -> None:
    import click.testing

    from pipelines.cli import cli

    args = [*command, "--workspace", str(tmp_path), "--metadata", f"oracle://u:{SECRET}@h/d"]
    done = click.testing.CliRunner().invoke(cli, args)
    assert isinstance(done.exception, UsageError) and "scheme is 'oracle'" in str(done.exception)
    assert "w0rd" not in str(done.exception) + done.output
