"""runs/index.html: newest first, the champion marked, links that lead to pages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from components.promotion import publish
from components.report import index, page
from tests.support.report_help import Studio


@pytest.fixture
def studio(binary: Studio, tmp_path: Path) -> Studio:
    return Studio(Path(shutil.copytree(binary.root, tmp_path / "w")), binary.data)


def test_newest_first_champion_marked_links_lead_to_pages(studio: Studio) -> None:
    page.write(studio.storage, "runs/idc/binary/good")
    studio.begun("failed", state="failed", error={"stage": "train", "exit_code": 65, "message": "<b>no</b> number"})
    (family,), broken = index.families(studio.storage)
    created = [line.created for line in family.lines]
    assert created == sorted(created, reverse=True) and broken == []
    marks = {line.run_id: (line.verdict, line.champion, line.page) for line in family.lines}
    assert marks == {
        "good": ("promoted", True, "idc/binary/good/report/index.html"),
        "poor": ("refused", False, ""),
        "failed": ("failed", False, ""),
    }
    text = (studio.root / index.write(studio.storage)).read_text(encoding="utf-8")
    (link,) = re.findall(r'href="([^#"]+)"', text)
    assert (studio.root / "runs" / link).is_file()
    assert "<b>" not in text and "<svg" in text and page.CSP.replace("'", "&#39;") in text


def test_a_rollback_marks_the_run_whose_model_is_served(studio: Studio) -> None:
    publish.promote(studio.storage, "runs/idc/binary/poor", reason="to see", clock=lambda: 1_800_000_000.0)
    (family,), _ = index.families(studio.storage)
    assert [line.run_id for line in family.lines if line.champion] == ["poor"] and "by hand" in family.served
    publish.rollback(studio.storage, "idc", "binary", reason="enough", clock=lambda: 1_900_000_000.0)
    (family,), _ = index.families(studio.storage)
    assert [line.run_id for line in family.lines if line.champion] == ["good"]
    assert "version 1700000000 again" in family.served


def test_unchanged_runs_are_folded_and_long_names_are_short(studio: Studio) -> None:
    long = "asset_triggered__2026-11-24T04-44-02.381511-00-00_RZDzsmgl-dd2e6019ddf9"
    studio.begun(long, state="done", decision="unchanged", reason="Unchanged: data, recipe and code are those of good.")
    (family,), _ = index.families(studio.storage)
    assert [line.run_id for line in family.unchanged] == [long]
    assert {line.run_id for line in family.told} == {"good", "poor"}
    text = (studio.root / index.write(studio.storage)).read_text(encoding="utf-8")
    table, _, folded = text.partition("<details>")
    assert long not in table
    assert f'title="{long}">asset_triggered__2026-11-…6019ddf9<' in folded
    assert 'class="is-promoted main"' in table and 'class="is-refused"' in table


def test_runs_on_synthetic_data_carry_a_chip(studio: Studio) -> None:
    chip = '<span class="badge drawn">synthetic data</span>'
    assert chip not in (studio.root / index.write(studio.storage)).read_text(encoding="utf-8")
    studio.begun("drawn", state="done", decision="refused", reason="Refused.", drawn=True)
    assert (studio.root / index.write(studio.storage)).read_text(encoding="utf-8").count(chip) == 1


def test_damaged_records_are_named_and_do_no_harm(studio: Studio) -> None:
    (studio.root / "runs/idc/binary/poor/run.json").write_text("{")
    families, broken = index.families(studio.storage)
    assert [line.run_id for line in families[0].lines] == ["good"] and broken == ["runs/idc/binary/poor"]
    assert "damaged" in (studio.root / index.write(studio.storage)).read_text(encoding="utf-8")


def test_an_empty_workspace(tmp_path: Path) -> None:
    from components.storage.open import open_storage

    storage = open_storage(tmp_path)
    assert "No run yet" in storage.read_bytes(index.write(storage)).decode()
