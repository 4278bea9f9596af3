"""`histoline predict` as people run it: arguments, Beam, SIGKILL, the champion."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.errors import UsageError
from pipelines import predict
from tests.support import ingest_help, predict_help, train_help, trees
from tests.support.cli_help import invoke

ROOT = Path(__file__).resolve().parents[2]


def options(**given):
    names = ("input_root", "output", "model", "version", "workspace", "groups_csv", "kaggle", "slide_maps", "page")
    return {**dict.fromkeys(names, ""), "task": "binary", "workspace": "workspace", "output": "a.csv", **given}


@pytest.mark.parametrize(
    ("dataset", "given", "what"),
    [
        ("", {}, "one of the two"),
        ("idc", {"model": "x"}, "one of the two"),
        ("", {"model": "x", "version": "7"}, "--model and --version"),
        ("icd", {}, "no data set 'icd'"),
        ("idc", {"task": "subtype"}, "no task 'subtype'"),
        ("idc", {}, "No model of idc binary was promoted"),
        ("idc", {"version": "7"}, "no version and no run"),
        ("", {"model": "."}, "holds no exported model"),
        ("idc", {"output": "a.txt"}, "must end in .parquet or .csv"),
        ("idc", {"output": "a.parquet", "kaggle": "sample.csv"}, "must end in .csv, since"),
        ("idc", {"output": "."}, "must end in"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_loaded(tmp_path, monkeypatch, dataset, given, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=what):
        predict.run(dataset, options(**given), 2, ["--runner=FnApiRunner"])
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_option_is_not_beams():
    done = train_help.run("predict", "--ouput", "a.csv", "--input", ".", "--output", "a.csv")
    assert done.returncode == 64 and "--output" in done.stderr


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    """Raw folder and a workspace whose champion is an untrained model."""
    from components.core import json_documents
    from components.promotion import champion
    from components.storage.open import open_storage

    root = tmp_path_factory.mktemp("promoted")
    raw = predict_help.raw(root / "raw", "idc")
    data = predict_help.ingest(raw, root / "ws", "idc")
    model = predict_help.export(root / "ws" / "models" / "idc" / "binary" / "7", data.folder)
    entry = champion.Promotion(
        version=7, run_id="r1", promoted_by="hand", from_version=None, when=json_documents.now(), who="test",
        why="test",
        dataset_dir=f"datasets/idc/binary/{data.plan_id}", plan_id=data.plan_id,
        content_digest=data.manifest.content_digest, group_unit="patient", group_key="", metric="auc",
        metrics={"auc": 0.5}, raises_best=False,
    )  # fmt: skip
    predict_help.with_statistics(model, data)
    (model / champion.PROMOTION).write_text(json.dumps(json_documents.plain(entry)))
    assert champion.load(open_storage(root / "ws"), "models/idc/binary") is not None
    return raw, root / "ws", data


@pytest.mark.integration
def test_the_champion_predicts_by_default_on_beam(tmp_path, promoted):
    raw, workspace, data = promoted
    given = ("--workspace", workspace, "--input", raw, "--slide-maps", tmp_path / "maps")
    given = (*given, "--page", tmp_path / "page.html", "--fail-on-drift", "--json")
    done = train_help.run("predict", "idc", "--output", tmp_path / "a.parquet", "--runner=DirectRunner", *given)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["model_version"], result["found"]) == ("7", result["predicted"] + result["rejected"])
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert {row["model_version"] for row in rows} == {"7"}
    trained = {group for group, split in data.splits.items() if split != "test"}
    assert result["of_training_groups"] == sum(row["group_id"] in trained for row in rows) > 0
    assert result["slide_maps"] == result["groups"] == len(data.splits)
    assert len(list((tmp_path / "maps").glob("*.labels.png"))) == result["groups"]
    assert (result["drift"]["skipped"], result["drift"]["drifted"]) == ("", [])
    page = (tmp_path / "page.html").read_text()
    assert "no drift" in page and page.count("data:image/png") == result["slide_maps"]
    again = train_help.run("predict", "idc", "--output", tmp_path / "a.parquet", *given)
    assert json.loads(again.stdout)["state"] == "unchanged"
    # By number, in words: nothing is loaded to say it.
    by_number = train_help.run(
        "predict", "idc", "--version", "7", "--output", tmp_path / "a.parquet", *given[:-1],
        path=train_help.no_tfx(tmp_path / "no"),
    )  # fmt: skip
    assert by_number.returncode == 0 and "Nothing to do" in by_number.stdout
    assert "colours: no shift" in by_number.stdout


@pytest.mark.e2e
def test_sigkill_costs_only_what_was_under_way(tmp_path, promoted):
    _, workspace, _ = promoted
    raw = tmp_path / "raw"
    trees.write_images(raw, [f"{i:03}.png" for i in range(60)])
    output = tmp_path / "a.csv"
    # Small parts, and one that never ends: the process is killed in the middle of it.
    code = (
        "import components.prediction.plan as p, components.prediction.parts as q, time\n"
        "import pipelines.beam.predict_parts as b\n"
        "p._MAX_ROWS = 16\nreal = q.predict_part\n"
        "b.predict_part = lambda config, n: real(config, n) if n < 2 else time.sleep(600)\n"
        "import sys; from pipelines import console, predict\n"
        "sys.exit(console.run(lambda: predict.command.main(standalone_mode=False, prog_name='predict')))"
    )
    arguments = ["idc", "--workspace", workspace, "--input", raw, "--output", output, "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, env=ingest_help.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    parts = Path(f"{output}.parts")
    try:
        while not all((parts / f"part-0000{n}.parquet").is_file() for n in (0, 1)):
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not output.exists()
    quick = code.replace("if n < 2 else time.sleep(600)", "")
    done = subprocess.run(
        [sys.executable, "-c", quick, *map(str, arguments)],
        cwd=ROOT, env=ingest_help.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["resumed_parts"], result["predicted"]) == (2, 60)
    assert not parts.exists()


@pytest.mark.integration
def test_a_workers_error_is_one_paragraph(tmp_path, promoted):
    _, workspace, data = promoted
    folder = shutil.copytree(data.folder, tmp_path / "data")
    shard = next((folder / "Split-train").iterdir())
    shard.write_bytes(shard.read_bytes()[:-5])
    done = train_help.run("predict", "idc", "--workspace", workspace, "--input", folder, "--output", tmp_path / "a.csv")
    assert done.returncode == 65 and "is damaged" in done.stderr and "Traceback" not in done.stderr


def test_drift_fails_where_that_is_asked_and_is_told_anyway(tmp_path, monkeypatch, capsys):
    drift = {"text": "The colours have shifted: a lot.", "drifted": ["color/red_mean"], "skipped": "", "unit": "slide"}
    document = {
        "state": "done", "task": "binary", "model_version": "7", "dataset": "idc", "found": 3, "predicted": 2,
        "rejected": 1, "rejects": {"truncated": {"kind": "fault", "count": 1}}, "labelled": 0, "groups": 1,
        "of_training_groups": 0, "warnings": [], "note": "", "files": {"output": "a.csv"},
        "drift": {**drift, "groups": 1},
    }  # fmt: skip
    monkeypatch.setattr(predict, "run", lambda *_: dict(document))
    monkeypatch.setenv("HISTOLINE_RESULT_JSON", str(tmp_path / "result.json"))
    given = ("predict", "idc", "--input", "x", "--output", "a.csv")
    assert invoke(*given) == 0
    assert "WARNING: The colours have shifted: a lot." in capsys.readouterr().out
    told = json.loads((tmp_path / "result.json").read_text())
    assert (told["state"], told["rejected"], told["drift"]["drifted"]) == ("done", 1, ["color/red_mean"])
    code, shown = invoke(*given, "--fail-on-drift", "--json"), capsys.readouterr()
    assert (code, json.loads(shown.out)["drift"]["drifted"]) == (65, ["color/red_mean"])
    assert "--fail-on-drift" in shown.err and "a lot" in shown.err
    assert json.loads((tmp_path / "result.json").read_text())["state"] == "failed"
    document["drift"] |= {"text": "", "drifted": [], "skipped": "no statistics to compare with: model 7 carries none"}
    assert invoke(*given, "--fail-on-drift") == 0
    assert "colours: no statistics to compare with" in capsys.readouterr().out


def test_where_an_administrator_names_data_roots_input_lies_in_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTOLINE_DATA_ROOTS", str(tmp_path / "data"))
    with pytest.raises(UsageError, match="is not in a data root"):
        predict.run("idc", options(input_root=str(tmp_path / "other")), 2, ["--runner=FnApiRunner"])
