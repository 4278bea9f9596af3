"""Ingest and prediction on a Dask cluster and through the portable job API (Prism): the bytes of this machine."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.doctor_checks import locked_versions
from tests.support import ingest_help as help
from tests.support import predict_help, trees
from tests.support.engines_help import ROOT, Dask, Portable, documented

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several shards of 1 MiB, with a copy across splits, a conflict and a faulty file."""
    root = tmp_path_factory.mktemp("raw")
    trees.idc_tree(root, 16, 20)
    for a, b, label in (("9000", "9001", 0), ("9002", "9003", 0), ("9004", "9005", 1), ("9006", "9007", 0)):
        shutil.copyfile(root / trees.idc_path(a, 0, 1, 101), root / trees.idc_path(b, label, 1, 101))
    (root / trees.idc_path("9008", 0, 5001, 5001)).write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def here(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> help.Result:
    """What this machine makes of it."""
    return help.ingest(raw, tmp_path_factory.mktemp("here"), shard_mb=1)


@pytest.fixture(scope="module")
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory, stack: contextlib.ExitStack) -> Dask:
    cluster = Dask(tmp_path_factory.mktemp("dask"), stack)
    cluster.documented_workers()
    return cluster


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory, stack: contextlib.ExitStack) -> Portable:
    return Portable(tmp_path_factory.mktemp("portable"), stack)


def arguments(raw: Path, workspace: Path, *flags: object) -> tuple[object, ...]:
    return ("idc", "--input", raw, "--workspace", workspace, "--shard-mb", 1, "--json", *flags)


def made(done: subprocess.CompletedProcess[str] | tuple[int, str, str]) -> dict[str, bytes]:
    code, out, err = done if isinstance(done, tuple) else (done.returncode, done.stdout, done.stderr)
    assert code == 0, err
    assert "Traceback" not in err and "No module named" not in err, err
    return help.everything(Path(json.loads(out)["dataset_dir"]))


def test_dask_makes_the_same_data_set(raw: Path, here: help.Result, dask: Dask, tmp_path: Path) -> None:
    done = help.run(*arguments(raw, tmp_path, *dask.flags))
    assert made(done) == help.everything(here.folder)
    assert dask.loaded("tensorflow", "tfx", "imagecodecs", "components") == {"imagecodecs", "components"}


def test_portable_makes_the_same_data_set(raw: Path, here: help.Result, portable: Portable, tmp_path: Path) -> None:
    assert made(help.run(*arguments(raw, tmp_path, *portable.flags))) == help.everything(here.folder)


def shards_begun(workspace: Path, count: int) -> None:
    """Waits until so many shards stand."""
    for _ in range(1200):
        if len(list(workspace.rglob("sidecars/*.parquet"))) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no shard was written")


def test_a_dask_worker_is_killed_and_another_joins_late(raw: Path, here: help.Result, tmp_path: Path) -> None:
    (tmp_path / "dask").mkdir()
    with contextlib.ExitStack() as stack:
        cluster = Dask(tmp_path / "dask", stack)
        first, _ = cluster.worker(slow=True), cluster.worker(slow=True)
        cluster.wait_for(2)
        ingest = help.start(*arguments(raw, tmp_path / "w", *cluster.flags))
        shards_begun(tmp_path / "w", 1)
        first.kill()
        cluster.worker()
        out, error = ingest.communicate(timeout=200)
        assert made((ingest.returncode, out, error)) == help.everything(here.folder)
    assert not list((tmp_path / "w").rglob(".tmp/*"))


def test_a_lost_scheduler_is_75(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "dask").mkdir()
    with contextlib.ExitStack() as stack:
        cluster = Dask(tmp_path / "dask", stack)
        cluster.worker(slow=True)
        cluster.wait_for(1)
        ingest = help.start(*arguments(raw, tmp_path / "w", *cluster.flags))
        shards_begun(tmp_path / "w", 1)
        cluster.scheduler.kill()
        out, error = ingest.communicate(timeout=200)
    assert ingest.returncode == 75, error
    assert out == "" and "the Dask scheduler is gone." in error and len(error.strip().splitlines()) == 1


