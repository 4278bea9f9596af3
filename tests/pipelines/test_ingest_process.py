"""The ingest command as a process: exit codes, messages, kills, Ctrl-C, two at once, Beam's own workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import ingest_help as help
from tests.support import trees
from tests.support.cli_help import invoke
from tests.support.ingest_help import ingest

KILL_IN_SHARD = """
import os, signal
from components.adapters.raw_files import FolderSource
read = FolderSource.read_many
def read_many(self, paths, sizes):
    for number, data in enumerate(read(self, paths, sizes)):
        if number == 5:
            os.kill({victim}, signal.SIGKILL)
        yield data
FolderSource.read_many = read_many
"""
KILL_BEFORE_MANIFEST = """
import os, signal
from components.storage.local import LocalStorage
write = LocalStorage.write_atomic
def write_atomic(self, path, data, **kw):
    if path.endswith("manifest.json"):
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    write(self, path, data, **kw)
LocalStorage.write_atomic = write_atomic
"""
SLOW = """
import time
from components.adapters.raw_files import FolderSource
read = FolderSource.read_many
def read_many(self, paths, sizes):
    for data in read(self, paths, sizes):
        time.sleep(0.5)
        yield data
FolderSource.read_many = read_many
"""
LOSE_A_SOURCE = """
import glob, os, sys
from pipelines import ingest_job
check = ingest_job.check_beam_args
def check_beam_args(args):
    check(args)
    for name in glob.glob(os.environ["GONE"]):
        os.unlink(name)
ingest_job.check_beam_args = check_beam_args
"""
SHORT_WAIT = """
import functools
from components.storage.local import LocalStorage
LocalStorage.lock = functools.partialmethod(LocalStorage.lock, wait_seconds=0.5)
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    trees.idc_tree(tmp_path / "raw", 12, 3)
    return tmp_path / "raw"


def arguments(raw: Path, workspace: Path, *more: object) -> tuple[object, ...]:
    return ("idc", "--input", raw, "--workspace", workspace, *more)


