"""DATASET_predict, DATASET_sweep and folds in whole runs, around the fake pipeline command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from steps import FakeTi
from test_assets import commit
from world import World, events, xcom

from histoline_dags.assets import choose_recipe, data_asset, recipe_asset
from histoline_dags.ids import run_id

pytestmark = pytest.mark.integration
TEXT = "The colours have shifted."
SHIFT = {"drifted": ["color/eosin_od"], "skipped": "", "text": TEXT, "unit": "slide", "groups": 6}
CALM = {**SHIFT, "drifted": [], "text": ""}


def champion(world: World, dataset: str = "idc", task: str = "binary") -> None:
    home = world.workspace / "models" / dataset / task
    home.mkdir(parents=True)
    (home / "champion.json").write_text("{}")


def test_without_a_champion_there_is_nothing_to_score_with(world: World) -> None:
    state, tasks, run = world.run("idc_predict")
    assert (state, set(tasks.values()), world.calls()) == ("success", {"skipped"}, [])
    assert xcom(run, "predict")["reason"] == "no model of idc binary was promoted yet: run idc_train"


def test_a_folder_is_scored_into_the_run_s_own_place(world: World) -> None:
    champion(world)
    world.answer(predict={"result": {"state": "done", "drift": CALM}})
    state, tasks, run = world.run("idc_predict", input="/data/new", fail_on_drift=True)
    assert (state, tasks) == ("success", {"predict": "success", "drift": "success"})
    (call,) = world.calls()
    place = world.workspace / "predictions/idc/binary" / run_id("idc_predict", run.run_id)
    assert call[:2] == ["predict", "idc"] and "--fail-on-drift" not in call
    made = {f"--output={place}/predictions.parquet", f"--page={place}/index.html", f"--slide-maps={place}/maps"}
    assert {*made, "--input=/data/new", "--task=binary", f"--workspace={world.workspace}"} == set(call[2:])
    assert world.hook == []
    champion(world, "breakhis", "subtype")
    world.run("breakhis_predict", task="subtype")
    assert not any(argument.startswith("--slide-maps") for argument in world.calls()[-1]), "maps are of two classes"


@pytest.mark.parametrize("fails", [True, False])
def test_drift_is_red_by_setting_and_else_a_warning(world: World, fails: bool) -> None:
    champion(world)
    world.answer(predict={"result": {"state": "done", "drift": SHIFT}})
    state, tasks, run = world.run("idc_predict", fail_on_drift=fails)
    assert (state, tasks["predict"], tasks["drift"]) == (
        ("failed", "success", "failed") if fails else ("success", "success", "skipped")
    )
    assert xcom(run, "drift")["reason"] == "The colours have shifted."
    assert [(m["event"], m["reason"]) for m in world.hook] == [
        ("failed" if fails else "drift", "The colours have shifted.")
    ]


def test_what_was_not_compared_is_not_green_and_nobody_is_called(world: World) -> None:
    champion(world)
    told = {**CALM, "skipped": "no statistics to compare with: model 7 carries none"}
    world.answer(predict={"result": {"state": "done", "drift": told}})
    state, tasks, run = world.run("idc_predict", fail_on_drift=True)
    assert (state, tasks["drift"], world.hook) == ("success", "skipped", [])
    assert "carries none" in xcom(run, "drift")["reason"]


def test_a_sweep_maps_its_trials_and_announces_the_winner(world: World) -> None:
    world.commit()
    before = len(events("histoline/idc/recipe"))
    world.answer(
        **{
            "sweep-plan": {"result": {"state": "running", "trials": [0, 1, 4]}},
            "sweep-trial": {"result": {"state": "done"}},
            "sweep-choose": {
                "result": {"state": "done", "sweep_id": "s1", "winner": 4, "recipe": "/w/winner.yaml", "reason": "best"}
            },
        }
    )
    state, tasks, run = world.run("idc_sweep", recipes="idc_quick,idc_lite0", trials=3, minutes=2.5)
    assert state == "success" and set(tasks.values()) == {"success"}
    assert {"trial[0]", "trial[1]", "trial[2]", "choose"} <= set(tasks)
    plan, *trials, choose = world.calls()
    ours = [f"--workspace={world.workspace}", "--task=binary", f"--sweep-id={run_id('idc_sweep', run.run_id)}"]
    assert plan[:6] == ["step", "sweep-plan", "idc", *ours]
    assert {"--recipes=idc_quick,idc_lite0", "--trials=3", "--minutes=2.5", "--seed=0"} == set(plan[6:])
    assert [call[:6] for call in trials] == [["step", "sweep-trial", "idc", *ours]] * 3
    assert sorted(call[6] for call in trials) == ["--trial=0", "--trial=1", "--trial=4"]
    assert choose == ["step", "sweep-choose", "idc", *ours]
    told = {"task": "binary", "sweep_id": "s1", "winner": 4, "recipe": "/w/winner.yaml"}
    assert events("histoline/idc/recipe")[before:] == [told]


def test_a_sweep_that_chose_nothing_announces_nothing(world: World) -> None:
    world.commit()
    before = len(events("histoline/idc/recipe"))
    none = {"result": {"winner": None, "reason": "no"}}
    world.answer(**{"sweep-plan": {"result": {"trials": [0]}}, "sweep-choose": none})
    state, tasks, run = world.run("idc_sweep")
    assert (state, tasks["choose"]) == ("success", "skipped") and "no" in xcom(run, "choose")["reason"]
    assert len(events("histoline/idc/recipe")) == before
    world.answer(**{"sweep-trial": {"code": 65, "error": "broken"}})
    state, tasks, _ = world.run("idc_sweep")
    assert (state, tasks["trial[0]"], tasks["choose"]) == ("failed", "failed", "upstream_failed")


def test_folds_are_trained_side_by_side_before_the_rest(world: World) -> None:
    world.commit()
    world.answer(validate={"result": {"state": "running", "decision": None, "folds": [1, 2, 3]}})
    state, tasks, _ = world.run("idc_train")
    assert state == "success" and set(tasks.values()) == {"success"} and "fold[2]" in tasks
    stages = [call[1] for call in world.calls()]
    assert stages == ["validate", "train", "train", "train", "train", "evaluate", "push", "report"]
    folds = [call[-1] for call in world.calls()[1:4]]
    assert sorted(folds) == ["--fold=1", "--fold=2", "--fold=3"]
    assert not any(argument.startswith("--fold=") for argument in world.calls()[4])
    assert len({tuple(call[:6]) for call in world.calls()[1:5]}) == 1, "the same run"


def test_a_fold_that_fails_ends_the_run(world: World) -> None:
    world.commit()
    world.answer(
        validate={"result": {"state": "running", "folds": [1, 2]}}, train={"code": 65, "error": "fold broke"}
    )
    state, tasks, _ = world.run("idc_train")
    assert (state, tasks["fold[0]"], tasks["train"], tasks["report"]) == (
        "failed", "failed", "upstream_failed", "upstream_failed"
    )  # fmt: skip


def winner(workspace: Path, sweep: str = "s1", task: str = "subtype") -> Path:
    file = workspace / "sweeps" / "breakhis" / task / sweep / "winner.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("model: simple_cnn\n")
    return file


def triggered(*extras: Any) -> dict[str, Any]:
    happened = [SimpleNamespace(timestamp=number, extra=extra) for number, extra in enumerate(extras)]
    return {"triggering_asset_events": {recipe_asset("breakhis"): happened}}


def test_a_recipe_is_taken_from_a_sweep_of_the_workspace_alone(tmp_path: Path) -> None:
    file = winner(tmp_path)

    def chosen(**extra: Any) -> Any:
        return choose_recipe(triggered(extra), "breakhis", {"binary": [], "subtype": []}, tmp_path)

    assert chosen(task="subtype", sweep_id="s1", recipe="/elsewhere.yaml") == ("subtype", str(file))
    for wrong in ({"sweep_id": "../s1"}, {"sweep_id": "s2"}, {"sweep_id": None}, {"task": "binary"}, {"task": "../x"}):
        assert chosen(**{"task": "subtype", "sweep_id": "s1", **wrong}) is None
    file.rename(tmp_path / "moved.yaml")
    file.symlink_to(tmp_path / "moved.yaml")
    assert chosen(task="subtype", sweep_id="s1") is None
    assert choose_recipe({"triggering_asset_events": {}}, "breakhis", {}, tmp_path) is None


def test_validate_takes_the_winner_whole_and_the_rules_of_the_form(tmp_path: Path) -> None:
    from histoline_dags.factory import train_dag
    from histoline_dags.settings import load

    file = winner(tmp_path)
    place = commit(tmp_path)
    (place.parent / "latest.json").write_text("{}")
    dag = train_dag(load({"HISTOLINE_WORKSPACE": str(tmp_path), "HISTOLINE_BREAKHIS_TRAIN_EPOCHS": "3"}), "breakhis")
    values = {name: dag.params[name] for name in dag.params}
    assert values["epochs"] == 3 and values["task"] == "binary"
    given = {"ti": FakeTi("breakhis_train"), "params": values, "dag_run": SimpleNamespace(conf={})}
    found = dag.get_task("validate").arguments({**given, **triggered({"task": "subtype", "sweep_id": "s1"})})
    assert [a for a in found if a.startswith(("--preset", "--epochs", "--task", "--data"))] == [
        "--task=subtype", f"--preset={file}"
    ]  # fmt: skip
    assert "--gate-policy=auto" in found
    # New data of the same task that came meanwhile are what it is trained on.
    both = triggered({"task": "subtype", "sweep_id": "s1"})
    news = {"task": "subtype", "dataset_dir": str(place), "content_digest": "d1"}
    both["triggering_asset_events"][data_asset("breakhis")] = [SimpleNamespace(timestamp=9, extra=news)]
    assert f"--data={place}" in dag.get_task("validate").arguments({**given, **both})
    assert json.loads((place / "manifest.json").read_text())["task"] == "subtype"
