"""`histoline report`: pages and index from the command line, without TensorFlow, TFX or Beam."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.training import run_record, run_types
from pipelines import stages
from tests.support import train_help
from tests.support.cli_help import invoke
from tests.support.report_help import Studio

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def studio(evaluated: Studio, tmp_path: Path) -> Studio:
    return Studio(Path(shutil.copytree(evaluated.root, tmp_path / "w")), evaluated.data)


def test_one_run_and_all_runs_without_tensorflow(studio: Studio, tmp_path: Path) -> None:
    path = train_help.no_tfx(tmp_path / "none")
    done = train_help.run("report", "good", "--workspace", studio.root, "--json", path=path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["reports"] == [str(studio.root / "runs/idc/binary/good/report/index.html")]
    assert all(Path(file).is_file() for file in (*result["reports"], result["index"]))
    assert studio.record("runs/idc/binary/good").report == "runs/idc/binary/good/report/index.html"
    done = train_help.run("report", "--all", "--workspace", studio.root, path=path)
    assert done.returncode == 0 and len(done.stdout.split()) == 3, done.stderr


def test_a_damaged_run_does_not_keep_the_others_from_their_pages(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    (studio.root / "runs/idc/binary/good/run.json").write_text("{")
    assert invoke("report", "--all", "--workspace", studio.root) == 65
    assert "good" in capsys.readouterr().err
    assert (studio.root / "runs/idc/binary/poor/report/index.html").is_file()
    assert "damaged" in (studio.root / "runs/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [[], ["good", "--all"], ["nobody"], ["../good"]])
def test_wrong_usage(studio: Studio, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert invoke("report", *words, "--workspace", studio.root) == 64
    said = capsys.readouterr()
    assert said.out == "" and said.err.strip()


def test_promotion_and_rollback_rewrite_the_index(studio: Studio) -> None:
    assert invoke("models", "promote", "poor", "--reason", "to <see>", "--workspace", studio.root) == 0
    index = studio.root / "runs/index.html"
    assert "of run poor, promoted by hand" in index.read_text(encoding="utf-8")
    page = (studio.root / "runs/idc/binary/poor/report/index.html").read_text(encoding="utf-8")
    assert "promoted by hand" in page and "to &lt;see&gt;" in page
    assert invoke("models", "rollback", "idc", "--reason", "enough", "--workspace", studio.root) == 0
    assert "of run good, version 1700000000 again" in index.read_text(encoding="utf-8")


def stages_until(studio: Studio, folder: str, last: str) -> None:
    """Marks the stages up to `last` as done."""
    for name in run_types.STAGES[: run_types.STAGES.index(last) + 1]:
        with run_record.stage(studio.storage, folder, name):
            pass


def test_the_report_stage_makes_the_page(studio: Studio) -> None:
    stages_until(studio, "runs/idc/binary/good", "push")
    stages.Run(studio.storage, "runs/idc/binary/good", print).stage("report")
    record = studio.record("runs/idc/binary/good")
    assert record.state == "done" and stages.result(studio.storage, record)["report"] == str(
        studio.root / "runs/idc/binary/good/report/index.html"
    )


def test_a_run_that_fails_has_a_page_with_the_reason(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = studio.begun("broken")
    stages_until(studio, folder, "validate")
    run = stages.Run(studio.storage, folder, print)

    def fail(_: str) -> None:
        raise ValueError("the <reason>")

    monkeypatch.setattr(run, "_run_nodes", fail)
    with pytest.raises(ValueError, match="the <reason>"):
        run.stage("train")
    page = (studio.root / folder / "report/index.html").read_text(encoding="utf-8")
    assert "Failed in train (exit 70): the &lt;reason&gt;" in page
    assert "broken" in (studio.root / "runs/index.html").read_text(encoding="utf-8")
    # A page that can't be made must not hide what failed.
    monkeypatch.setattr(run, "_report", lambda: fail(""))
    monkeypatch.setattr(run, "_run_nodes", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.stage("train")


@pytest.mark.integration
def test_what_is_installed_holds_templates_and_stylesheet(tmp_path: Path) -> None:
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns("__pycache__", ".*", "tests", "benchmarks", "workspace", "build", "*.egg-info")
    shutil.copytree(train_help.ROOT, source, ignore=skipped)
    out = tmp_path / "out"
    build = [sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(out)]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home = out / "components" / "report"
    there = {path.relative_to(home).as_posix() for path in home.rglob("*.*")}
    assert {"published.json", *(f"templates/{name}" for name in ("report.html", "index.html", "style.css"))} <= there
