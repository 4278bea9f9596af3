"""The Report tab of predictions and sweeps, and how tasks that are mapped are told as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_help import RUN, facts, tab

from histoline_dags.ids import run_id
from histoline_pages.facts import DagRunFacts, as_one


def place(workspace: Path, home: str, dag_id: str) -> Path:
    folder = workspace / home / "idc" / "binary" / run_id(dag_id, RUN)
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>the page")
    return folder


@pytest.mark.parametrize(
    ("kind", "home", "tasks", "shown"),
    [
        ("predict", "predictions", {"predict": "success", "drift": "failed"}, True),
        ("predict", "predictions", {"predict": "failed", "drift": "upstream_failed"}, False),
        ("predict", "predictions", {"predict": "running"}, False),
        ("sweep", "sweeps", {"trial": "success", "choose": "success"}, True),
        ("sweep", "sweeps", {"trial": "failed", "choose": "upstream_failed"}, False),
    ],
)
def test_the_page_is_shown_once_its_task_has_made_it(
    client: Any, workspace: Path, known: Any, kind: str, home: str, tasks: dict[str, str], shown: bool
) -> None:
    dag_id = f"idc_{kind}"
    known[dag_id, RUN] = facts(dag_id, tasks=tasks, results={"predict": {"reason": "no image could be read"}})
    place(workspace, home, dag_id)
    answer = tab(client, dag_id)
    assert answer.status_code == 200 and ("the page" in answer.text) is shown
    assert "allow-scripts" not in answer.headers["content-security-policy"]
    if tasks.get("predict") == "failed":
        assert "Failed in predict: no image could be read" in answer.text


def test_a_skipped_prediction_says_why(client: Any, known: Any) -> None:
    results = {"predict": {"reason": "no model of idc binary was promoted yet: run idc_train"}}
    known["idc_predict", RUN] = facts("idc_predict", tasks={"predict": "skipped", "drift": "skipped"}, results=results)
    assert "Skipped: no model of idc binary was promoted yet" in tab(client, "idc_predict").text


def test_mapped_tasks_are_told_by_the_worst_of_them() -> None:
    states = [("trial", "success"), ("trial", "failed"), ("trial", "running"), ("plan", "success")]
    assert as_one(states) == {"trial": "failed", "plan": "success"}
    assert as_one([("fold", "success"), ("fold", "running")]) == {"fold": "running"}
    assert as_one([("fold", "skipped"), ("fold", "success"), ("fold", "")]) == {"fold": "skipped"}


def test_no_folds_are_nothing_that_was_skipped() -> None:
    told = DagRunFacts("idc_train", RUN, "success", {"fold": "skipped", "push": "skipped", "validate": "success"}, {})
    assert told.first_bad() == ("push", "skipped")
