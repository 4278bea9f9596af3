"""Runs one command and owns every process that it starts: `python -I -S shim.py PARENT_PID COMMAND...`.

It stands between Airflow's task process and the pipeline. As a subreaper it inherits what a child leaves behind, also
daemons in sessions of their own, so it can end all of them: when the command has ended, on SIGTERM, and when the
process PARENT_PID dies (even by SIGKILL, which nobody can catch). Linux only; standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence

GRACE_SECONDS = 3.0
LEFTOVER_GRACE_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    """Sets a property of this process; what fails is ignored, it is a second line of defence."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """All living processes below a process, zombies left out.

    Args:
        root: Its id.
    """
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command's name stands in brackets and may hold anything.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state not in (b"Z", b"X"):
            children.setdefault(int(parent), []).append(int(name))
    found, level = [], [root]
    while level:
        level = [pid for parent in level for pid in children.get(parent, [])]
        found += level
    return found


def signal_all(pids: Sequence[int], number: int) -> None:
    """Sends a signal to each process that still lives."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def reap() -> dict[int, int]:
    """Collects ended children.

    Returns:
        Wait status by process id.
    """
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def end_all(grace: float) -> None:
    """Ends every descendant: SIGTERM, then SIGKILL until none is left.

    Args:
        grace: Seconds between the two.
    """
    signal_all(descendants(os.getpid()), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while descendants(os.getpid()) and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)
    # A process that forks in between escapes one round, not all of them.
    while left := descendants(os.getpid()):
        signal_all(left, signal.SIGKILL)
        reap()
        time.sleep(0.02)
    reap()


def main(parent: int, command: list[str]) -> int:
    """Runs the command.

    Args:
        parent: The process whose death ends all.
        command: Program and arguments.

    Returns:
        The command's exit code; 128 + N where signal N ended it.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: asked.append(got))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != parent:  # it died before prctl
        return 128 + signal.SIGTERM
    me = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # also when this shim itself is killed
            if os.getppid() != me:
                os._exit(128 + signal.SIGTERM)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]} can't be started: {error.strerror}.\n".encode())
        os._exit(64)
    while True:
        status = reap().get(child)
        if status is not None:
            end_all(LEFTOVER_GRACE_SECONDS)
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        if asked:
            end_all(GRACE_SECONDS)
            return 128 + signal.SIGTERM
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
