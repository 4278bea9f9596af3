"""Whole runs in Airflow's own machinery (`dag.test`), around a fake pipeline command that behaves as it is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from world import DAGS, World, events, xcom

pytestmark = pytest.mark.integration


def test_no_data_yet_is_a_skip_and_not_a_failure(world: World) -> None:
    state, tasks, run = world.run("idc_train")
    assert state == "success"
    assert set(tasks.values()) == {"skipped"}
    assert world.calls() == [] and world.hook == []
    assert xcom(run, "validate")["reason"] == "no data set committed yet: run idc_ingest"


def test_promoted(world: World) -> None:
    world.commit()
    before = len(events("histoline/idc/model"))
    state, tasks, run = world.run("idc_train", epochs=3, preset="idc_quick")
    assert state == "success" and set(tasks.values()) == {"success"}
    first, *later = world.calls()
    assert first[:3] == ["step", "validate", "idc"]
    assert {"--epochs=3", "--preset=idc_quick", "--task=binary", f"--workspace={world.workspace}"} <= set(first)
    assert "--gate-policy=auto" in first, "what a scheduled run asks for"
    assert not any(argument.startswith("--data") for argument in first)
    assert [call[1] for call in later] == ["train", "evaluate", "push", "report"]
    runs = {[a for a in call if a.startswith("--run-id=")][0] for call in world.calls()}
    assert len(runs) == 1 and runs == {f"--run-id={xcom(run, 'report')['run_id']}"}
    assert [(m["event"], m["dag_id"], m["task_id"]) for m in world.hook] == [("promoted", "idc_train", "push")]
    made = events("histoline/idc/model")[before:]
    assert made == [{"task": "binary", "version": "7", "metrics": {"auc": 0.9}}]


def test_refused_is_green_with_push_skipped_and_a_report(world: World) -> None:
    world.commit()
    refused = {"state": "running", "decision": "refused", "reason": "not better than the champion"}
    world.answer(
        evaluate={"result": refused}, push={"result": refused}, report={"result": {**refused, "state": "done"}}
    )
    before = events("histoline/idc/model")
    state, tasks, run = world.run("idc_train")
    assert state == "success"
    assert tasks == {
        "validate": "success", "folds": "success", "train": "success", "evaluate": "success", "push": "skipped",
        "report": "success",
    }  # fmt: skip
    assert [(m["event"], m["reason"]) for m in world.hook] == [("refused", "not better than the champion")]
    assert events("histoline/idc/model") == before
    assert xcom(run, "push")["decision"] == "refused"


def test_unchanged_is_skipped_with_its_reason(world: World) -> None:
    world.commit()
    world.answer(validate={"result": {"state": "done", "decision": "unchanged", "reason": "Unchanged: data and code."}})
    state, tasks, run = world.run("idc_train")
    assert state == "success" and set(tasks.values()) == {"skipped"}
    assert xcom(run, "validate")["reason"] == "Unchanged: data and code."
    assert world.hook == [] and len(world.calls()) == 1


@pytest.mark.parametrize("stage,code", [("validate", 64), ("train", 70), ("evaluate", 65), ("report", 65)])
def test_a_failure_is_red_and_tried_once(world: World, stage: str, code: int) -> None:
    world.commit()
    world.answer(**{stage: {"code": code, "error": f"{stage} broke"}})
    state, tasks, run = world.run("idc_train")
    assert state == "failed" and tasks[stage] == "failed"
    assert [call[1] for call in world.calls()].count(stage) == 1
    order = ["validate", "train", "evaluate", "push", "report"]
    assert {tasks[later] for later in order[order.index(stage) + 1 :]} <= {"upstream_failed"}
    assert xcom(run, stage)["reason"] == f"{stage} broke"
    assert [m["event"] for m in world.hook if m["event"] != "promoted"] == ["failed"]
    assert f"{stage} broke" in world.hook[-1]["text"]


def test_temporary_trouble_is_tried_again_under_the_same_run_id(world: World) -> None:
    world.commit()
    world.answer(train={"codes": [75, 0], "error": "the lock is held"})
    state, tasks, _ = world.run("idc_train")
    assert state == "success" and set(tasks.values()) == {"success"}
    tries = [call for call in world.calls() if call[1] == "train"]
    assert len(tries) == 2 and tries[0] == tries[1]
    assert [m["event"] for m in world.hook] == ["promoted"]


def test_a_task_of_an_event_goes_through_all_steps(world: World) -> None:
    # What `validate` settled is what the later steps get; here through the form.
    (world.workspace / "datasets/breakhis/subtype").mkdir(parents=True)
    (world.workspace / "datasets/breakhis/subtype/latest.json").write_text("{}")
    world.run("breakhis_train", task="subtype", preset="default")
    assert len(world.calls()) == 5
    assert all("--task=subtype" in call for call in world.calls())
    assert not any(argument.startswith("--preset") for argument in world.calls()[0])


def test_a_field_that_does_not_exist_fails_the_first_task(world: World) -> None:
    world.commit()
    state, tasks, _ = world.run("idc_train", epoch=3)
    assert state == "failed" and tasks["validate"] == "failed"
    assert world.calls() == []


def test_a_webhook_that_is_down_fails_no_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.commit()
    for url in ("http://127.0.0.1:9/x", "ftp://x", "nonsense"):
        monkeypatch.setenv("HISTOLINE_WEBHOOK_URL", url)
        assert world.run("idc_train")[0] == "success"


def ingested(world: World, digest: str, **more: Any) -> dict[str, Any]:
    place = world.commit(digest)
    return {
        "state": "committed", "task": "binary", "dataset_dir": str(place), "content_digest": digest,
        "plan_id": f"plan-{digest}", "is_latest": True, **more,
    }  # fmt: skip


def test_ingest_announces_what_is_new_and_only_that(world: World) -> None:
    before = len(events("histoline/idc"))

    def new() -> list[str]:
        return [e["content_digest"] for e in events("histoline/idc")[before:]]

    told = ingested(world, "n1")
    world.answer(ingest={"result": told})
    assert world.run("idc_ingest", input="/data/idc", seed=3)[0] == "success"
    assert set(world.calls()[0]) >= {"ingest", "idc", "--input=/data/idc", "--seed=3", "--task=binary"}
    assert new() == ["n1"]
    assert events("histoline/idc")[-1] == {
        "task": "binary", "dataset_dir": told["dataset_dir"], "content_digest": "n1", "plan_id": "plan-n1"
    }  # fmt: skip

    world.answer(ingest={"result": {**told, "state": "unchanged"}})
    state, tasks, run = world.run("idc_ingest")
    assert (state, tasks["ingest"]) == ("success", "skipped")
    assert xcom(run, "ingest")["state"] == "unchanged"
    assert "the input is unchanged" in xcom(run, "ingest")["reason"]
    world.answer(ingest={"result": told})  # committed anew with the same content
    assert world.run("idc_ingest")[1]["ingest"] == "success"
    assert new() == ["n1"]

    # A try that was killed after the commit: the next finds it unchanged, and must still announce it.
    world.answer(ingest={"result": ingested(world, "n2", state="unchanged")})
    assert world.run("idc_ingest")[1]["ingest"] == "success"
    assert new() == ["n1", "n2"]
    world.answer(ingest={"result": ingested(world, "n3", is_latest=False)})
    assert world.run("idc_ingest")[1]["ingest"] == "success"
    assert new() == ["n1", "n2"]
    world.answer(ingest={"result": ingested(world, "n1")})  # back to what was before the last
    world.run("idc_ingest")
    assert new() == ["n1", "n2", "n1"]
    assert world.hook == []


def test_a_failed_ingest_is_red_and_says_what(world: World) -> None:
    before = events("histoline/idc")
    told = {"state": "failed", "task": "binary", "reason": "12 of 40 images are faulty (truncated 12)"}
    world.answer(ingest={"code": 65, "result": told, "error": told["reason"]})
    state, tasks, run = world.run("idc_ingest")
    assert (state, tasks["ingest"]) == ("failed", "failed")
    assert xcom(run, "ingest")["reason"] == told["reason"]
    assert events("histoline/idc") == before
    assert [(m["event"], m["reason"]) for m in world.hook] == [("failed", told["reason"])]


def test_import_takes_no_database(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys; sys.path.insert(0, sys.argv[1]); import dataset_dags"
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nowhere/x"}
    done = subprocess.run([sys.executable, "-c", code, str(DAGS)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
