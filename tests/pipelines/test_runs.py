"""`histoline runs`: what a terminal, a script and a browser are given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from components.errors import UsageError
from pipelines.runs import command
from tests.support.report_help import Studio


def call(studio: Studio, *words: str) -> Result:
    return CliRunner().invoke(command, [*words, "--workspace", str(studio.root)])


def test_list_narrows_and_marks_the_champion(evaluated: Studio) -> None:
    text = call(evaluated, "list").stdout
    assert text.index("poor") < text.index("good"), "newest first"
    assert "promoted, champion" in text and "refused" in text
    found = json.loads(call(evaluated, "list", "idc", "--outcome", "refused", "--json").stdout)
    assert [line["run_id"] for line in found] == ["poor"]
    assert "No such run" in call(evaluated, "list", "breakhis").stdout
    assert isinstance(call(evaluated, "list", "--outcome", "lost").exception, UsageError)


def test_a_damaged_run_is_told_and_the_others_listed(evaluated: Studio, tmp_path: Path) -> None:
    studio = Studio(Path(shutil.copytree(evaluated.root, tmp_path / "w")), evaluated.data)
    (studio.root / "runs/idc/binary/good/run.json").write_text("{")
    done = call(studio, "list")
    assert "runs/idc/binary/good: its run.json is damaged" in done.stderr and "poor" in done.stdout


def test_show_gives_reason_figures_and_recipe(evaluated: Studio) -> None:
    text = call(evaluated, "show", "good").stdout
    assert "promoted" in text and "AUC" in text and "gate.n_resamples" in text and str(evaluated.root) in text
    assert json.loads(call(evaluated, "show", "good", "--json").stdout)["run_id"] == "good"
    assert isinstance(call(evaluated, "show", "nobody").exception, UsageError)


def test_compare_in_all_three_forms(evaluated: Studio, tmp_path: Path) -> None:
    text = call(evaluated, "compare", "good", "poor").stdout
    assert "worse" in text and "Against good, on the same patients" in text and "The recipes are the same" in text
    page = tmp_path / "both.html"
    result = json.loads(call(evaluated, "compare", "poor", "good", "--page", str(page), "--json").stdout)
    difference = result["differences"][0]["result"]["difference"]
    assert 0 < difference["low"] < difference["estimate"] < difference["high"] and result["page"] == str(page)
    assert "better" in page.read_text(encoding="utf-8")
    missing = call(evaluated, "compare", "poor", "good", "--page", str(tmp_path / "no" / "both.html")).exception
    assert isinstance(missing, UsageError)


@pytest.mark.parametrize("words", [[], ["good"], ["good", "../poor"]])
def test_wrong_usage(evaluated: Studio, words: list[str]) -> None:
    assert isinstance(call(evaluated, "compare", *words).exception, UsageError)