def test_a_killed_worker_of_the_pool_is_75_and_the_next_run_goes_on(
    raw: Path, here: help.Result, portable: Portable, tmp_path: Path
) -> None:
    (tmp_path / "slow").mkdir()
    with contextlib.ExitStack() as stack:
        slow = Portable(tmp_path / "slow", stack, slow=True)
        ingest = help.start(*arguments(raw, tmp_path / "w", "--workers", 1, *slow.flags))
        shards_begun(tmp_path / "w", 1)
        (worker,) = slow.pool.children()
        worker.kill()
        out, error = ingest.communicate(timeout=200)
    assert ingest.returncode == 75, error
    assert out == "" and "The engine lost a worker" in error and "Traceback" not in error
    (folder,) = help.dataset_dirs(tmp_path / "w")
    standing = {file: file.stat().st_mtime_ns for file in folder.rglob("*.tfrecord")}
    assert 0 < len(standing) and not (folder / "manifest.json").exists()
    again = made(help.run(*arguments(raw, tmp_path / "w", *portable.flags)))
    assert again == help.everything(here.folder)
    assert {file: file.stat().st_mtime_ns for file in standing} == standing, "finished shards are kept"


def test_both_predict_what_this_machine_predicts(
    raw: Path, here: help.Result, dask: Dask, portable: Portable, tmp_path: Path
) -> None:
    model = predict_help.export(tmp_path / "model", here.folder)
    predict_help.run(model, here.folder, tmp_path / "here.parquet")
    expected = pq.read_table(tmp_path / "here.parquet")
    jobs = {"dask": dask.flags, "portable": portable.flags}
    commands = [
        [sys.executable, "-m", "pipelines.predict", "--model", model, "--input", here.folder,
         "--output", tmp_path / f"{name}.parquet", *flags]
        for name, flags in jobs.items()
    ]  # fmt: skip
    running = [
        subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=help.environment(), text=True,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for command in commands
    ]  # fmt: skip
    for name, child in zip(jobs, running, strict=True):
        _, error = child.communicate(timeout=300)
        assert child.returncode == 0, error
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(expected)


CHECKED_BY_DATAFLOW = """
import socket, sys
def no_network(*args, **kwargs):
    raise AssertionError("a connection was tried")
socket.socket.connect = socket.create_connection = no_network
from apache_beam.options.pipeline_options import SetupOptions
from pipelines.beam import engines
from pipelines.beam.numbered_work import new_pipeline
options, pipeline = new_pipeline(engines.engine_args("dataflow", sys.argv[1:]))
assert type(pipeline.runner).__name__ == "DataflowRunner"
setup = options.view_as(SetupOptions)
assert setup.setup_file == str(engines.SETUP_FILE) and setup.save_main_session is False
try:
    new_pipeline(engines.engine_args("dataflow", [*sys.argv[1:], "--project=No Project"]))
except Exception as error:
    assert type(error).__name__ == "UsageError" and "No Project" in str(error), error
else:
    raise AssertionError("Dataflow's own checks were not asked")
"""


def test_a_job_for_dataflow_passes_the_checks_of_its_runner() -> None:
    flags = documented("dataflow", "histoline ingest", PROJECT="some-project", REGION="europe-west4", BUCKET="bucket")
    command = [sys.executable, "-c", CHECKED_BY_DATAFLOW, *flags[flags.index("dataflow") + 1 :], "--dry_run=True"]
    done = subprocess.run(command, cwd=ROOT, env=help.environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_the_staged_archive_installs_on_a_clean_python(tmp_path: Path) -> None:
    """The archive that Beam's own stager makes; packages of the lock are those of this environment."""
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "components", "pipelines", "schemas"):
        subprocess.run(["cp", "-r", ROOT / name, tmp_path / name], check=True)  # a build leaves folders behind
    stage = (
        "import sys; from apache_beam.runners.portability.stager import Stager;"
        "print(Stager._build_setup_package(sys.argv[1], sys.argv[2]))"
    )
    (tmp_path / "staged").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", stage, tmp_path / "setup.py", tmp_path / "staged"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "staged").iterdir()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    python = tmp_path / "clean" / "bin" / "python"
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", archive]
    done = subprocess.run(pip, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = "import components.ingest.shard_writer as w, sys; print(w.__file__, 'tensorflow' in sys.modules)"
    # Behind the clean environment's own packages, and without the .pth file that leads to this checkout.
    done = subprocess.run(
        [python, "-c", f"import sys; sys.path.append({str(site)!r}); {told}"],
        cwd=tmp_path / "staged", env={}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(next((tmp_path / "clean").rglob("ingest/shard_writer.py"))), "False"]


def test_the_image_of_workers_has_the_beam_of_the_lock() -> None:
    dockerfile = (ROOT / "infra" / "images" / "beam-worker.Dockerfile").read_text(encoding="utf-8")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert f"beam_python3.10_sdk:{locked_versions(lock)['apache-beam']}\n" in dockerfile
