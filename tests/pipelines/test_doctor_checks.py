"""The doctor must find what is wrong on machines that this one is not."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import doctor_checks

LOCK = """\
absl-py==1.4.0 \\
    --hash=sha256:00 \\
    --hash=sha256:11
    # via keras==9
Google_Crc32c==1.7.1 \\
    --hash=sha256:22
protobuf[extra]==3.20.3 ; python_version < "3.11" \\
    --hash=sha256:33
"""
PINS = {"absl-py": "1.4.0", "google-crc32c": "1.7.1", "protobuf": "3.20.3"}


def completed(returncode: int, stdout: str = "", stderr: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], returncode, stdout, stderr)


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 13), "ok"), ((3, 9, 1), "fail"), ((3, 11, 0), "fail"), ((2, 10, 0), "fail")],
)
def test_python(version: tuple[int, ...], status: str) -> None:
    check = doctor_checks.check_python(version, "/some/python")
    assert check.status == status
    assert bool(check.fix) == (status != "ok")


def test_lock_is_read_without_its_hashes_and_comments() -> None:
    assert doctor_checks.locked_versions(LOCK) == PINS


@pytest.mark.parametrize(
    ("installed", "status", "told"),
    [
        (PINS | {"unrelated": "1"}, "ok", "3 packages"),
        (PINS | {"protobuf": "4.0"}, "warn", "protobuf 4.0 (lock: 3.20.3)"),
        ({"absl-py": "1.4.0", "protobuf": "4.0"}, "fail", "google-crc32c"),
        ({}, "fail", "3 of 3"),
    ],
)
def test_packages(installed: dict[str, str], status: str, told: str) -> None:
    check = doctor_checks.check_packages(PINS, installed)
    assert check.status == status
    assert told in check.finding
    assert bool(check.fix) == (status != "ok")


def test_a_long_list_of_missing_packages_is_cut() -> None:
    locked = {f"package-{number}": "1" for number in range(9)}
    finding = doctor_checks.check_packages(locked, {}).finding
    assert "and 4 more" in finding
    assert "package-8" not in finding


def test_installed_versions_knows_this_environment() -> None:
    assert doctor_checks.installed_versions()["pytest"] == pytest.__version__


@pytest.mark.parametrize(("cores", "status"), [(1, "warn"), (2, "ok")])
def test_cores(cores: int, status: str) -> None:
    assert doctor_checks.check_cores(cores).status == status


@pytest.mark.parametrize(("gib", "status"), [(2, "warn"), (24, "ok")])
def test_memory(gib: int, status: str) -> None:
    assert doctor_checks.check_memory(gib * doctor_checks.GIB).status == status


def test_memory_limit_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("max\n")
    (tmp_path / "two").write_text(f"{2 * doctor_checks.GIB}\n")
    (tmp_path / "huge").write_text("9223372036854771712\n")
    eight = 8 * doctor_checks.GIB
    assert doctor_checks.memory_limit(eight, (tmp_path / "none", tmp_path / "absent", tmp_path / "huge")) == eight
    assert doctor_checks.memory_limit(eight, (tmp_path / "none", tmp_path / "two")) == 2 * doctor_checks.GIB


@pytest.mark.parametrize(
    ("soft", "hard", "status", "fix"),
    [
        (256, 4096, "warn", "ulimit"),
        (256, -1, "warn", "ulimit"),
        (256, 512, "warn", "512"),
        (1024, 1024, "ok", ""),
        (-1, -1, "ok", ""),
    ],
)
def test_descriptors(soft: int, hard: int, status: str, fix: str) -> None:
    check = doctor_checks.check_descriptors(soft, hard)
    assert check.status == status
    assert fix in check.fix


@pytest.mark.parametrize(("gib", "status"), [(0.2, "fail"), (5, "warn"), (50, "ok")])
def test_disk(gib: float, status: str) -> None:
    check = doctor_checks.check_disk(int(gib * doctor_checks.GIB), Path("/data"))
    assert check.status == status
    assert "/data" in check.finding


def test_writable_folder_is_left_as_it_was(tmp_path: Path) -> None:
    assert doctor_checks.check_write(tmp_path).status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By patching, because permissions do not stop root.
    def refuse(*args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(doctor_checks.tempfile, "TemporaryDirectory", refuse)
    check = doctor_checks.check_write(tmp_path)
    assert check.status == "fail"
    assert "Permission denied" in check.finding
    assert check.fix


def test_a_file_system_without_locks_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    check = doctor_checks.check_write(tmp_path)
    assert check.status == "fail"
    assert "No locks available" in check.finding
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_to_be_made_is_judged_by_its_parent_and_not_made(tmp_path: Path) -> None:
    workspace = tmp_path / "not" / "yet"
    checks = {check.name: check for check in doctor_checks.run_checks(workspace)}
    assert checks["write access"].status == "ok"
    assert str(tmp_path) in checks["disk"].finding
    assert not workspace.parent.exists()


def test_a_workspace_under_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checks = {check.name: check for check in doctor_checks.run_checks(tmp_path / "file" / "workspace")}
    assert checks["write access"].status == "fail"
    assert "disk" not in checks


GPU = "NVIDIA A100, 40960 MiB, 550.54"


@pytest.mark.parametrize(
    ("devices", "installed", "system", "status"),
    [
        (None, {}, False, "ok"),
        ("", {}, False, "ok"),
        (GPU, {"tensorflow": "2.16.2"}, False, "warn"),
        (GPU, {"tensorflow": "2.16.2", "nvidia-cudnn-cu12": "8.9.7.29"}, False, "ok"),
        (GPU, {"tensorflow": "2.16.2"}, True, "ok"),
    ],
)
def test_gpu(devices: str | None, installed: dict[str, str], system: bool, status: str) -> None:
    check = doctor_checks.check_gpu(devices, installed, system)
    assert check.status == status
    if status == "warn":
        assert "tensorflow[and-cuda]==2.16.2" in check.fix


def test_tensorflow() -> None:
    assert doctor_checks.check_tensorflow(completed(0, "noise\n1\n"), 1).status == "ok"
    assert doctor_checks.check_tensorflow(completed(0, "0\n"), 1).status == "warn"
    broken = doctor_checks.check_tensorflow(completed(1, stderr="Traceback\nImportError: libfoo\n"), 0)
    assert broken.status == "fail"
    assert "ImportError: libfoo" in broken.finding
    assert doctor_checks.check_tensorflow(completed(-9), 0).status == "fail"


def test_java_is_told_and_never_a_fault() -> None:
    assert doctor_checks.check_java(None).status == "ok"
    assert "17" in doctor_checks.check_java('openjdk version "17.0.1"').finding


def test_output_of_commands_that_are_absent_fail_or_speak_on_stderr(tmp_path: Path) -> None:
    assert doctor_checks._output(["no-such-command-here"]) is None
    assert doctor_checks._output([sys.executable, "-c", "raise SystemExit(3)"]) is None
    script = "import sys; print('one', file=sys.stderr); print('two', file=sys.stderr)"
    assert doctor_checks._output([sys.executable, "-c", script], first_line=True) == "one"


def test_every_fault_comes_with_a_fix_and_no_lock_is_no_fault(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    names = [check.name for check in doctor_checks.run_checks(None, lock=lock)]
    assert "packages" not in names
    assert "disk" not in names
    lock.write_text("surely-not-installed==1.0\n")
    checks = doctor_checks.run_checks(None, lock=lock)
    assert [check.name for check in checks if check.status == "fail"] == ["packages"]
    assert all(check.fix for check in checks if check.status != "ok")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from pipelines import doctor_checks; doctor_checks.run_checks(None);"
        "heavy = {'tensorflow', 'apache_beam', 'tfx', 'numpy', 'pyarrow'}; print(heavy & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=doctor_checks.ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
