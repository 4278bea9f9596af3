"""What Airflow itself knows of a DAG run: states of its tasks, and the results that they returned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from histoline_dags.ids import run_id
from histoline_dags.stages import MAPPED_TASKS, PRUNE, TASKS

ORDER = (*TASKS[: TASKS.index("predict") + 1], "drift", *TASKS[TASKS.index("predict") + 1 :], PRUNE)
"""Tasks whose results and failures are told, in the order in which they run."""

WORST_FIRST = ("failed", "up_for_retry", "upstream_failed", "running", "queued", "scheduled")
"""States by which a task that is mapped over several is told as one; any other is told where none of them has these."""


@dataclass(frozen=True)
class DagRunFacts:
    """One DAG run.

    Attributes:
        dag_id: Of the DAG.
        dag_run_id: Of the run.
        state: Airflow's word for it.
        tasks: State by task; empty where it has none yet. Of a task that is mapped over several the worst one.
        results: What the tasks returned; whoever may write to Airflow may have written them.
    """

    dag_id: str
    dag_run_id: str
    state: str
    tasks: Mapping[str, str]
    results: Mapping[str, Mapping[str, Any]]

    def last_result(self) -> Mapping[str, Any]:
        """The result of the last stage that left one."""
        return next((self.results[stage] for stage in reversed(ORDER) if stage in self.results), {})

    def first_bad(self) -> tuple[str, str]:
        """Task and state of the first stage that failed or was skipped; empty texts where none did.

        Without folds their task is skipped, which says nothing.
        """
        for state in ("failed", "up_for_retry", "skipped"):
            for stage in ORDER:
                if self.tasks.get(stage) == state and (state != "skipped" or stage not in MAPPED_TASKS):
                    return stage, state
        return "", ""


def look_up(dag_id: str, dag_run_id: str) -> DagRunFacts | None:
    """Reads a DAG run from Airflow's metadata; None where there is none of these names."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == dag_run_id))
        if run is None:
            return None
        tasks = session.execute(
            select(TaskInstance.task_id, TaskInstance.state)
            .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == dag_run_id)
            .order_by(TaskInstance.map_index)
        ).all()
        returned = session.execute(
            select(XComModel.task_id, XComModel.value).where(
                XComModel.dag_id == dag_id, XComModel.run_id == dag_run_id, XComModel.key == "return_value"
            )
        ).all()
        return DagRunFacts(
            dag_id=dag_id,
            dag_run_id=dag_run_id,
            state=str(getattr(run.state, "value", run.state) or ""),
            tasks=as_one([(task, str(getattr(state, "value", state) or "")) for task, state in tasks]),
            results={task: value for task, value in ((task, _result(value)) for task, value in returned) if value},
        )


def as_one(states: Sequence[tuple[str, str]]) -> dict[str, str]:
    """State by task; of several by the same name the worst.

    Args:
        states: Task and state of each instance.
    """
    found: dict[str, str] = {}
    for task, state in states:
        both = [state, found.get(task, state)]
        found[task] = next((worst for worst in WORST_FIRST if worst in both), both[1])
    return found


def runs_under_way() -> frozenset[str]:
    """RUN_IDs of the DAG runs that are queued or running, between two of their tasks too."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import select

    with create_session() as session:
        rows = session.execute(
            select(DagRun.dag_id, DagRun.run_id).where(DagRun.state.in_((DagRunState.QUEUED, DagRunState.RUNNING)))
        ).all()
        return frozenset(run_id(dag_id, dag_run_id) for dag_id, dag_run_id in rows)


def _result(value: object) -> Mapping[str, Any]:
    """A task's result; empty for anything that is no JSON object."""
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}
