"""The parts of a report: gallery, pixels, maps, measures, figures, lineage."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.metrics import calibration
from components.metrics import point as m
from components.metrics.bootstrap import BootstrapPlan
from components.promotion import error_maps
from components.promotion.error_maps import Control, ErrorMaps
from components.promotion.worst_errors import worst_errors
from components.report import dataset_card, figures, gallery, heat, lineage, measures, page, pixels, slides
from components.report.evidence import Evidence, align, collect
from tests.support import manifests, report_help
from tests.support.report_help import Studio


def test_the_gallery_counts_what_the_confusion_matrix_counts(poor: Evidence) -> None:
    assert poor.test is not None
    panels = gallery.binary(poor, 4)
    counts = m.confusion_matrix(poor.test.labels, poor.test.predicted(poor.threshold), 2)
    assert [panel.total for panel in panels] == [counts[0, 1], counts[1, 0], counts[1, 1], counts[0, 0]]
    for panel, rising in zip(panels[:2], (False, True)):
        scores = [shown.score for shown in panel.patches]
        assert scores == sorted(scores, reverse=not rising)
    cut = np.float32(poor.threshold or 0)
    called = [[shown.score >= cut for shown in panel.patches] for panel in panels]
    assert all(called[0]) and not any(called[1]) and all(called[2]) and not any(called[3])


def test_subtype_panels_partition_the_test_split(types: Evidence) -> None:
    assert types.test is not None
    panels = gallery.multiclass(types, 2)
    assert sum(panel.total for panel in panels) == len(types.test)
    assert all(1 <= len(panel.patches) <= 2 for panel in panels)


def test_pixels_are_those_of_the_raw_file(binary: Studio, poor: Evidence) -> None:
    assert poor.test is not None
    rows = [0, len(poor.test) - 1]
    images = pixels.DatasetImages(binary.storage, binary.dataset_dir)
    shards, offsets = (poor.test.facts[name][rows].tolist() for name in ("shard", "offset"))
    for row, stored in zip(rows, images.pixels(shards, offsets), strict=True):
        assert stored is not None
        picture = pixels.picture(stored)
        shown = np.asarray(Image.open(io.BytesIO(b64decode(picture.uri.partition(",")[2]))))
        patch = next(p for p in binary.data.patches if p["patch_id"] == poor.test.patch_id[row])
        assert np.array_equal(shown, np.asarray(Image.open(binary.root.parent / "raw" / patch["path"])))


def test_errors_stand_beside_where_the_model_looked(poor: Evidence, types: Evidence) -> None:
    corner = np.zeros((10, 10), np.uint8)
    corner[1, 8] = 255
    for evidence, panels_of in ((poor, gallery.binary), (types, gallery.multiclass)):
        assert evidence.test is not None and evidence.error_maps is None
        test = evidence.test
        kinds = worst_errors(test.labels, test.groups, test.probability, evidence.threshold, 2)
        maps = {(str(test.patch_id[row]), kind.called): corner for kind in kinds for row in kind.worst}
        explained = dataclasses.replace(evidence, error_maps=ErrorMaps(maps, Control(0.25, 24, 3)))
        shown = [one for panel in panels_of(explained, 2) for one in panel.patches]
        with_map = [one for one in shown if one.heat]
        assert len(with_map) == len(maps) < len(shown)
        assert all(one.heat_alt.startswith(f"Grad-CAM of {one.patch_id} for ") for one in with_map)
        assert all(one.heat_alt.endswith("strongest at the top right") for one in with_map)
        text = page.render(explained)
        assert text.count('class="explained"') == len(maps) and "Grad-CAM" not in page.render(evidence)
        assert "rank correlation with the maps shown is 0.25" in text and "Do not read them" not in text
        blind = dataclasses.replace(evidence, error_maps=ErrorMaps(maps, Control(0.9, 24, 3)))
        assert "Do not read them" in page.render(blind)


def test_a_map_colours_where_it_is_high() -> None:
    share = np.zeros((4, 4), np.uint8)
    share[:, 3] = 255
    made = heat.heat_picture(np.full((40, 40, 3), 100, np.uint8), share)
    shown = np.asarray(Image.open(io.BytesIO(b64decode(made.uri.partition(",")[2]))).convert("RGB")).astype(int)
    assert np.abs(shown[:, :10] - 100).max() <= 4 and (shown[:, -2:, 0] - shown[:, -2:, 2] > 60).all()
    large = heat.heat_picture(np.zeros((230, 350, 3), np.uint8), share)
    assert (large.width, large.height) == (112, 74) and len(large.uri) < 16_000
    assert heat.strongest(np.zeros((4, 4), np.uint8)) == "nothing in the patch spoke for it"


def test_damaged_maps_are_no_maps(binary: Studio, tmp_path: Path) -> None:
    root = Path(shutil.copytree(binary.root, tmp_path / "w"))
    file = root / "runs/idc/binary/poor" / error_maps.NAME
    file.write_bytes(b"PAR1 no table")
    assert collect(report_help.open_storage(root), "runs/idc/binary/poor").error_maps is None


def test_large_patches_are_made_smaller() -> None:
    made = pixels.picture(np.zeros((300, 700, 3), np.uint8))
    assert made.uri.startswith("data:image/jpeg") and max(made.width, made.height) == pixels.MAX_SIDE


def test_maps_begin_with_the_worst_and_end_with_the_best(poor: Evidence, types: Evidence) -> None:
    found = slides.slide_maps(poor, worst=3, best=2)
    assert found is not None and poor.test is not None and found.total == len(set(poor.test.groups))
    right = [one.right for one in found.maps]
    assert right[:3] == sorted(right[:3]) and right[3:] == sorted(right[3:], reverse=True)
    assert [one.best for one in found.maps] == [False] * 3 + [True] * 2
    assert min(right[3:]) >= max(right[:3])
    assert slides.slide_maps(types) is None


def test_the_headline_agrees_with_the_metrics(poor: Evidence) -> None:
    rows = {row.name: row for row in measures.headline(poor, page.published("idc", "binary"))}
    assert poor.test is not None and poor.threshold is not None
    told = m.binary_metrics(poor.test.labels, poor.test.probability, poor.threshold)
    for name in ("auc", "sensitivity", "ppv", "brier"):
        assert rows[name].interval["estimate"] == pytest.approx(told[name], abs=1e-6)
    # A model without a stored threshold has no figures that need one.
    assert rows["auc"].rivals["baseline"] is not None and rows["sensitivity"].rivals["baseline"] is None
    assert rows["sensitivity"].rivals["champion"] is not None
    assert rows["f1"].published == ((1, 0.718), (2, 0.7648)) and rows["auc"].published == ()
    ece = calibration.expected_calibration_error(poor.test.labels, poor.test.probability)
    assert rows["ece"].interval["estimate"] == pytest.approx(ece)
    assert rows["ece"].interval["low"] < rows["ece"].interval["high"]


def test_the_interval_of_ece_comes_from_repeated_patients(poor: Evidence) -> None:
    assert poor.test is not None
    one = measures.ece_interval(poor.test, BootstrapPlan(resamples=300, seed=1))
    # Every patient doubled: the same resamples give the same figures.
    twice = dataclasses.replace(
        poor.test,
        **{name: np.repeat(getattr(poor.test, name), 2) for name in ("patch_id", "groups", "labels", "probability")},
    )
    two = measures.ece_interval(twice, BootstrapPlan(resamples=300, seed=1))
    assert one["low"] == pytest.approx(two["low"]) and one["high"] == pytest.approx(two["high"])


def test_groups_that_the_champion_saw_are_left_out_of_its_column(binary: Studio, tmp_path: Path) -> None:
    root = Path(shutil.copytree(binary.root, tmp_path / "w"))
    file = root / "models/idc/binary/1700000000/assets.extra/train_groups.json"
    test_group = next(group for group, split in binary.data.splits.items() if split == "test")
    file.write_text(json.dumps([*json.loads(file.read_text()), test_group]))
    evidence = collect(report_help.open_storage(root), "runs/idc/binary/poor")
    rival = evidence.rivals["champion"]
    assert rival.left_out == 1 and evidence.test is not None
    assert (rival.usable == (evidence.test.groups != test_group)).all()
    assert "was trained on 1 of the test patients" in page.render(evidence)
    file.unlink()
    assert "champion" not in collect(report_help.open_storage(root), "runs/idc/binary/poor").rivals


def test_slices_are_worst_first_and_complete(poor: Evidence, types: Evidence) -> None:
    tables = {table.by: table for table in measures.slice_tables(poor)}
    assert list(tables) == ["patient", "class"]
    rows = tables["patient"].rows
    assert [row.right for row in rows] == sorted(row.right for row in rows)
    assert poor.test is not None and sum(row.patches for row in rows) == len(poor.test)
    assert {table.by for table in measures.slice_tables(types)} == {"patient", "class", "tumour type"}
    # Where all patches are of one class, a precision would say nothing of the model.
    assert tables["class"].columns == () and "ppv" in tables["patient"].columns
    images = dataclasses.replace(poor, record=dataclasses.replace(poor.record, group_unit="image"))
    assert [table.by for table in measures.slice_tables(images)] == ["class"]
    assert measures.slice_tables(poor, limit=1)[0].total == tables["patient"].total


def test_the_data_set_card_reconciles(binary: Studio, poor: Evidence) -> None:
    card = dataset_card.card(poor)
    assert card is not None
    *classes, whole = card.rows
    for i in range(3):
        assert sum(counts[i][0] for _, counts in classes) == whole[1][i][0]
    (rejected,) = card.rejects
    assert (rejected.code, rejected.kind, rejected.count, len(rejected.thumbnails)) == ("too_narrow", "fault", 1, 1)


def test_patch_size_in_micrometres() -> None:
    known = manifests.manifest(microns_per_pixel=0.972, source_size=(96, 96))
    assert dataset_card.patch_size(known).startswith("93.3 x 93.3 µm")
    unknown = manifests.manifest(microns_per_pixel=None, source_size=(5, 4))
    assert dataset_card.patch_size(unknown) == "unknown (5 x 4 pixels)"


def test_figures_take_the_pages_colours_and_repeat() -> None:
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.3], np.float32)
    curves = [("this $x$ <run>", scores, np.ones(4, bool))]
    svg = figures.roc("a", labels, curves, 0.35)
    assert svg == figures.roc("a", labels, curves, 0.35)
    assert "var(--c1)" in svg and "#0" not in svg.replace('"#a-', "").replace("url(#a-", "")
    assert "this $x$ &lt;run&gt;, AUC 0.750" in svg and 'role="img" aria-label="ROC' in svg
    for empty in (np.zeros(0, int), np.ones(3, int)):
        p = np.full(len(empty), 0.5, np.float32)
        only = [("m", p, np.ones(len(empty), bool))]
        for draw in (figures.roc, figures.precision_recall):
            assert draw("b", empty, only, 0.5).startswith("<svg")
        bins = calibration.reliability_bins(empty, p)
        assert figures.calibration("c", bins, bins, "P").startswith("<svg")
        assert figures.histogram("d", empty, p, ["a", "b"], 0.5).startswith("<svg")


def test_lineage_goes_from_raw_to_version(binary: Studio) -> None:
    links = lineage.lineage(collect(binary.storage, "runs/idc/binary/good"))
    assert [link.title for link in links][::6] == ["Raw patches", "Pushed version"]
    assert links[0].place == str(binary.root.parent / "raw") and links[-1].place == "models/idc/binary/1700000000"
    assert dict(links[1].digests)["content"] == binary.manifest.content_digest


def test_configuration_is_flattened() -> None:
    told = dict(lineage.flatten({"a": {"b": 1}, "phases": [{"epochs": 2}], "c": [1, 2], "d": None, "e": {}}))
    assert told == {"a.b": "1", "phases.0.epochs": "2", "c": "1, 2", "d": "none", "e": "{}"}


@given(st.lists(st.text(max_size=3), unique=True, max_size=8), st.data())
def test_rows_are_found_by_name(names: list[str], data: st.DataObject) -> None:
    wanted = data.draw(st.permutations(names))
    order = align(np.array(names, object), np.array(wanted, object))
    assert order is not None and [names[i] for i in order] == wanted
    assert align(np.array(names, object), np.array([*wanted, "longer than any"], object)) is None
