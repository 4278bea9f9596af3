"""The step operator without Airflow's machinery: exit codes, reasons, skips, cancelling."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from steps import FakeTi, alive, read_pids, wait_until, write_command

from histoline_dags.ids import run_id
from histoline_dags.operator import StepOperator


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes an operator around a command with a body of Python."""

    def make(body: str, **given: Any) -> StepOperator:
        monkeypatch.setenv("HISTOLINE_COMMAND", str(write_command(tmp_path, textwrap.dedent(body))))
        monkeypatch.setenv("HISTOLINE_PIDS", str(tmp_path))
        given.setdefault("arguments", lambda context: ["step", "train", "idc", "--task=binary"])
        return StepOperator(task_id="train", dataset="idc", retries=5, **given)

    return make


def context(**given: Any) -> dict[str, Any]:
    return {"ti": FakeTi(**given)}


def test_result_is_what_the_command_left_and_who_it_is(operator: Any) -> None:
    step = operator('result(state="running", decision=None, task="binary"); line("info", sys.argv[1])')
    result = step.execute(context())
    assert result == {
        "dataset": "idc",
        "task": "binary",
        "run_id": run_id("idc_train", "manual__1"),
        "state": "running",
        "decision": None,
    }


def test_the_run_id_is_the_same_over_tries(operator: Any) -> None:
    step = operator("pass")
    tries = [step.execute(context(try_number=n))["run_id"] for n in (1, 2, 3)]
    assert len(set(tries)) == 1
    assert step.execute(context(run_id="manual__2"))["run_id"] != tries[0]


@pytest.mark.parametrize("code", [64, 65, 70, 1, 2])
def test_no_retry_where_it_is_useless(operator: Any, code: int) -> None:
    step = operator(f'line("info", "x"); line("error", "what is wrong, where"); sys.exit({code})')
    given = context()
    with pytest.raises(AirflowFailException, match="what is wrong, where"):
        step.execute(given)
    result = given["ti"].pushed["return_value"]
    assert result["state"] == "failed" and result["reason"] == "what is wrong, where" and result["task"] == "binary"


def test_the_reason_of_run_json_comes_before_the_log(operator: Any) -> None:
    step = operator('result(state="failed", reason="from run.json"); line("error", "log"); sys.exit(65)')
    given = context()
    with pytest.raises(AirflowFailException, match="from run.json"):
        step.execute(given)


def test_a_result_of_an_earlier_stage_is_no_reason(operator: Any) -> None:
    step = operator('result(state="running", reason="old news"); line("error", "the new one"); sys.exit(65)')
    with pytest.raises(AirflowFailException, match="the new one"):
        step.execute(context())


