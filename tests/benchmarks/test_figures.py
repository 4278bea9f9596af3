"""docs/figures.md is what benchmarks/figures.py makes of the committed results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import common  # noqa: E402
import figures  # noqa: E402


def test_the_committed_page_follows_from_the_committed_results() -> None:
    assert figures.PAGE.read_text(encoding="utf-8") == figures.page(figures.figures())


def test_a_changed_result_changes_the_page() -> None:
    found = figures.figures()
    name = next(iter(found))
    changed = found | {name: found[name] | {"value": "41.5 s"}}
    assert figures.page(changed) != figures.page(found)
    assert "41.5 s" in figures.page(changed)


def test_every_figure_says_when_where_and_on_which_commit() -> None:
    for name, figure in figures.figures().items():
        assert {"what", "value", "date", "commit", "machine"} <= figure.keys(), name


def test_a_measurement_replaces_its_own_figure_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"what": "w", "value": "1", "date": "2020-01-01", "commit": "abc", "machine": "m", "carried": "by hand"}
    file = tmp_path / "results" / "bench.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"report/1": old, "report/2": old}), encoding="utf-8")
    monkeypatch.setattr(common, "FIGURES", {})
    monkeypatch.setattr(common, "commit", lambda: "1234567")
    monkeypatch.setattr(common, "LOAD_AT_START", 99.0)
    common.figure("report/2", "w", "2")
    common.leave_figures(str(file))
    left = figures.figures(file.parent)
    assert left["report/1"] == old
    assert left["report/2"]["value"] == "2"
    assert left["report/2"]["commit"] == "1234567"
    assert "carried" not in left["report/2"]
    page = figures.page(left)
    assert "| w | 1 † | 2020-01-01, abc, m |" in page
    assert "| w | 2 | " in page
    assert "load average 99.0 at the start |" in page


def test_a_figure_of_no_section_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"nothing/1": {}}', encoding="utf-8")
    with pytest.raises(SystemExit, match="nothing/1"):
        figures.figures(tmp_path)
