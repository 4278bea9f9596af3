"""Tasks that run no command: they read what the task before them has left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from histoline_dags.ids import run_id

Context = Mapping[str, Any]


class NumbersOperator(BaseOperator):
    """Gives the numbers that an earlier task's result lists, for tasks to be mapped over.

    Args:
        source: Task whose result is read.
        key: List of numbers in it; an absent one is empty.
    """

    def __init__(self, *, source: str, key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source, self.key = source, key

    def execute(self, context: Context) -> list[int]:
        """See the class."""
        result = context["ti"].xcom_pull(task_ids=self.source) or {}
        return [int(number) for number in result.get(self.key) or ()]


class DriftOperator(BaseOperator):
    """Says what a prediction has found of its colours: success without drift, red or skipped with it.

    Airflow has no state between green and red. A skipped task fails nothing, is seen, and carries its reason.

    Args:
        dataset: Name of the data set.
        source: Task that ran `histoline predict`.
    """

    ui_color = "#f7efe0"

    def __init__(self, *, dataset: str, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset, self.source = dataset, source

    def execute(self, context: Context) -> dict[str, Any]:
        """See the class.

        Raises:
            AirflowFailException: Colours have shifted, and the form says that this is a failure.
            AirflowSkipException: They have shifted, or nothing was compared.
        """
        ti = context["ti"]
        predicted = ti.xcom_pull(task_ids=self.source) or {}
        drift = predicted.get("drift") or {}
        outcome = {"dataset": self.dataset, "task": predicted.get("task"), "run_id": run_id(ti.dag_id, ti.run_id)}
        if not drift.get("drifted") and not drift.get("skipped"):
            self.log.info("Colours have not shifted: %s %ss were compared.", drift.get("groups"), drift.get("unit"))
            return {**outcome, "state": "done", "decision": "no_drift"}
        fails = bool(drift.get("drifted")) and context["params"]["fail_on_drift"]
        reason = str(drift.get("text") or f"Not compared: {drift.get('skipped')}.")
        decision = "drift" if drift.get("drifted") else "not_compared"
        self.log.warning("%s", reason)
        outcome |= {"state": "failed" if fails else "skipped", "decision": decision, "reason": reason}
        ti.xcom_push(key="return_value", value=outcome)
        raise (AirflowFailException if fails else AirflowSkipException)(reason)
