"""Which data set a triggered run may take: anybody with the UI may post an event."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from steps import FakeTi

from histoline_dags.assets import choose_data, data_asset

TASKS = {"binary": [], "subtype": []}


def commit(workspace: Path, digest: str = "d1", dataset: str = "breakhis", task: str = "subtype") -> Path:
    place = workspace / "datasets" / dataset / task / f"plan-{digest}"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({"dataset": dataset, "task": task, "content_digest": digest}))
    return place


def context(*extras: Any) -> dict[str, Any]:
    events = [SimpleNamespace(timestamp=number, extra=extra) for number, extra in enumerate(extras)]
    return {"triggering_asset_events": {data_asset("breakhis"): events} if events else {}}


def extra(place: Path | str, **more: Any) -> dict[str, Any]:
    return {"task": "subtype", "dataset_dir": str(place), "content_digest": "d1", **more}


def choose(workspace: Path, *extras: Any) -> tuple[str, str] | None:
    return choose_data(context(*extras), "breakhis", TASKS, workspace)


def test_nothing_triggered(tmp_path: Path) -> None:
    assert choose(tmp_path) is None


def test_the_newest_event_is_taken(tmp_path: Path) -> None:
    first, second = commit(tmp_path), commit(tmp_path, "d2")
    newest = extra(second, content_digest="d2")
    assert choose(tmp_path, extra(first), newest) == ("subtype", str(second))
    # Only the newest counts: an older one may be of data that have been withdrawn.
    assert choose(tmp_path, extra(first), {}) is None


def test_a_linked_workspace_is_the_workspace(tmp_path: Path) -> None:
    place = commit(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert choose(tmp_path / "link", extra(place)) == ("subtype", str(place))


@pytest.mark.parametrize(
    "change",
    [
        {"content_digest": "other"},
        {"content_digest": None},
        {"task": "binary"},
        {"task": "no_such"},
        {"task": ["subtype"]},
        {"dataset_dir": None},
        {"dataset_dir": "/etc"},
        {"dataset_dir": "/"},
        {"dataset_dir": ""},
        {"dataset_dir": "a\0b"},
        {"dataset_dir": "x" * 5000},
    ],
)
def test_what_does_not_fit_is_ignored(tmp_path: Path, change: dict[str, Any]) -> None:
    assert choose(tmp_path, extra(commit(tmp_path), **change)) is None


@pytest.mark.parametrize("body", ["", "[]", "null", '{"dataset": "breakhis"}', "[" * 100_000])
def test_a_manifest_that_can_not_be_read(tmp_path: Path, body: str) -> None:
    place = commit(tmp_path)
    (place / "manifest.json").write_text(body)
    assert choose(tmp_path, extra(place)) is None


def test_elsewhere_and_by_links(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    inside, outside = commit(workspace), commit(tmp_path / "outside")
    assert choose(workspace, extra(outside)) is None
    link = inside.with_name("link")
    link.symlink_to(outside)
    assert choose(workspace, extra(link)) is None
    assert choose(workspace, extra(f"{inside}/../../../../../outside/datasets/breakhis/subtype/plan-d1")) is None
    (inside / "manifest.json").unlink()
    (inside / "manifest.json").symlink_to(outside / "manifest.json")
    assert choose(workspace, extra(inside)) is None
    assert choose(workspace, extra(inside.parent)) is None


def test_validate_takes_data_task_and_a_fitting_recipe_from_the_event(
    tmp_path: Path,
) -> None:
    from histoline_dags.factory import train_dag
    from histoline_dags.settings import load

    place = commit(tmp_path)
    dag = train_dag(load({"HISTOLINE_WORKSPACE": str(tmp_path)}), "breakhis")
    values = {name: dag.params[name] for name in dag.params}
    assert (values["task"], values["preset"]) == ("binary", "breakhis_binary_features")
    given = {"ti": FakeTi("breakhis_train"), "params": values, "dag_run": SimpleNamespace(conf={})}

    with pytest.raises(AirflowSkipException, match="run breakhis_ingest"):  # nothing committed for `binary`
        dag.get_task("validate").arguments({**given, **context()})
    found = dag.get_task("validate").arguments({**given, **context(extra(place))})
    assert {"--task=subtype", f"--data={place}"} <= set(found)
    assert not any(argument.startswith("--preset") for argument in found), "that recipe is for the other task"
    assert [argument for argument in found if argument.startswith("--task")] == ["--task=subtype"]
