"""Synthetic images keep their mark from `synth` to the manifest, and don't take the place of real ones unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.adapters import drawn_mark
from components.adapters.listing import fingerprint_folder, list_images
from components.datasets import manifest as manifests
from components.errors import UsageError
from pipelines.synthetic.draw import generate
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree that stands for real images."""
    root = tmp_path_factory.mktemp("raw")
    trees.idc_tree(root, 8, 2)
    return root


def mark(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / drawn_mark.NAME).write_text(drawn_mark.content({}))


def test_synth_leaves_the_mark_and_equal_arguments_equal_bytes(tmp_path):
    for name in ("a", "b"):
        generate("idc", tmp_path / name, patches=4, groups=2, workers=1)
    first, second = ((tmp_path / name / drawn_mark.NAME).read_bytes() for name in ("a", "b"))
    assert first == second and json.loads(first)["says"] == drawn_mark.SAYS
    assert list_images(str(tmp_path), {".png"}).drawn


@pytest.mark.parametrize("place", [".", "deep/below", "..", ".hidden"])
def test_the_mark_is_found_and_changes_neither_fingerprint_nor_plan_id(tmp_path, place):
    root = tmp_path / "around/raw"
    trees.idc_tree(root, 8, 2)
    plain, prints = list_images(str(root), {".png"}), fingerprint_folder(str(root), {".png"})
    before = ingest(root, tmp_path / "w").manifest
    mark(root / place)
    found = list_images(str(root), {".png"})
    assert found.drawn and not plain.drawn and found.ignored == plain.ignored
    assert found.fingerprint == plain.fingerprint == prints == fingerprint_folder(str(root), {".png"})
    after = ingest(root, tmp_path / "other").manifest
    assert after.drawn and not before.drawn
    assert (after.plan_id, after.content_digest) == (before.plan_id, before.content_digest)
    assert after.to_document()["drawn"] is True
    assert "drawn" not in before.to_document() and b'"drawn"' not in manifests.dump(before)


def test_synthetic_images_become_the_latest_over_real_ones_only_where_that_is_meant(tmp_path, raw):
    workspace = tmp_path / "w"
    real = ingest(raw, workspace)
    drawn = tmp_path / "drawn"
    trees.idc_tree(drawn, [str(n) for n in range(100, 108)], 2)
    mark(drawn)
    latest = workspace / "datasets/idc/binary/latest.json"
    before = latest.read_bytes()
    with pytest.raises(UsageError) as refused:
        ingest(drawn, workspace)
    assert real.plan_id in str(refused.value) and "--drawn-over-real" in refused.value.fix
    assert latest.read_bytes() == before and help.dataset_dirs(workspace) == [real.folder], "before anything is written"
    assert not ingest(drawn, workspace, max_per_class=8).is_latest, "what moves no pointer is taken"
    meant = ingest(drawn, workspace, drawn_over_real=True)
    assert meant.is_latest and meant.manifest.drawn
    assert ingest(drawn, workspace, seed=1).is_latest, "over synthetic ones nothing is asked"
    assert ingest(raw, workspace, seed=2).is_latest, "nor of real ones"


def test_a_data_set_that_shares_no_patient_with_the_one_before_says_so(tmp_path, raw):
    workspace = tmp_path / "w"
    first = ingest(raw, workspace)
    assert first.manifest.shares_nobody == ""
    trees.idc_tree(tmp_path / "strangers", [str(n) for n in range(100, 108)], 2)
    strangers = ingest(tmp_path / "strangers", workspace)
    said = strangers.manifest.shares_nobody
    assert f"no patient with {first.plan_id}" in said and said in strangers.manifest.warnings
    trees.idc_tree(tmp_path / "strangers", ["200"], 2)
    assert ingest(tmp_path / "strangers", workspace).manifest.shares_nobody == ""
