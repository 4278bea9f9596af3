"""The supervisor: starts, restarts with growing patience, replaces what is deaf, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import processes
from pipelines.local_airflow.supervisor import LOG_BYTES, Limits, Service, Supervisor, backoff, environment_of, rotate

QUICK = Limits(poll=0.02, probe_every=0.05, failures=3, backoff_first=0.05, backoff_most=0.2, settled=60, grace=0.5)
SLEEPER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")


class Watched:
    """A supervisor in a thread, and the states that it saved."""

    def __init__(
        self,
        folder: Path,
        argv: tuple[str, ...],
        probe: Callable[[Any], Mapping[str, bool | None]] | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.states: list[dict[str, dict[str, Any]]] = []
        self.supervisor = Supervisor(
            services=[Service("one", argv, folder / "logs" / "one.log", **(own or {}))],
            environment={"PATH": os.environ["PATH"], "ONLY": "this"},
            folder=folder,
            probe=probe or (lambda started: {}),
            save=self.states.append,
            limits=QUICK,
        )
        self.thread = threading.Thread(target=self.supervisor.run)

    def __enter__(self) -> Watched:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        self.thread.join()

    @property
    def last(self) -> dict[str, Any]:
        return self.states[-1]["one"] if self.states else {"pid": None, "restarts": 0}

    def wait_for(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, self.states[-3:]
            time.sleep(0.01)


@given(st.integers(1, 10_000))
def test_patience_grows_up_to_its_limit(deaths: int) -> None:
    limits = Limits()
    wait = backoff(deaths, limits)
    assert limits.backoff_first <= wait <= limits.backoff_most
    assert wait <= backoff(deaths + 1, limits)


def test_a_service_may_have_a_folder_and_variables_of_its_own(tmp_path: Path) -> None:
    code = "import os, time; print(os.getcwd(), os.environ['ONLY'], os.environ['MORE'], flush=True); time.sleep(600)"
    own, log = tmp_path / "a" / "b", tmp_path / "logs" / "one.log"
    own.parent.write_text("")  # where the folder can't be made, it is tried again
    variables = {"ONLY": "that", "MORE": "too"}
    with Watched(tmp_path, (sys.executable, "-c", code), own={"folder": own, "variables": variables}) as watched:
        watched.wait_for(lambda: watched.last["restarts"] >= 3)
        assert "could not be started" in watched.last["last_event"]
        assert watched.last["last_event"].endswith("again 0.2 s later"), "patience grows"
        own.parent.unlink()
        watched.wait_for(lambda: f"{own} that too" in log.read_text())


def test_a_service_runs_in_a_session_of_its_own_with_only_the_given_environment(tmp_path: Path) -> None:
    code = "import os, time; print(sorted(os.environ.items()), flush=True); time.sleep(600)"
    with Watched(tmp_path, (sys.executable, "-c", code)) as watched:
        log = tmp_path / "logs" / "one.log"
        watched.wait_for(lambda: log.exists() and "ONLY" in log.read_text())
        assert "HOME" not in log.read_text()
        seen = processes.read_process(watched.last["pid"])
        assert seen is not None and seen.session == seen.pid
    assert watched.last["pid"] is None
    assert processes.read_process(seen.pid) is None


def test_what_dies_is_started_again_and_its_children_do_not_live_on(tmp_path: Path) -> None:
    # Airflow's scheduler leaves its workers behind when it is killed.
    code = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    log = tmp_path / "logs" / "one.log"

    def children() -> list[int]:
        return [int(line) for line in log.read_text().splitlines() if line.isdigit()] if log.exists() else []

    with Watched(tmp_path, (sys.executable, "-c", code)) as watched:
        watched.wait_for(lambda: len(children()) == 1)
        first = watched.last["pid"]
        os.kill(first, signal.SIGKILL)
        watched.wait_for(lambda: len(children()) == 2)
        assert watched.last["pid"] not in (None, first)
        assert watched.last["restarts"] == 1
        assert "signal 9" in watched.last["last_event"]
        assert processes.read_process(children()[0]) is None
    assert processes.read_process(children()[1]) is None


def test_what_dies_at_once_is_tried_with_growing_patience(tmp_path: Path) -> None:
    with Watched(tmp_path, (sys.executable, "-c", "raise SystemExit(3)")) as watched:
        watched.wait_for(lambda: watched.last["restarts"] >= 4)
    messages = [state["one"]["last_event"] for state in watched.states if state["one"]["last_event"]]
    assert any("exit code 3; started again 0.05 s later" in text for text in messages)
    assert any("started again 0.2 s later" in text for text in messages)


def test_a_missing_program_is_told_and_tried_again(tmp_path: Path) -> None:
    with Watched(tmp_path, (str(tmp_path / "nosuch"),)) as watched:
        watched.wait_for(lambda: watched.last["restarts"] >= 2)
    assert "could not be started" in watched.last["last_event"]
    assert "could not be started" in (tmp_path / "logs" / "one.log").read_text()


def test_what_lives_but_is_ill_is_replaced_after_a_few_bad_answers(tmp_path: Path) -> None:
    with Watched(tmp_path, SLEEPER, lambda started: dict.fromkeys(started, False)) as watched:
        watched.wait_for(lambda: watched.last["restarts"] >= 1)
    assert "alive but not well 3 times in a row" in next(
        state["one"]["last_event"] for state in watched.states if state["one"]["last_event"]
    )


@pytest.mark.parametrize("answer", [True, None])
def test_what_is_well_or_unknown_is_left_alone(tmp_path: Path, answer: bool | None) -> None:
    asked: list[Mapping[str, float]] = []

    def probe(started: Mapping[str, float]) -> Mapping[str, bool | None]:
        asked.append(started)
        return {"one": answer}

    with Watched(tmp_path, SLEEPER, probe) as watched:
        watched.wait_for(lambda: len(asked) > 6)
        assert watched.last["restarts"] == 0
        assert watched.last["healthy"] is answer
    assert abs(asked[0]["one"] - time.time()) < 600


def test_deaf_services_are_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    with Watched(tmp_path, (sys.executable, "-c", code)) as watched:
        log = tmp_path / "logs" / "one.log"
        watched.wait_for(lambda: log.exists() and "deaf\n" in log.read_text().splitlines(keepends=True))
        pid = watched.last["pid"]
    assert processes.read_process(pid) is None


def test_a_long_log_is_put_aside_at_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.local_airflow.supervisor.LOG_BYTES", 10)
    log = tmp_path / "logs" / "one.log"
    log.parent.mkdir()
    log.write_text("much that was said before")
    with Watched(tmp_path, SLEEPER) as watched:
        watched.wait_for(lambda: "up" in log.read_text())
    assert (tmp_path / "logs" / "one.log.1").read_text() == "much that was said before"


def test_an_environment_is_handed_on_by_name() -> None:
    environ = {"HOME": "/h", "HISTOLINE_X": "1", "AIRFLOW__API__HOST": "0.0.0.0", "XHISTOLINE_": "2"}
    assert environment_of(environ, ["HOME"], ["HISTOLINE_"]) == {"HOME": "/h", "HISTOLINE_X": "1"}


def test_a_long_log_moves_away_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    rotate(log)  # not there yet
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * LOG_BYTES)
        rotate(log)
        assert not (tmp_path / "one.log.1").exists()
        writer.write(b"last\n")
        rotate(log)
        writer.write(b"first\n")
    assert log.read_bytes() == b"first\n"
    assert (tmp_path / "one.log.1").read_bytes().endswith(b"xlast\n")
