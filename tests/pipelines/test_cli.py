"""The front door: instant help, typing errors, exit codes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import DataError, TemporaryError, UsageError
from pipelines import console
from pipelines.cli import COMMANDS, cli
from tests.support.cli_help import invoke

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("tensorflow", "apache_beam", "tfx", "pyarrow", "numpy", "cv2", "rich", "keras", "google.cloud.storage")


def histoline(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pipelines.cli", *args], cwd=ROOT, capture_output=True, text=True)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from pipelines import cli\n"
        "try: cli.cli.main(['--help'], standalone_mode=False)\n"
        f"finally: sys.exit([m for m in {HEAVY!r} if m in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_lists_every_command():
    out = histoline("--help").stdout
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_json(name):
    done = histoline(name, "--help")
    assert done.returncode == 0, done.stderr
    group = "Commands:" in done.stdout
    assert group or "--json" in done.stdout


def test_a_typing_error_is_answered_with_the_nearest_command():
    done = histoline("ingst")
    assert done.returncode == 64 and "'ingest'" in done.stderr


@pytest.mark.parametrize("option", ["--on-duplicates=fail", "--wrkers=3"])
def test_a_mistyped_option_is_not_passed_on_to_beam(capsys, tmp_path, option):
    assert invoke("ingest", "idc", "--input", tmp_path, option) == 64
    assert "Did you mean --" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("train", "idc", "--nosuch"), "error: No such option '--nosuch'. Did you mean '--epochs'?"
         " See: histoline train --help"),
        (("models", "promte"), "error: No such command 'promte'. Did you mean 'promote'? See: histoline models --help"),
        (("train",), "error: Missing argument 'DATASET'. See: histoline train --help"),
        (("ingest", "idc", "--inptu", "x"), "error: Missing option '--input'. Is --inptu a typing error?"
         " See: histoline ingest --help"),
    ],
)  # fmt: skip
def test_what_click_finds_is_one_line_like_every_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["histoline", *args])
    assert console.run(lambda: cli.main(standalone_mode=False, prog_name="histoline")) == 64
    assert capsys.readouterr().err == f"{said}\n"


@pytest.mark.parametrize(
    ("typed", "path", "said"),
    [
        (
            ".venv/bin/histoline",
            "/usr/bin:/bin",
            "Run: .venv/bin/histoline train idc, or `.venv/bin/histoline doctor`.",
        ),
        ("{home}/.venv/bin/histoline", "{home}/.venv/bin:/bin", "Run: histoline train idc, or `histoline doctor`."),
        ("{home}/.venv/bin/histoline", "/bin", "Run: .venv/bin/histoline train idc, or `.venv/bin/histoline doctor`."),
        ("../bin dir/histoline", "/bin", "Run: '../bin dir/histoline' train idc, or `'../bin dir/histoline' doctor`."),
        ("pipelines/train.py", "/bin", "Run: histoline train idc, or `histoline doctor`."),
    ],
)
def test_commands_are_said_as_they_can_be_typed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    typed: str,
    path: str,
    said: str,
) -> None:
    program = tmp_path / ".venv" / "bin" / "histoline"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [typed.format(home=tmp_path)])
    monkeypatch.setenv("PATH", path.format(home=tmp_path))
    console.log("Run: histoline train idc, or `histoline doctor`.")
    assert capsys.readouterr().err == f"{said}\n"
    for other in ("/x/histoline train", "histoline is a name", "my-histoline train", "histoline trains"):
        assert console.runnable(other) == other
    monkeypatch.setenv("HISTOLINE_LOG_FORMAT", "json")
    console.log("Run: histoline train")
    assert json.loads(capsys.readouterr().err)["msg"] == "Run: histoline train"


def test_no_data_set_or_two(capsys, tmp_path):
    assert invoke("ingest", "--input", tmp_path) == 64
    assert invoke("ingest", "idc", "--dataset", "pcam", "--input", tmp_path) == 64
    assert invoke("ingest", "ids", "--input", tmp_path, "--workspace", tmp_path / "w") == 64
    assert "idc, breakhis, pcam" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a", "b"), 64),
        (DataError("a"), 65),
        (TemporaryError("a"), 75),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError(), 70),
        (OSError(errno.ENOSPC, "No space left on device"), 75),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 64),
    ],
)
def test_exit_codes(capsys, error, code):
    def fail() -> None:
        raise error

    assert console.run(fail) == code
    text = capsys.readouterr().err
    assert text.startswith("error: ") and ("Traceback" in text) == (code == 70)


def test_json_logs(capsys, monkeypatch):
    monkeypatch.setenv("HISTOLINE_LOG_FORMAT", "json")
    console.log("one\ntwo", "warning")
    assert json.loads(capsys.readouterr().err) == {"level": "warning", "msg": "one\ntwo"}


def test_tables_show_markup_as_text(capsys):
    console.table("t", ["a"], [["[bold]x[/bold]"]])
    assert "[bold]x[/bold]" in capsys.readouterr().out


def test_progress_speaks_in_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_SECONDS", 0.0)
    with console.Progress("patches", 10) as progress:
        progress.advance(5)
    assert "patches: 5 of 10" in capsys.readouterr().err


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """A command line in which `histoline` is this project's; the exit code is that of histoline."""
    whole = f'histoline() {{ "{sys.executable}" -m pipelines.cli "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", whole], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-", "> >(exec true)"])
def test_a_closed_stdout_is_no_bug(tmp_path, streams):
    done = shell(f"histoline datasets list --workspace {tmp_path} {streams}; echo code $? >{tmp_path}/code")
    assert (tmp_path / "code").read_text() == "code 0\n" and "Traceback" not in done.stderr


def test_a_full_disk_behind_stdout_is_temporary():
    done = shell("histoline --help > /dev/full")
    assert done.returncode == 75 and "disk is full" in done.stderr and "Exception ignored" not in done.stderr


def test_a_broken_pipe_elsewhere_is_not_taken_for_success(capsys):
    def fail() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert console.run(fail) == 70
