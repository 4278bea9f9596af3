"""Finding and ending processes: sessions, marks, orphans, and what ignores TERM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.core import processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# A leader that leaves: a child in its session but in another process group, one in a session of its own, both deaf.
FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
same = subprocess.Popen([sys.executable, "-c", deaf], process_group=0) if sys.version_info >= (3, 11) else (
    subprocess.Popen([sys.executable, "-c", deaf], preexec_fn=lambda: os.setpgid(0, 0)))
own = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
print(same.pid, own.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test starts; none outlives it."""
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.wait()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    return processes.read_process(pid) is None


def test_a_process_is_told_from_a_later_one_of_its_number(started: list[subprocess.Popen[str]]) -> None:
    started.append(subprocess.Popen(SLEEP, text=True, start_new_session=True))
    pid = started[0].pid
    seen = processes.read_process(pid)
    assert seen is not None
    assert (seen.parent, seen.session) == (os.getpid(), pid)
    assert processes.is_alive(pid, seen.started)
    assert not processes.is_alive(pid, seen.started - 1)
    started[0].kill()
    wait_for(lambda: is_gone(pid))  # a zombie is no live process
    assert not processes.is_alive(pid, seen.started)
    assert processes.in_sessions({pid: seen.started}) == set()


def test_a_name_with_spaces_and_parentheses_is_no_riddle(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    program = tmp_path / "a) S 1 1 (b"
    program.symlink_to("/bin/sleep")
    started.append(subprocess.Popen([str(program), "600"], text=True))
    wait_for(lambda: os.readlink(f"/proc/{started[0].pid}/exe") != os.path.realpath(sys.executable))
    seen = processes.read_process(started[0].pid)
    assert seen is not None and seen.parent == os.getpid()


@pytest.mark.parametrize("leader_lives", [True, False])
def test_a_session_is_found_and_ended_with_or_without_its_leader(
    started: list[subprocess.Popen[str]], leader_lives: bool
) -> None:
    mark = f"/test/{os.getpid()}/{leader_lives}"
    leader = subprocess.Popen(
        [sys.executable, "-c", FAMILY],
        text=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, processes.MARK: mark},
    )
    started.append(leader)
    assert leader.stdout is not None
    lines = [leader.stdout.readline() for _ in range(3)]  # both children are deaf from their "1" on
    pids = next(line for line in lines if line.strip() != "1").split()
    same, own = (int(pid) for pid in pids)
    seen = processes.read_process(leader.pid)
    assert seen is not None
    session = {leader.pid: seen.started}
    if not leader_lives:
        leader.kill()
        leader.wait()
    assert processes.in_sessions(session) == ({leader.pid, same} if leader_lives else {same})
    assert processes.in_sessions({leader.pid: seen.started + 10_000}) == set()  # another leader's session
    assert processes.marked(mark) == {same, own} | ({leader.pid} if leader_lives else set())
    assert processes.marked(mark + "x") == set()

    left = processes.end(
        lambda: processes.in_sessions(session) | processes.marked(mark), grace=0.3, reap=leader.poll
    )
    assert left == set()
    assert is_gone(same) and is_gone(own) and is_gone(leader.pid)


def test_term_comes_first(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    note = tmp_path / "note"
    polite = f"""
import signal, sys, time, pathlib
def end(*_):
    pathlib.Path({str(note)!r}).write_text("tidied up")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", polite], text=True, stdout=subprocess.PIPE, start_new_session=True
    )
    started.append(process)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    seen = processes.read_process(process.pid)
    assert seen is not None
    session = {process.pid: seen.started}
    assert processes.end(lambda: processes.in_sessions(session), 60, process.poll) == set()
    assert note.read_text() == "tidied up"


def test_the_caller_and_its_ancestors_are_spared() -> None:
    code = (
        "import sys; sys.path.insert(0, '.'); from components.core import processes as p; import os;"
        " found = p.marked('/me'); print(os.getpid() in found, os.getppid() in found)"
    )
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "$CODE"; true'],
        env={**os.environ, processes.MARK: "/me", "CODE": code},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_ports_are_told_to_the_process_that_listens() -> None:
    with socket.socket() as listener, socket.socket() as other:
        listener.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        listener.listen()
        found = processes.listening({os.getpid()})
        assert listener.getsockname()[1] in found
        assert other.getsockname()[1] not in found
        assert processes.listening({2**22 - 1}) == set()


def test_signals_to_the_dead_are_no_error() -> None:
    processes._signal_all({2**22 - 1}, signal.SIGTERM)