@pytest.mark.parametrize("attempt", [1, 2, 5])
def test_temporary_trouble_is_tried_again(operator: Any, attempt: int) -> None:
    with pytest.raises(AirflowException, match="lock is held") as caught:
        operator('line("error", "lock is held"); sys.exit(75)').execute(context(try_number=attempt))
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "try_number,max_tries,again",
    [(1, 5, True), (2, 5, False), (3, 7, True), (4, 7, False)],  # 3 of 7: the first try after Clear
)
def test_one_more_try_after_a_signal(operator: Any, try_number: int, max_tries: int, again: bool) -> None:
    step = operator("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(AirflowException, match="signal 9") as caught:
        step.execute(context(try_number=try_number, max_tries=max_tries))
    assert isinstance(caught.value, AirflowFailException) is not again


def test_skipped_before_the_command(operator: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def arguments(_: Any) -> list[str]:
        raise AirflowSkipException("no data set committed yet: run idc_ingest")

    given = context()
    with pytest.raises(AirflowSkipException):
        operator("open(os.environ['HISTOLINE_PIDS'] + '/ran', 'w')", arguments=arguments).execute(given)
    assert given["ti"].pushed["return_value"]["reason"] == "no data set committed yet: run idc_ingest"
    assert not (tmp_path / "ran").exists()
    assert "Skipped: no data set committed yet: run idc_ingest" in capsys.readouterr().out


def test_reasons_name_the_fields_of_the_form(operator: Any) -> None:
    fields = {"accept_drift": {"option": "--accept-drift", "title": "Accept because"}}
    said = "Give --accept-drift REASON."
    for body in (f'line("error", "{said}")', f'result(state="failed", reason="{said}")'):
        given = context()
        with pytest.raises(AirflowFailException, match="Give “Accept because”"):
            operator(f"{body}; sys.exit(65)", fields=fields).execute(given)
        assert given["ti"].pushed["return_value"]["reason"] == "Give “Accept because”."


def test_skipped_after_the_command_keeps_the_result(operator: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def after(_: Any, told: Any) -> None:
        raise AirflowSkipException(told["reason"])

    given = context()
    with pytest.raises(AirflowSkipException, match="same data"):
        operator('result(state="done", decision="unchanged", reason="same data")', after=after).execute(given)
    assert given["ti"].pushed["return_value"]["decision"] == "unchanged"
    assert "Skipped: same data" in capsys.readouterr().out


HANGS = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        name = "child"
    else:
        name = "leader"
    with open(f"{os.environ['HISTOLINE_PIDS']}/{name}.pid", "w") as file:
        file.write(str(os.getpid()))
    while True: time.sleep(1)
"""


def test_cancelling_ends_the_tree(operator: Any, tmp_path: Path) -> None:
    step = operator(HANGS)

    def cancel() -> None:
        assert wait_until(lambda: len(read_pids(tmp_path)) == 2)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: step.on_kill())  # as Airflow's task runner does
    try:
        threading.Thread(target=cancel).start()
        given = context()
        with pytest.raises(AirflowException, match="Cancelled in Airflow") as caught:
            step.execute(given)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not isinstance(caught.value, AirflowFailException)
    assert given["ti"].pushed["return_value"]["reason"].startswith("Cancelled in Airflow")
    assert not any(alive(pid) for pid in read_pids(tmp_path))


def test_a_program_that_is_gone_may_come_back(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step = operator("pass")
    monkeypatch.setenv("HISTOLINE_COMMAND", "/nowhere/histoline")
    with pytest.raises(AirflowException, match="no program.*make setup") as caught:
        step.execute(context())
    assert not isinstance(caught.value, AirflowFailException)


def test_files_of_a_step_have_the_mode_that_its_user_expects(
    operator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    step = operator(f"open({str(made)!r}, 'w').close()")
    monkeypatch.setenv("HISTOLINE_STEP_UMASK", "027")
    before = os.umask(0o077)  # of Airflow's servers
    try:
        step.execute(context())
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("attempt,kind", [(1, AirflowTaskTimeout), (2, AirflowFailException)])
def test_a_timeout_ends_the_tree_and_is_tried_once_more(
    operator: Any, tmp_path: Path, attempt: int, kind: type[BaseException]
) -> None:
    step = operator(HANGS, execution_timeout=timedelta(minutes=5))

    def expire(*_: Any) -> None:
        raise AirflowTaskTimeout("Timeout")

    def cause() -> None:
        assert wait_until(lambda: len(read_pids(tmp_path)) == 2)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, expire)
    try:
        threading.Thread(target=cause).start()
        with pytest.raises(kind):
            step.execute(context(try_number=attempt))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not any(alive(pid) for pid in read_pids(tmp_path))


def test_secrets_of_airflow_stay_there(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISTOLINE_WEBHOOK_URL", "https://secret")
    monkeypatch.setenv("PYTHONPATH", "/dags")
    step = operator('result(seen=[n for n in os.environ if n.startswith(("AIRFLOW", "PYTHONPATH")) or "WEBHOOK" in n])')
    assert step.execute(context())["seen"] == []
