"""The DAGs as Airflow reads them: integrity, shape, forms."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from steps import environ_without

from histoline_dags.factory import ingest_dag, train_dag
from histoline_dags.form import arguments
from histoline_dags.formats import path_pattern
from histoline_dags.prediction import predict_dag
from histoline_dags.pruning import prune_dag
from histoline_dags.settings import load
from histoline_dags.stages import GPU_TASKS, IN_ORDER
from histoline_dags.sweep import sweep_dag

DAGS = Path(__file__).resolve().parents[2] / "dags"
KINDS = ("ingest", "train", "predict", "sweep")
NAMES = {f"{dataset}_{kind}" for dataset in ("idc", "breakhis", "pcam") for kind in KINDS} | {"histoline_prune"}


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(DAGS))


def test_all_of_them_and_nothing_else(bag: Any) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == NAMES


def test_dag_files_are_short_and_import_nothing_heavy() -> None:
    files = [path for path in DAGS.glob("*.py") if not path.name.startswith("histoline_")]
    assert [path.name for path in files] == ["dataset_dags.py"]
    assert all(len(path.read_text().splitlines()) < 80 for path in files)
    code = """
import sys, airflow.sdk
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import dataset_dags
heavy = {"tensorflow", "apache_beam", "numpy", "pandas", "pyarrow", "google", "sqlalchemy", "components", "pipelines"}
print(sorted(heavy & {name.split(".")[0] for name in set(sys.modules) - before}))
"""
    done = subprocess.run([sys.executable, "-c", code, str(DAGS)], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_settings_of_every_dag(bag: Any, name: str) -> None:
    dag = bag.dags[name]
    assert dag.start_date is None and dag.catchup is False
    assert dag.is_paused_upon_creation is (name == "histoline_prune"), "what deletes is off until somebody wants it"
    assert dag.max_active_runs == 1
    assert dag.doc_md.count(". ") <= 2, "three sentences: what it does, what it costs, when it runs"
    assert dag.allowed_run_types == {
        "scheduled", "manual", "operator_triggered", "asset_triggered", "asset_materialization",
    }, "a backfill would do the same again"  # fmt: skip
    for task in dag.tasks:
        assert task.execution_timeout and task.retries == 5 and task.retry_exponential_backoff
        assert (task.pool, task.queue) == ("default_pool", "default")
        assert task.trigger_rule != "all_done"


def test_what_uses_the_device_waits_for_it_and_nothing_else_does() -> None:
    queues = {"HISTOLINE_QUEUE": "cpu", "HISTOLINE_GPU_QUEUE": "gpu"}
    settings = load({"HISTOLINE_POOL": "small", "HISTOLINE_GPU_POOL": "device", **queues})
    makers = (ingest_dag, train_dag, predict_dag, sweep_dag)
    dags = [prune_dag(settings), *(make(settings, name) for name in settings.datasets for make in makers)]
    pools = {(dag.dag_id, task.task_id): task.pool for dag in dags for task in dag.tasks}
    assert {place[1] for place, pool in pools.items() if pool == "device"} == set(GPU_TASKS)
    assert all(pools[f"{name}_train", "train"] == "device" for name in settings.datasets)
    assert {pool for place, pool in pools.items() if place[1] not in GPU_TASKS} == {"small"}
    tasks = [task for dag in dags for task in dag.tasks]
    assert {(task.pool, task.queue) for task in tasks} == {("small", "cpu"), ("device", "gpu")}


def test_pages_list_tasks_in_the_order_in_which_they_run(bag: Any) -> None:
    for dag in bag.dags.values():
        places = {task.task_id: IN_ORDER.index(task.task_id) for task in dag.tasks}
        assert all(places[task.task_id] < places[after] for task in dag.tasks for after in task.downstream_task_ids)


def test_shape_of_training(bag: Any) -> None:
    dag = bag.dags["idc_train"]
    edges = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert edges == {
        "validate": {"folds", "train"},
        "folds": {"fold"},
        "fold": {"train"},
        "train": {"evaluate"},
        "evaluate": {"push", "report"},
        "push": {"report"},
        "report": set(),
    }
    assert dag.get_task("report").trigger_rule == "none_failed_min_one_success"
    from airflow.sdk import AssetOrTimeSchedule

    assert isinstance(dag.timetable, AssetOrTimeSchedule)
    assert [a.name for a in dag.timetable.asset_condition.objects] == ["histoline/idc", "histoline/idc/recipe"]


def test_shape_of_ingest(bag: Any) -> None:
    dag = bag.dags["pcam_ingest"]
    assert [task.task_id for task in dag.tasks] == ["ingest"]
    assert type(dag.timetable).__name__ == "NullTimetable"
    (outlet,) = dag.get_task("ingest").outlets
    assert outlet.name == "histoline/pcam/announced"


def test_what_runs_by_itself_says_so(bag: Any) -> None:
    assert "chosen, and at 03:00, only on Sunday (UTC); what" in bag.dags["idc_train"].doc_md
    assert "cron: at 03:00, only on Sunday (UTC)" in bag.dags["idc_train"].tags
    assert bag.dags["idc_ingest"].tags == {"histoline", "idc"}
    assert bag.dags["idc_ingest"].doc_md.endswith("It runs when it is triggered.")
    done = reparse(HISTOLINE_IDC_CRON_TRAIN="", HISTOLINE_IDC_CRON_INGEST="0 1 * * *")
    assert done["errors"] == []
    assert done["timetables"]["idc_train"] == "AssetOrTimeSchedule"
    assert done["timetables"]["idc_ingest"] == "CronTriggerTimetable"
    assert "has chosen; what" in done["docs"]["idc_train"]
    assert done["docs"]["idc_ingest"].endswith("triggered, and at 01:00 (UTC).")


def test_a_wrong_setting_is_an_import_error_that_says_where() -> None:
    (error,) = reparse(HISTOLINE_IDC_CRON_TRAIN="every day")["errors"]
    assert "idc.cron.train" in error and "every day" in error
    (error,) = reparse(HISTOLINE_IDC_TRAIN_EPOCHS="0")["errors"]
    assert "idc.train.epochs" in error


def reparse(**environ: str) -> Any:
    """What a fresh process finds under other variables."""
    code = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
found = {name: type(dag.timetable).__name__ for name, dag in bag.dags.items()}
docs = {name: dag.doc_md for name, dag in bag.dags.items()}
print("\\n" + json.dumps({"errors": list(bag.import_errors.values()), "timetables": found, "docs": docs}))
"""
    env = {**environ_without("HISTOLINE_SETTINGS"), "PYTHONPATH": str(DAGS), **environ}
    done = subprocess.run([sys.executable, "-c", code, str(DAGS)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


BAD: list[tuple[str, dict[str, Any]]] = [
    ("idc_train", {"task": "subtype"}),
    ("idc_train", {"preset": "breakhis_quick"}),
    ("idc_train", {"preset": "../../x.yaml"}),
    ("idc_train", {"model": "no_such"}),
    ("idc_train", {"epochs": 0}),
    ("idc_train", {"folds": 1}),
    ("idc_train", {"epochs": "3"}),
    ("idc_train", {"epochs": 1.5}),
    ("idc_train", {"epochs": True}),
    ("idc_train", {"batch_size": 10**9}),
    ("idc_train", {"force": "yes"}),
    ("idc_train", {"accept_drift": "new scanner\n"}),
    ("idc_train", {"accept_drift": "x" * 301}),
    ("idc_ingest", {"input": "relative"}),
    ("idc_ingest", {"input": ""}),
    ("idc_ingest", {"input": "/data/../etc"}),
    ("idc_ingest", {"input": "/data/.."}),
    ("idc_ingest", {"input": "/data/."}),
    ("idc_ingest", {"input": "/data\n"}),
    ("idc_ingest", {"input": "/da\x00ta"}),
    ("idc_ingest", {"input": None}),
    ("idc_ingest", {"input": ["/data"]}),
    ("idc_ingest", {"input": "file:///data"}),
    ("idc_ingest", {"max_faults": 1.01}),
    ("idc_ingest", {"max_per_class": -1}),
    ("idc_ingest", {"on_duplicate": "keep"}),
    ("idc_ingest", {"groups_csv": "groups.csv"}),
    ("idc_predict", {"input": "relative"}),
    ("idc_predict", {"input": "/data/../etc"}),
    ("idc_predict", {"version": "../7"}),
    ("idc_predict", {"fail_on_drift": "yes"}),
    ("idc_sweep", {"recipes": "a;b"}),
    ("idc_sweep", {"recipes": "/etc/x.yaml"}),
    ("idc_sweep", {"oracle": "bayesian"}),
    ("idc_sweep", {"trials": 0}),
    ("idc_sweep", {"minutes": -1}),
    ("idc_sweep", {"search_file": "x.yaml"}),
    ("histoline_prune", {"keep_datasets": 0}),
    ("histoline_prune", {"keep_runs": -1}),
    ("histoline_prune", {"older_than": "7 days"}),
    ("histoline_prune", {"older_than": None}),
    ("histoline_prune", {"abandoned_after": "never"}),
    ("histoline_prune", {"delete": "yes"}),
]
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("idc_train", {"epochs": None, "preset": "default", "accept_drift": "neuer Scanner: 10 %"}),
    ("breakhis_train", {"task": "subtype", "model": "resnet50", "seed": 0, "folds": 5, "holdout": "test"}),
    ("idc_ingest", {"input": "/data/with space/..hidden/Ünicode", "max_faults": 1}),
    ("idc_ingest", {"input": "/data/idc/", "groups_csv": "/data/g.csv"}),
    ("idc_ingest", {"input": "gs://bucket/raw"}),
    ("idc_predict", {"input": "/data/new", "version": "7", "fail_on_drift": True}),
    ("idc_predict", {"version": ""}),
    ("histoline_prune", {"delete": False, "keep_runs": 0, "older_than": "0d", "abandoned_after": "4w"}),
    ("idc_sweep", {"recipes": "idc_quick, idc_lite0", "trials": 4, "minutes": 30, "search_file": "/data/s.yaml"}),
]


def api_dag(bag: Any, name: str) -> Any:
    """The DAG as the web server has it: through the serialised form."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(bag.dags[name]))))


@pytest.mark.parametrize("name,conf", BAD)
def test_form_and_rest_refuse(bag: Any, name: str, conf: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        params = copy.deepcopy(api_dag(bag, name).params)
        merged = params.deep_merge(conf)
        merged.validate()


@pytest.mark.parametrize(
    "name,conf,said",
    [
        ("idc_ingest", {"input": "relative"}, "'relative' is not a 'path that begins with /, without . and ..'"),
        ("idc_predict", {"version": "../7"}, "'../7' is not a 'VERSION or RUN_ID'"),
        ("idc_sweep", {"recipes": "a;b"}, "'a;b' is not a 'list of recipes, separated by commas'"),
        ("idc_train", {"accept_drift": "a\n"}, r"'a\n' is not a 'single line of text'"),
    ],
)
def test_what_is_refused_is_said_in_words(bag: Any, name: str, conf: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        copy.deepcopy(api_dag(bag, name).params).deep_merge(conf).validate()
    assert said in str(refused.value)
    assert "(?" not in str(refused.value), "a regular expression is for nobody"


@pytest.mark.parametrize("name,conf", GOOD)
def test_form_and_rest_accept(bag: Any, name: str, conf: dict[str, Any]) -> None:
    merged = copy.deepcopy(api_dag(bag, name).params).deep_merge(conf)
    merged.validate()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_field_is_explained_and_has_a_valid_default(bag: Any, name: str) -> None:
    params = api_dag(bag, name).params
    params.validate()
    for field in params.keys():
        param = params.get_param(field)
        assert param.description and param.schema["title"] and param.schema["section"], field


@pytest.mark.parametrize(
    "path,fits",
    [
        ("/data/a", True),
        ("/data/a/", True),
        ("/data/a/b c", True),
        ("/data/ab", False),
        ("/data", False),
        ("/data/a/../b", False),
        ("/data/a/./b", False),
        ("/data/a//b", False),
        ("/data/a/b\n", False),
        ("/data/a\n", False),
        ("/x/data/a", False),
        ("gs://bucket/raw/x", True),
        ("gs://bucket/raws", False),
        ("/dataxa", False),
        ("/sp(1)+", True),
    ],
)
def test_paths_keep_to_the_roots(path: str, fits: bool) -> None:
    import re

    assert bool(re.search(path_pattern(("/data/a", "gs://bucket/raw", "/sp(1)+")), path)) is fits


FIELDS = {
    "input": {"option": "--input", "type": "string"},
    "epochs": {"option": "--epochs", "type": ["null", "integer"]},
    "preset": {"option": "--preset", "type": "string"},
    "force": {"option": "--force", "type": "boolean"},
}


def test_arguments() -> None:
    params = {"input": "-x; rm", "epochs": 3.0, "preset": "default", "force": True}
    assert arguments(FIELDS, params, None) == ["--input=-x; rm", "--epochs=3", "--force"]
    assert arguments(FIELDS, {"input": "", "epochs": None, "preset": "p", "force": False}, {}) == ["--preset=p"]
    with pytest.raises(ValueError, match="no field 'inputs'"):
        arguments(FIELDS, params, {"inputs": "/x"})
