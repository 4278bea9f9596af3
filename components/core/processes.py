"""Finds and ends the processes of a service, also those whose parents have died (Linux: read from /proc).

A service is started as the leader of a session of its own. What it forks stays in that session even where it changes
its process group (Airflow's tasks do), and the kernel gives no other process a session's number while one member
lives. What opens a session of its own (a pipeline step) is found by a mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MARK = "HISTOLINE_SUPERVISED"
"""Environment variable that every supervised process inherits; its value is the supervisor's folder."""

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Process:
    """One line of the process table.

    Attributes:
        pid: Its number.
        parent: The number of its parent.
        session: The number of its session's leader.
        started: When it started, in clock ticks since boot: tells a reused number apart.
    """

    pid: int
    parent: int
    session: int
    started: int


def read_process(pid: int) -> Process | None:
    """One process; None where it is gone or only waits to be reaped."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name stands in parentheses and may hold any character, also a closing one.
    state, *fields = text[text.rindex(")") + 2 :].split()
    if state in ("Z", "X"):
        return None
    return Process(pid, parent=int(fields[0]), session=int(fields[2]), started=int(fields[18]))


def processes() -> list[Process]:
    """All live processes of this machine (or container)."""
    found = (read_process(int(name)) for name in os.listdir(PROC) if name.isdigit())
    return [process for process in found if process is not None]


def is_alive(pid: int, started: int) -> bool:
    """Says whether the very process that was noted down still lives."""
    process = read_process(pid)
    return process is not None and process.started == started


def boot_id() -> str:
    """Names the machine's current boot: process numbers of another boot mean nothing."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def carries_mark(pid: int, value: str) -> bool:
    """Says whether a process inherited `MARK=value`; False where its environment can't be read."""
    try:
        environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={value}".encode() in environment


def in_sessions(sessions: Mapping[int, int]) -> set[int]:
    """Numbers of the live members of sessions.

    Args:
        sessions: Number of each session's leader, and when the leader started (ticks).
    """
    table = {process.pid: process for process in processes()}
    members = set()
    for process in table.values():
        started = sessions.get(process.session)
        if started is None:
            continue
        leader = table.get(process.session)
        # Without its leader a session still can't have been reused by something older than that leader.
        if leader.started == started if leader is not None else process.started >= started:
            members.add(process.pid)
    return members


def marked(value: str) -> set[int]:
    """Numbers of the live processes that inherited `MARK=value`, except this one and its ancestors."""
    table = {process.pid: process for process in processes()}
    spared, pid = set(), os.getpid()
    while pid in table and pid not in spared:
        spared.add(pid)
        pid = table[pid].parent
    return {pid for pid in table if pid not in spared and carries_mark(pid, value)}


def listening(pids: set[int]) -> set[int]:
    """TCP ports that some processes listen on.

    Args:
        pids: Their numbers; what belongs to another user can't be looked into and counts as listening on none.
    """
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(PROC / str(pid) / "fd"):
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(entry.path))
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            # Address, state (0A: listening) and inode are fields 1, 3 and 9 of proc(5)'s /proc/net/tcp.
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _signal_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end(find: Callable[[], set[int]], grace: float, reap: Callable[[], object] = lambda: None) -> set[int]:
    """Ends all processes that `find` names: TERM, and KILL after a grace; looks again for what was forked meanwhile.

    Args:
        find: Names the processes that should not live.
        grace: Seconds between TERM and KILL.
        reap: Called between two looks, where the caller is the parent of some.

    Returns:
        What still lives 5 s after KILL (a process in an uninterruptible read): normally nothing.
    """
    signalled: set[int] = set()
    deadline = time.monotonic() + grace
    while left := find():
        _signal_all(left - signalled, signal.SIGTERM)
        signalled |= left
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
        reap()
    deadline = time.monotonic() + 5
    while left := find():
        _signal_all(left, signal.SIGKILL)
        if time.monotonic() >= deadline:
            return left
        time.sleep(POLL_SECONDS)
        reap()
    return set()