def error_text(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The message of a run that must fail with this exit code; no traceback, no empty hands."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "bug" not in done.stderr, done.stderr
    assert done.stdout == "" and done.stderr.startswith(("error: ", "Usage", "Error", "warning: "))
    return done.stderr


@pytest.mark.integration
class TestUserErrors:
    @pytest.mark.parametrize(
        "more, says",
        [
            (("--max-per-clas", "3"), "Did you mean --max-per-class"),
            (("--task", "subtipe"), "subtipe"),
            (("--seed", "many"), "many"),
            (("--size", "40x40"), "Choose one of 50x50, 25x25"),
            (("--ratios", "70/30"), "70/10/20"),
            (("--on-duplicate", "drop"), "keep-train"),
            (("--workers", "-1"), "--workers"),
            (("--ledger", "nowhere.json"), "nowhere.json"),
            (("--groups-csv", "nowhere.csv"), "nowhere.csv"),
            (("--exclude-groups", "nowhere.txt"), "nowhere.txt"),
            (("--pseudonymise", "nowhere.key"), "nowhere.key"),
            (("--dataset", "pcam"), "idc and pcam"),
        ],
    )
    def test_usage_is_64_and_says_what_to_do(
        self, raw: Path, tmp_path: Path, more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = invoke("ingest", *arguments(raw, tmp_path / "w", *more))
        said = capsys.readouterr()
        assert says in error_text(subprocess.CompletedProcess([], code, said.out, said.err), 64)

    def test_unknown_names(self, raw: Path, tmp_path: Path) -> None:
        assert "idc, breakhis, pcam" in error_text(help.run("icd", "--input", raw), 64)
        assert "does not exist" in error_text(
            help.run("idc", "--input", tmp_path / "no", "--workspace", tmp_path), 64
        )
        assert "--input" in error_text(help.run("idc"), 64)
        assert "named" in error_text(help.run("--input", raw), 64)

    def test_the_wrong_data_set_is_recognised(self, raw: Path, tmp_path: Path) -> None:
        done = help.run("breakhis", "--input", raw, "--workspace", tmp_path / "w")
        assert "looks like idc" in error_text(done, 64)

    def test_data_is_65(self, raw: Path, tmp_path: Path) -> None:
        (raw / trees.idc_path("9000", 0, 951, 951)).write_bytes(b"")
        text = error_text(help.run(*arguments(raw, tmp_path / "w", "--json")), 65)
        assert "empty_file" in text and "--max-faults" in text

    def test_a_flag_that_nobody_knows(self, raw: Path, tmp_path: Path) -> None:
        assert "--jobb_endpoint" in error_text(help.run(*arguments(raw, tmp_path / "w", "--jobb_endpoint=x")), 64)


@pytest.mark.integration
class TestOutput:
    def test_json_is_all_of_stdout_and_the_summary_is_for_people(self, raw: Path, tmp_path: Path) -> None:
        (raw / trees.idc_path("9000", 0, 951, 951)).write_bytes(b"")
        result = tmp_path / "result.json"
        args = arguments(raw, tmp_path / "w", "--max-faults", "0.1", "--runner=DirectRunner")
        done = help.run(*args, "--json", HISTOLINE_RESULT_JSON=str(result))
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["state"] == "committed" and document["is_latest"]
        assert (document["found"], document["written"]) == (73, 72)
        assert document["rejects"] == {"empty_file": {"kind": "fault", "count": 1}}
        assert list(document["splits"]) == list(help.SPLITS)
        assert Path(document["dataset_dir"], "manifest.json").is_file()
        small = json.loads(result.read_text())
        assert small["dataset_dir"] == document["dataset_dir"] and small["plan_id"] == document["plan_id"]
        again = help.run(*args)
        assert again.returncode == 0, again.stderr
        for text in (
            "73 images found, 72 written, 1 rejected",
            "fault: empty_file 1",
            "Nothing to do",
            "patients",
            "warning: This is less than the whole download: 73 of 277,524 images, 277,451 are missing.",
        ):
            assert text in again.stdout
        assert not (tmp_path / "w" / "datasets/idc/binary/.lock").exists()
        same = ingest(raw, tmp_path / "w2", max_faults=0.1)
        assert help.everything(Path(document["dataset_dir"])) == help.everything(same.folder)

    def test_flags_are_repeated_as_warnings(self, tmp_path: Path) -> None:
        trees.pcam_tree(tmp_path / "raw", 30)
        ingest(tmp_path / "raw", tmp_path / "w", "pcam", group_by="image")
        args = ("pcam", "--input", tmp_path / "raw", "--workspace", tmp_path / "w", "--group-by", "image")
        assert (
            "WARNING: no patient is known: every image is its own group; never promoted"
            in help.run(*args).stdout
        )


@pytest.mark.integration
class TestKills:
    @pytest.mark.parametrize(
        "code",
        [KILL_IN_SHARD.format(victim="os.getppid()"), KILL_BEFORE_MANIFEST],
        ids=["mid-shard", "before the manifest"],
    )
    def test_killed_run_is_completed_by_the_next_with_the_same_bytes(
        self, raw: Path, tmp_path: Path, code: str
    ) -> None:
        done = help.run(*arguments(raw, tmp_path / "w", "--workers", 2), code=code)
        assert done.returncode == -signal.SIGKILL
        (folder,) = help.dataset_dirs(tmp_path / "w")
        assert not (folder / "manifest.json").exists()
        assert (folder / ".tmp").is_dir() == (code != KILL_BEFORE_MANIFEST), "swept just before the commit"
        result = ingest(raw, tmp_path / "w")
        assert help.everything(result.folder) == help.everything(ingest(raw, tmp_path / "w2").folder)
        assert not list((tmp_path / "w").rglob(".tmp/*"))

    def test_killed_helper_is_75_and_the_next_run_goes_on(self, raw: Path, tmp_path: Path) -> None:
        code = KILL_IN_SHARD.format(victim="os.getpid()")
        text = error_text(help.run(*arguments(raw, tmp_path / "w", "--workers", 2), code=code), 75)
        assert "helper process was killed" in text and "--workers" in text
        assert ingest(raw, tmp_path / "w").manifest.written == 72

    def test_no_helper_outlives_a_killed_run(self, raw: Path, tmp_path: Path) -> None:
        with started(raw, tmp_path / "w") as process:
            helpers = psutil.Process(process.pid).children(recursive=True)
            assert helpers
            process.kill()
            process.wait()
            gone, alive = psutil.wait_procs(helpers, timeout=10)
            assert not alive


class started:  # used like a function: a context manager
    """A slow ingest that has begun to write shards."""

    def __init__(self, raw: Path, workspace: Path) -> None:
        self.process = help.start(*arguments(raw, workspace, "--workers", 2), code=SLOW)
        self.workspace = workspace

    def __enter__(self) -> subprocess.Popen[str]:
        for _ in range(1200):
            if list(self.workspace.rglob(".tmp/*/shard")):
                return self.process
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError("no shard was begun")

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.mark.integration
class TestInterruption:
    @pytest.mark.parametrize("to", ["process", "group"])
    def test_ctrl_c_is_130_in_one_line_and_leaves_nobody_behind(
        self, raw: Path, tmp_path: Path, to: str
    ) -> None:
        with started(raw, tmp_path / "w") as process:
            helpers = psutil.Process(process.pid).children(recursive=True)
            (os.killpg if to == "group" else os.kill)(process.pid, signal.SIGINT)
            out, error = process.communicate(timeout=30)
            assert process.returncode == 130, error
            assert out == "" and error.strip().startswith("error: Interrupted.")
            assert len(error.strip().splitlines()) == 1
            gone, alive = psutil.wait_procs(helpers, timeout=10)
            assert not alive
        assert not (tmp_path / "w" / "datasets/idc/binary/.lock").exists()
        assert ingest(raw, tmp_path / "w").manifest.written == 72

    def test_sigterm_leaves_nobody_behind(self, raw: Path, tmp_path: Path) -> None:
        with started(raw, tmp_path / "w") as process:
            helpers = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.communicate(timeout=30)
            assert process.returncode != 0
            gone, alive = psutil.wait_procs(helpers, timeout=10)
            assert not alive


@pytest.mark.integration
class TestTwoAtOnce:
    def test_the_second_waits_and_finds_the_work_done(self, raw: Path, tmp_path: Path) -> None:
        both = [help.start(*arguments(raw, tmp_path / "w", "--json")) for _ in range(2)]
        ends = [process.communicate(timeout=200) for process in both]
        assert [process.returncode for process in both] == [0, 0], ends
        assert sorted(json.loads(out)["state"] for out, _ in ends) == ["committed", "unchanged"]
        assert len(help.dataset_dirs(tmp_path / "w")) == 1

    def test_the_second_gives_up_with_75_and_names_the_first(self, raw: Path, tmp_path: Path) -> None:
        with started(raw, tmp_path / "w") as process:
            text = error_text(help.run(*arguments(raw, tmp_path / "w"), code=SHORT_WAIT), 75)
            assert (
                f"locked by histoline ingest idc binary (process {process.pid}" in text and "since 20" in text
            )


@pytest.mark.integration
def test_failed_run_leaves_no_raw_path_under_pseudonymise(raw: Path, tmp_path: Path) -> None:
    (raw / trees.idc_path("9000", 0, 951, 951)).write_bytes(b"")
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 2)
    key.chmod(0o600)
    assert "9000" not in error_text(help.run(*arguments(raw, tmp_path / "w", "--pseudonymise", key)), 65)
    assert not [p for p in (tmp_path / "w").rglob("*") if p.is_file() and b"_idx5_" in p.read_bytes()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.integration
class TestWorkersThatRaise:
    """What goes wrong inside a Beam worker reaches the user as one paragraph."""

    def test_full_disk(self, raw: Path, small_disk: Path) -> None:
        assert "disk is full" in error_text(help.run(*arguments(raw, small_disk)), 75)

    @pytest.mark.parametrize("mode", ["in_memory", "multi_threading", "multi_processing"])
    def test_vanished_source(self, raw: Path, tmp_path: Path, mode: str) -> None:
        flags = (f"--direct_running_mode={mode}", "--direct_num_workers=2")
        gone = str(raw / "9003" / "*" / "*_x1_*.png")
        done = help.run(*arguments(raw, tmp_path / "w", *flags), code=LOSE_A_SOURCE, GONE=gone)
        assert done.returncode == 75, done.stderr
        # Beam's own workers print tracebacks themselves, and nobody can keep them from it; the last word is ours.
        text = error_text(done, 75) if mode == "in_memory" else done.stderr.rstrip().splitlines()[-1]
        assert text.startswith("error: ") and len(text.strip().splitlines()) == 1
        assert "has changed while it was being ingested" in text and "9003" in text
