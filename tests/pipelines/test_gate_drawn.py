"""What the gate makes of synthetic images, and of data that have nobody in common with those before."""

from __future__ import annotations

import pytest

from components.datasets import manifest as manifests
from components.errors import UsageError
from components.promotion import champion as champions
from components.promotion import find_model, publish

pytestmark = pytest.mark.integration


def test_a_model_of_synthetic_images_never_replaces_one_of_real_ones(shop):
    shop.train("real", noise=1.0)
    shop.edit_manifest(drawn=True)
    shop.fresh()
    folder = shop.run("synthetic")
    record = shop.evaluate(folder)
    assert (record.decision, record.code, record.drawn) == ("refused", "drawn_data", True)
    assert "synthetic" in record.reason and shop.push(folder) is None
    with pytest.raises(UsageError, match="not by hand either"):
        publish.promote(shop.storage, folder, reason="I want it")
    assert shop.champion["run_id"] == "real" and not shop.champion["drawn"]


def test_a_synthetic_champion_is_marked_and_no_rollback_brings_it_back_over_a_real_one(shop):
    shop.edit_manifest(drawn=True)
    record, version = shop.train("synthetic", noise=1.0)
    assert record.decision == "promoted" and record.drawn and shop.champion["drawn"]
    assert record.gate.checks[0]["code"] == "drawn_data" and record.gate.checks[0]["passed"]
    assert champions.DRAWN in (shop.home / str(version) / "README.md").read_text()
    assert find_model.champion_model(shop.storage, "idc", "binary").caveat == champions.DRAWN
    assert find_model.model_folder(str(shop.root / "runs/idc/binary/synthetic/model")).drawn
    shop.edit_manifest(drawn=False)
    shop.fresh()
    record, _ = shop.train("real")
    assert record.decision == "promoted" and any(champions.DRAWN in text for text in record.warnings)
    with pytest.raises(UsageError, match="on real ones"):
        publish.rollback(shop.storage, "idc", "binary", reason="back")
    assert shop.champion["run_id"] == "real"


def test_that_no_patient_is_shared_with_the_data_before_is_part_of_the_decision(shop):
    said = manifests.shares_nobody("patient", "0123456789abcdef")
    shop.edit_manifest(warnings=[said])
    record, _ = shop.train("first")
    assert record.decision == "promoted" and record.reason.endswith(said) and record.gate.reason == record.reason
