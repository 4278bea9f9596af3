"""The step operator: a pipeline command as one Airflow task (docs/decisions/0020-airflow-steps.md)."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from histoline_dags.ids import run_id
from histoline_dags.process import StepProcess, allowed_environment
from histoline_dags.shim import PR_SET_PDEATHSIG, prctl
from histoline_dags.words import in_form_words

Context = Mapping[str, Any]
Arguments = Callable[[Context], Sequence[str]]
After = Callable[[Context, Mapping[str, Any]], None]

PERMANENT = {64: "wrong usage or input", 65: "the data failed a check", 70: "a bug in histoline"}
"""Exit codes after which a retry is useless."""

TEMPORARY = 75
CANCELLED = "Cancelled in Airflow: the task was cleared or marked there, or its run was; the audit log says by whom."
PROJECT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error", "critical"}


def histoline_command() -> str:
    """The pipeline environment's `histoline` (HISTOLINE_COMMAND, else that of the project's .venv)."""
    return os.environ.get("HISTOLINE_COMMAND") or str(PROJECT / ".venv" / "bin" / "histoline")


class StepOperator(BaseOperator):
    """Runs one histoline command, logs its output line by line, and keeps its result.

    The result is the task's XCom `return_value` however the task ends: {state, decision, reason, ...} as the command
    left it, with `dataset`, `task` (where known) and `run_id` of the pipeline.

    Args:
        dataset: Name of the data set.
        arguments: Gives the command's arguments; may skip the task (AirflowSkipException).
        after: Called with the result of a command that ended well: may skip the task or announce an asset.
        number: Of the fold or trial, where the task is mapped over several.
        fields: Of the DAG's form: reasons name them instead of options of the command line.
    """

    ui_color = "#e8eef7"

    def __init__(
        self,
        *,
        dataset: str,
        arguments: Arguments,
        after: After | None = None,
        number: int | None = None,
        fields: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.fields = fields or {}
        self.number = number
        self.arguments = arguments
        self.after = after
        self._step: StepProcess | None = None
        self._killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the command to its end.

        Returns:
            Its result, small enough for XCom.

        Raises:
            AirflowSkipException: There was nothing to do, or the gate refused the model.
            AirflowFailException: It failed, and a retry is useless.
            AirflowException: It failed, and Airflow may try again.
        """
        self._killed = False
        # Where Airflow's supervising process dies, this process ends its step, too.
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        try:
            return self._execute(context)
        finally:
            prctl(PR_SET_PDEATHSIG, 0)

    def on_kill(self) -> None:
        """Ends the step when Airflow cancels the task; called within a signal handler, so it only asks."""
        self._killed = True
        if self._step is not None:
            self._step.stop()

    def _execute(self, context: Context) -> dict[str, Any]:
        ti = context["ti"]
        outcome: dict[str, Any] = {"dataset": self.dataset, "run_id": run_id(ti.dag_id, ti.run_id)}
        try:
            arguments = list(self.arguments(context))
        except AirflowSkipException as skip:
            outcome |= {"state": "skipped", "reason": str(skip)}
            self._skipped(context, outcome, str(skip))
            raise
        code, last_error, result = self._run(context, arguments)
        outcome |= {"task": _option(arguments, "--task")} | result
        if isinstance(outcome.get("reason"), str):
            outcome["reason"] = in_form_words(outcome["reason"], self.fields)
        if code != 0:
            # A result of an earlier stage says nothing of this failure.
            reason = outcome.get("reason") if outcome.get("state") == "failed" else ""
            reason = CANCELLED if self._killed else reason
            reason = reason or in_form_words(last_error, self.fields) or f"exit code {code}"
            outcome |= {"state": "failed", "reason": reason}
            ti.xcom_push(key="return_value", value=outcome)
            raise self._failure(context, code, outcome["reason"])
        if self.after is not None:
            try:
                self.after(context, outcome)
            except AirflowSkipException as skip:
                self._skipped(context, {**outcome, "reason": outcome.get("reason") or str(skip)}, str(skip))
                raise
        return outcome

    def _skipped(self, context: Context, outcome: Mapping[str, Any], why: str) -> None:
        """Leaves result and log line of a task that ends as skipped: Airflow itself says only that it does."""
        self.log.info("Skipped: %s", why)
        context["ti"].xcom_push(key="return_value", value=dict(outcome))

    def _run(self, context: Context, arguments: list[str]) -> tuple[int, str, dict[str, Any]]:
        program = histoline_command()
        if not os.access(program, os.X_OK):
            # It is gone for a minute while an upgrade builds its environment.
            raise AirflowException(f"{program} is no program (yet). Run `make setup`, or set HISTOLINE_COMMAND.")
        self.log.info("$ histoline %s", shlex.join(arguments))
        self._step = StepProcess([program, *arguments], allowed_environment(os.environ), self._log_line)
        try:
            if self._killed:
                self._step.stop()
            return self._step.wait(), self._step.last_error, self._step.result()
        except AirflowTaskTimeout:
            if _attempt(context, self) > 1:
                limit = self.execution_timeout
                raise AirflowFailException(
                    f"It took longer than {limit} for the second time; see settings.toml."
                ) from None
            raise
        finally:
            self._step.end()
            self._step.close()

    def _log_line(self, level: str, text: str) -> None:
        # The text is an argument, not the format: it may hold any per cent sign.
        getattr(self.log, level if level in LEVELS else "info")("%s", text)

    def _failure(self, context: Context, code: int, reason: str) -> AirflowException:
        if self._killed:
            return AirflowException(f"{CANCELLED} Every process of the step has been ended.")
        if code == TEMPORARY:
            return AirflowException(f"Temporary trouble, trying again later (exit 75): {reason}")
        if code > 128:
            text = f"The step was killed by signal {code - 128}"
            if _attempt(context, self) > 1:
                return AirflowFailException(f"{text} for the second time. Is there enough memory?")
            return AirflowException(f"{text}; one more try.")
        return AirflowFailException(f"{PERMANENT.get(code, 'failed')} (exit {code}), no retry: {reason}")


def _attempt(context: Context, operator: BaseOperator) -> int:
    """Number of this try since the run began or was cleared: 1, 2, ..."""
    ti = context["ti"]
    return int(ti.try_number) - max(int(ti.max_tries) - int(operator.retries or 0), 0)


def _option(arguments: Sequence[str], name: str) -> str:
    """Value of `--name=value` among arguments, empty where absent."""
    found = [a.partition("=")[2] for a in arguments if a.startswith(f"{name}=")]
    return found[-1] if found else ""
