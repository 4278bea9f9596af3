"""histoline_prune: what it runs, what its tab shows, where its values come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_help import RUN, facts, tab
from world import World, xcom

from histoline_dags.pruning import prune_dag
from histoline_dags.settings import load
from histoline_dags.settings_file import SettingsError

RESULT = {
    "state": "done", "decision": "pruned", "reason": "Removed 1 run: 2.0 MB.", "bytes": 2_000_000,
    "removed": [{"kind": "runs", "path": "runs/idc/binary/<b>old", "bytes": 2_000_000, "why": "nothing needs it"}],
    "removed_by_reason": [{"kind": "runs", "count": 1, "bytes": 2_000_000, "why": "nothing needs it", "path": "x"}],
    "kept_by_reason": [{"kind": "runs", "count": 3, "bytes": 9_000_000, "why": "among the newest 10", "path": "y"}],
    "skipped": [{"path": "runs/idc/binary/busy", "why": "locked by a step"}],
}  # fmt: skip


@pytest.mark.integration
def test_a_run_deletes_and_keeps_its_result(world: World) -> None:
    world.answer(prune={"result": RESULT})
    state, tasks, run = world.run("histoline_prune", keep_runs=5, abandoned_after="4w")
    assert (state, tasks) == ("success", {"prune": "success"})
    (call,) = world.calls()
    assert call[:2] == ["prune", f"--workspace={world.workspace}"]
    told = {"--yes", "--keep-runs=5", "--keep-sweeps=3", "--keep-datasets=2", "--older-than=7d", "--abandoned-after=4w"}
    assert set(call[2:]) == told
    assert xcom(run, "prune")["removed"] == RESULT["removed"]
    world.run("histoline_prune", delete=False)
    assert "--yes" not in world.calls()[1], "a dry run"


def test_the_tab_shows_what_went_and_what_stayed(client: Any, known: Any) -> None:
    known["histoline_prune", RUN] = facts("histoline_prune", tasks={"prune": "success"}, results={"prune": RESULT})
    answer = tab(client, "histoline_prune")
    assert answer.status_code == 200 and "allow-scripts" not in answer.headers["content-security-policy"]
    for text in ("Removed 1 run", "&lt;b&gt;old", "among the newest 10", "locked by a step", '<td class="number">2.0'):
        assert text in answer.text
    told = {**RESULT, "decision": "dry_run", "reason": "Would remove 1 run."}
    known["histoline_prune", RUN] = facts("histoline_prune", tasks={"prune": "success"}, results={"prune": told})
    assert "<h2>Would go</h2>" in tab(client, "histoline_prune").text
    broken = {"removed": [None, {"bytes": "x"}], "kept_by_reason": 3, "decision": "pruned"}
    known["histoline_prune", RUN] = facts("histoline_prune", tasks={"prune": "success"}, results={"prune": broken})
    assert tab(client, "histoline_prune").status_code == 200, "whoever may write to Airflow may have written it"
    failed = {"prune": {"state": "failed", "reason": "champion.json is damaged"}}
    known["histoline_prune", RUN] = facts("histoline_prune", "failed", tasks={"prune": "failed"}, results=failed)
    assert "Failed in prune: champion.json is damaged" in tab(client, "histoline_prune").text
    assert tab(client, "histoline_prune", "manual__none").status_code == 404


def test_the_tab_of_a_run_that_was_pruned_says_so_and_what_it_decided(client: Any, known: Any) -> None:
    for dag_id, task in (("idc_train", "report"), ("idc_ingest", "ingest")):
        results = {task: {"state": "done", "task": "binary", "plan_id": "0123", "reason": "Refused: worse."}}
        known[dag_id, RUN] = facts(dag_id, tasks={task: "success"}, results=results)
        assert "Refused: worse. What it left is gone by now" in tab(client, dag_id).text
    tasks = {"validate": "success", "push": "skipped", "report": "success"}
    known["idc_train", RUN] = facts("idc_train", tasks=tasks, results={"push": {"reason": "Refused: worse."}})
    assert "Refused: worse. What it left is gone by now" in tab(client, "idc_train").text


def test_its_settings(tmp_path: Path) -> None:
    dag = prune_dag(load({}))
    assert dag.params["keep_runs"] == 10 and dag.params["delete"] is True
    assert "cron: at 04:00, only on Saturday (UTC)" in dag.tags and "once it is switched on" in dag.doc_md
    file = tmp_path / "settings.toml"
    file.write_text("[prune]\nolder_than = '30d'\ncron = ''\n")
    own = {"HISTOLINE_SETTINGS": str(file)}
    dag = prune_dag(load({**own, "HISTOLINE_PRUNE_KEEP_RUNS": "4"}))
    assert (dag.params["older_than"], dag.params["keep_runs"], dag.params["keep_sweeps"]) == ("30d", 4, 3)
    assert dag.schedule is None and dag.get_task("prune").execution_timeout.total_seconds() == 240 * 60
    for wrong in ({"HISTOLINE_PRUNE_KEEP_RUN": "4"}, {"HISTOLINE_PRUNE_MINUTES": "0"}):
        with pytest.raises(SettingsError, match="KEEP_RUNS|prune.minutes"):
            load({**own, **wrong})
    with pytest.raises(SettingsError, match="settings.toml: prune.keep_datasets"):
        prune_dag(load({**own, "HISTOLINE_PRUNE_KEEP_DATASETS": "0"}))
    with pytest.raises(SettingsError, match="settings.toml: prune.cron is 'weekly'"):
        prune_dag(load({**own, "HISTOLINE_PRUNE_CRON": "weekly"}))
