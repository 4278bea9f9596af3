"""Steps as real processes that hang, fork, flood, ignore TERM and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from steps import alive, read_pids, wait_until, write_command

from histoline_dags.process import MAX_LINES, StepProcess, allowed_environment, parse_line

Lines = list[tuple[str, str]]


def start(tmp_path: Path, body: str, lines: Lines) -> StepProcess:
    command = write_command(tmp_path, textwrap.dedent(body))
    environ = {"PATH": os.environ["PATH"], "PIDS": str(tmp_path)}
    return StepProcess([str(command), "step"], environ, lambda level, text: lines.append((level, text)))


def run(tmp_path: Path, body: str) -> tuple[int, Lines, dict[str, object], str]:
    lines: Lines = []
    step = start(tmp_path, body, lines)
    code = step.wait()
    found = step.result()
    step.close()
    return code, lines, found, step.last_error


@pytest.mark.parametrize("code", [0, 1, 64, 65, 70, 75])
def test_exit_codes_pass_through(tmp_path: Path, code: int) -> None:
    assert run(tmp_path, f"sys.exit({code})")[0] == code


def test_result_levels_and_last_error(tmp_path: Path) -> None:
    body = """
        line("info", "begins")
        line("warning", "50 % {odd} \\n two lines")
        print("plain on stdout", flush=True)
        line("error", "it broke")
        sys.stderr.write("no end of line"); sys.stderr.flush()
        result(state="failed", reason="why")
        sys.exit(65)
    """
    code, lines, result, error = run(tmp_path, body)
    assert code == 65
    assert lines == [
        ("info", "begins"),
        ("warning", "50 % {odd} \n two lines"),
        ("info", "plain on stdout"),
        ("error", "it broke"),
        ("info", "no end of line"),
    ]
    assert result == {"state": "failed", "reason": "why"}
    assert error == "it broke"


@pytest.mark.parametrize("text", ['{"level": 1', "{}", '{"level":"info"}', "[1]", "{not json}"])
def test_lines_that_only_look_like_json_are_shown(text: str) -> None:
    assert parse_line(text) == ("info", text)


@pytest.mark.parametrize("body", ["[1, 2]", "not json", ""])
def test_broken_results_are_no_results(tmp_path: Path, body: str) -> None:
    code, _, result, _ = run(tmp_path, f'open(os.environ["HISTOLINE_RESULT_JSON"], "w").write({body!r})')
    assert (code, result) == (0, {})


def test_stdin_is_closed_and_no_shell_reads_arguments(tmp_path: Path) -> None:
    lines: Lines = []
    command = write_command(tmp_path, "print(repr(sys.stdin.read()), sys.argv[1:])")
    odd = ["$(touch /tmp/x)", "; ls", "a b", "--x='"]
    step = StepProcess([str(command), *odd], {"PATH": os.environ["PATH"]}, lambda *line: lines.append(line))
    assert step.wait() == 0
    assert lines == [("info", f"'' {odd}")]


def test_environment_is_an_allow_list() -> None:
    given = {
        "PATH": "/bin", "HISTOLINE_WORKSPACE": "/w", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "secret",
        "HISTOLINE_WEBHOOK_URL": "https://secret", "AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "/dags",
    }  # fmt: skip
    assert allowed_environment(given) == {"PATH": "/bin", "HISTOLINE_WORKSPACE": "/w"}


def test_killed_by_a_signal(tmp_path: Path) -> None:
    assert run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")[0] == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    lines: Lines = []
    step = StepProcess([str(tmp_path / "nothing")], {}, lambda *line: lines.append(line))
    assert step.wait() == 64
    assert "can't be started" in lines[0][1]


@pytest.mark.integration
def test_a_flood_of_output_does_not_block(tmp_path: Path) -> None:
    body = """
        block = ("x" * 99 + "\\n") * 10_000
        for _ in range(100):
            sys.stdout.write(block)
        sys.stdout.write("y" * 1_000_000 + "\\n")
        line("error", "the last word")
    """
    code, lines, _, error = run(tmp_path, body)
    assert code == 0
    assert error == "the last word"
    assert lines[-1] == ("error", "the last word")
    assert len(lines) < MAX_LINES + 100
    assert any("more lines were not logged" in text for _, text in lines)


STUBBORN = """
    def mark(name):
        with open(f"{os.environ['PIDS']}/{name}.pid", "w") as file:
            file.write(str(os.getpid()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark("leader")
    if os.fork() == 0:
        mark("child")
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                mark("daemon")
                while True: time.sleep(1)
            os._exit(0)
        while True: time.sleep(1)
    while True: time.sleep(1)
"""


def test_a_tree_that_ignores_term_is_gone_after_stop(tmp_path: Path) -> None:
    lines: Lines = []
    step = start(tmp_path, STUBBORN, lines)
    assert wait_until(lambda: len(read_pids(tmp_path)) == 3)
    threading.Timer(0.1, step.stop).start()
    assert step.wait() >= 128
    assert [alive(pid) for pid in read_pids(tmp_path)] == [False] * 3


def test_helpers_that_outlive_their_command_are_ended(tmp_path: Path) -> None:
    body = (
        STUBBORN.rstrip().rsplit("\n", 1)[0] + '\n    while len(os.listdir(os.environ["PIDS"])) < 4: time.sleep(0.05)'
    )
    code, *_ = run(tmp_path, body)
    pids = read_pids(tmp_path)
    assert code == 0
    assert len(pids) == 3 and not any(alive(pid) for pid in pids)


def test_a_killed_shim_leaves_nothing(tmp_path: Path) -> None:
    lines: Lines = []
    step = start(tmp_path, STUBBORN, lines)
    assert wait_until(lambda: len(read_pids(tmp_path)) == 3)
    os.kill(step._process.pid, signal.SIGKILL)
    assert step.wait() == 128 + signal.SIGKILL
    assert wait_until(lambda: not any(alive(pid) for pid in read_pids(tmp_path)))


def test_the_tree_dies_with_a_killed_parent(tmp_path: Path) -> None:
    command = write_command(tmp_path, textwrap.dedent(STUBBORN))
    parent = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2] / "dags")!r})
from histoline_dags.process import StepProcess
StepProcess([{str(command)!r}], {{"PATH": "/usr/bin:/bin", "PIDS": {str(tmp_path)!r}}}, print).wait()
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        assert wait_until(lambda: len(read_pids(tmp_path)) == 3)
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in read_pids(tmp_path)))
