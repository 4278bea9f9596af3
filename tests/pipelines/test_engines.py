"""`--engine`: flags that an engine sets, flags that contradict it, and engines that are not there."""

from __future__ import annotations

import dataclasses
import logging
import socket
from pathlib import Path

import pytest

from components.errors import TemporaryError, UsageError
from components.storage.open import open_storage
from components.storage.shared_places import shared_places
from pipelines.beam.engine_errors import engine_errors
from pipelines.beam.engines import check_endpoints, engine_args, parse_flags
from pipelines.beam.flags import leaves_this_process
from tests.support.gcs import free_port

DATAFLOW = ["--project=some-project", "--region=r", "--temp_location=gs://b/t", "--sdk_container_image=i"]


@pytest.mark.parametrize("engine, given", [("local", []), ("dask", []), ("portable", []), ("dataflow", DATAFLOW)])
def test_an_engine_sets_what_makes_it_work(
    engine: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    args = engine_args(engine, given)
    flags = parse_flags(args)
    assert leaves_this_process(args) == (engine != "local") == ("no_save_main_session" in flags)
    assert args[len(args) - len(given) :] == given
    if engine == "dask":
        assert (flags["dask_partition_size"], flags["dask_client_address"]) == ("1", "tcp://127.0.0.1:8786")
    if engine == "portable":
        assert (flags["environment_type"], flags["environment_config"]) == ("EXTERNAL", "127.0.0.1:50000")
    assert ("setup_file" in flags) == (engine == "dataflow")


def test_flags_of_the_user_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://a:1")
    assert parse_flags(engine_args("dask", []))["dask_client_address"] == "tcp://a:1"
    assert parse_flags(engine_args("dask", ["--dask_client_address", "tcp://b:2"]))["dask_client_address"] == "tcp://b:2"
    docker = engine_args("portable", ["--environment_type=DOCKER", "--environment_config=image"])
    assert parse_flags(docker)["setup_file"].endswith("setup.py")
    assert engine_args("dask", ["--runner=DaskRunner"])[-1] == "--runner=DaskRunner"
    assert engine_args(None, ["--dask_npartitions=3"]) == ["--runner=FnApiRunner", "--dask_npartitions=3"]


@pytest.mark.parametrize(
    "engine, flag, says",
    [
        ("dask", "--runner=PortableRunner", "contradicts --engine dask"),
        ("dask", "--dask_partition_size=128", "contradicts --engine dask"),
        ("dask", "--dask_npartitions=2", "does not go with --engine dask"),
        ("dask", "--job_endpoint=a:1", "flag of --engine portable, not of dask"),
        ("portable", "--save_main_session", "does not go with --engine portable"),
        ("portable", "--environment_type=DOCKER", "--environment_config=IMAGE"),
        ("local", "--dask_client_address=tcp://a:1", "flag of --engine dask, not of local"),
        ("dataflow", "--project=some-project", "--region"),
    ],
)
def test_a_contradiction_is_64(engine: str, flag: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        engine_args(engine, [flag])


@pytest.mark.parametrize("engine, start", [("dask", "dask scheduler"), ("portable", "infra/prism.sh")])
def test_an_engine_that_is_not_there_is_75_with_the_way_to_start_it(engine: str, start: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    flag = f"--dask_client_address=tcp://{address}" if engine == "dask" else f"--job_endpoint={address}"
    with pytest.raises(TemporaryError, match=f"answers at (tcp://)?{address}.*{start}"):
        check_endpoints(engine_args(engine, [flag]))


def test_a_pool_that_is_not_there_is_told_where_both_are_on_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        job = f"--job_endpoint=127.0.0.1:{server.getsockname()[1]}"
        pool = f"--environment_config=127.0.0.1:{free_port()}"
        with pytest.raises(TemporaryError, match="worker pool .*worker_pool_main --service_port="):
            check_endpoints(engine_args("portable", [job, pool]))
        check_endpoints(engine_args("portable", [job, "--environment_config=pool.cluster:50000"]))
    with pytest.raises(UsageError, match="HOST:PORT"):
        check_endpoints(engine_args("portable", ["--job_endpoint=nowhere"]))


def test_dataflow_reads_and_writes_buckets_only() -> None:
    check_endpoints(engine_args("dataflow", DATAFLOW), "gs://b/raw", "gs://b/w")
    with pytest.raises(UsageError, match="can't see /data"):
        check_endpoints(engine_args("dataflow", DATAFLOW), "gs://b/raw", "/data")


def test_a_worker_that_sees_another_storage_says_so(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    storage = open_storage(str(tmp_path / "w"))
    with shared_places(storage, "d/.tmp/1", str(tmp_path / "raw")) as places:
        places.check()
        for other, says in (
            (dataclasses.replace(places, root=str(tmp_path / "elsewhere")), "does not see what the command wrote"),
            (dataclasses.replace(places, token="another"), "does not see what the command wrote"),
            (dataclasses.replace(places, folders=(str(tmp_path / "no"),)), "has no .*/no"),
            (dataclasses.replace(places, version="0"), "the command 0"),
        ):
            with pytest.raises(UsageError, match=says):
                other.check()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "error, becomes",
    [
        (RuntimeError("Pipeline job failed in state FAILED: worker external disconnected"), TemporaryError),
        (ConnectionRefusedError("no"), TemporaryError),
        (RuntimeError("failed: Traceback (most recent call last): worker died: ValueError: a bug"), RuntimeError),
        (KeyError("a bug"), KeyError),
        (UsageError("ours"), UsageError),
    ],
)
def test_the_loss_of_a_worker_is_75_and_a_bug_stays_one(error: Exception, becomes: type[Exception]) -> None:
    with pytest.raises(becomes) as caught:
        with engine_errors():
            raise error
    assert type(caught.value) is becomes
    assert logging.root.isEnabledFor(logging.ERROR)
