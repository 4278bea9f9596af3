"""Metrics of a split: at the stored threshold, per slice, per patient; and what identifies a test split."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from components.datasets.sidecars import digest_of_split
from components.metrics import calibration, point
from components.metrics import summary as s
from components.metrics.bootstrap import BootstrapPlan
from components.metrics.patient_level import patients

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 300)
BINARY = s.ScoredSplit(
    labels=LABELS,
    groups=np.array([f"g{i}" for i in RNG.integers(0, 25, 300)]),
    probability=(RNG.random(300) * 0.5 + LABELS * 0.3).astype(np.float32),
    threshold=0.35,
    magnification=np.where(RNG.random(300) < 0.5, 40, 100),
    tumor_type=np.where(LABELS == 1, "DC", ""),
)
SEVERAL = dataclasses.replace(
    BINARY, labels=np.arange(300) % 3, probability=RNG.dirichlet([1, 1, 1], 300).astype(np.float32), threshold=None
)


def test_intervals_hold_the_point_estimates():
    told = s.with_intervals(BINARY, BootstrapPlan(300))
    assert (told["patches"], told["groups"]) == (300, 25)
    expected = point.binary_metrics(BINARY.labels, BINARY.probability, 0.35)
    for name, value in expected.items():
        figure = told["values"][name]
        assert figure["estimate"] == pytest.approx(value) and figure["low"] <= value <= figure["high"]
    several = s.with_intervals(SEVERAL, BootstrapPlan(300, pool=True))["values"]
    assert several["macro_f1"]["estimate"] == pytest.approx(
        point.multiclass_metrics(SEVERAL.labels, SEVERAL.probability)["macro_f1"]
    )


def test_patients_and_abstaining():
    plan = BootstrapPlan(200, pool=True)
    assert s.patient_level(BINARY, plan) == {}  # patients here have patches of both labels
    assert s.patient_level(dataclasses.replace(BINARY, groups=np.arange(300)), plan) == {}  # that says nothing new
    one = dataclasses.replace(BINARY, groups=np.char.add(BINARY.groups, LABELS.astype(str)))
    told = s.patient_level(one, plan)
    whole = patients(LABELS, BINARY.probability, one.groups)
    assert told["groups"] == len(whole.names) and told["patches"] == 300
    for name, value in point.binary_metrics(whole.labels, whole.probability, 0.35).items():
        assert told["values"][name]["estimate"] == pytest.approx(value, nan_ok=True)
    kept = s.selective(SEVERAL, plan)
    figures = point.multiclass_metrics(SEVERAL.labels, SEVERAL.probability)
    assert kept["rows"][0]["error"] == pytest.approx(1 - figures["accuracy"])
    assert kept["aurc"]["low"] < kept["aurc"]["estimate"] < kept["aurc"]["high"] and "macro_f1" in kept["rows"][3]
    values = s.with_intervals(BINARY, plan)["values"]
    assert values["patient_weighted_auc"]["low"] is not None and "mcc" in s.with_intervals(SEVERAL, plan)["values"]


def test_slices_use_the_stored_threshold_and_skip_what_says_nothing():
    found = {(one["by"], one["value"]): one for one in s.slices(BINARY, ["benign", "malignant"])}
    labels, scales = ("benign", "malignant"), ("40", "100")
    assert set(found) == {*(("label", one) for one in labels), *(("magnification", one) for one in scales)}
    rows = BINARY.magnification == 40
    expected = point.binary_metrics(LABELS[rows], BINARY.probability[rows], 0.35)
    assert found["magnification", "40"]["metrics"]["f1"] == expected["f1"]
    assert found["magnification", "40"]["patches"] == rows.sum()
    assert found["label", "malignant"]["metrics"]["sensitivity"] == pytest.approx(
        float((BINARY.probability[LABELS == 1] >= np.float32(0.35)).mean())
    )
    assert len(s.slices(SEVERAL, ["a", "b", "c"])) == 5


def test_recognition_rates_where_magnifications_are_known():
    assert set(s.recognition(BINARY, BootstrapPlan(100))) == {"40", "100", "all"}
    assert s.recognition(dataclasses.replace(BINARY, magnification=np.full(300, -1)), BootstrapPlan(100)) == {}
    assert (SEVERAL.predicted == SEVERAL.probability.argmax(axis=1)).all()


def test_per_group_and_calibration():
    assert s.per_group(BINARY)["patches"]["groups"] == 25
    told = s.calibration({"test": BINARY}, 2.0, 0.5)
    plain = calibration.undo_calibration(BINARY.probability, 2.0, 0.5)
    assert told["served"]["test"]["brier"] == pytest.approx(point.brier(LABELS, BINARY.probability))
    assert told["uncalibrated"]["test"]["log_loss"] == pytest.approx(point.log_loss(LABELS, plain))
    old = s.calibration({"test": SEVERAL}, None, None)  # a model that has neither
    assert old["served"]["test"]["ece"] == pytest.approx(old["uncalibrated"]["test"]["ece"], abs=1e-6)


def test_a_test_split_is_what_it_holds_not_how_it_is_stored():
    def table(order, **change):
        columns = {
            "patch_id": ["a", "b", "c"], "group_id": ["g", "g", "h"], "label": [0, 1, 1],
            "pixel_hash": [b"1" * 16, b"2" * 16, b"3" * 16], **change,
        }  # fmt: skip
        return pa.table({name: [values[i] for i in order] for name, values in columns.items()})

    digest = digest_of_split(table([0, 1, 2]))
    assert digest_of_split(table([2, 0, 1])) == digest
    for change in ({"label": [0, 1, 0]}, {"group_id": ["g", "h", "h"]}, {"pixel_hash": [b"1" * 16] * 3}):
        assert digest_of_split(table([0, 1, 2], **change)) != digest
    assert digest_of_split(table([0, 1])) != digest
