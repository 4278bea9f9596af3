"""Drift of what is scored: told of a scanner, not of patients; the same however the patches are cut into parts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from components.metrics import drift, scored_drift
from components.metrics.scored_drift import WHOLE, ColourSums
from schemas.tables import COLOUR_COLUMNS

EOSIN = COLOUR_COLUMNS.index("color/eosin_od")


def patches(seed: int, patients: int, shift: float = 0.0, first: int = 0) -> tuple[list[str], np.ndarray]:
    """Five patches of each patient: patients differ by 10, patches of one by 5; `shift` is added to eosin."""
    rng = np.random.default_rng(seed)
    own = np.repeat(rng.normal(150, 10, (patients, len(COLOUR_COLUMNS))), 5, axis=0)
    own[:, EOSIN] += shift
    return [f"p{first + i // 5}" for i in range(5 * patients)], own + rng.normal(0, 5, own.shape)


def statistics(seed: int = 0, patients: int = 60, **facts: str) -> dict:
    names, features = patches(seed, patients)
    means = drift.group_means(names, ["train"] * len(names), features)
    return json.loads(json.dumps(drift.statistics(means, {"group_unit": "patient", **facts})))


def sums(names: list[str], features: np.ndarray) -> ColourSums:
    made = ColourSums()
    made.add(names, features)
    return made


@pytest.mark.parametrize("patients", [1, 2, 4, 12, 40])
def test_patients_are_no_drift(patients: int) -> None:
    then = statistics()
    for seed in range(1, 20):
        names, features = patches(seed, patients, first=1000)
        assert not any(shift.drifted for shift in scored_drift.compare(sums(names, features), then)), seed


@pytest.mark.parametrize("patients,shift", [(1, 80.0), (4, 35.0), (40, 14.0)])
def test_a_scanner_is_and_alone_in_what_it_changes(patients: int, shift: float) -> None:
    names, features = patches(3, patients, shift, first=1000)
    shifts = scored_drift.compare(sums(names, features), statistics())
    assert [s.feature for s in shifts if s.drifted] == ["color/eosin_od"]
    assert {s.groups for s in shifts} == {patients} and {s.comparison for s in shifts} == {"scored"}


def test_the_same_patients_scanned_anew_are_compared_with_themselves() -> None:
    then = statistics()
    names, features = patches(0, 6, 0.0)
    features[:, EOSIN] += 8.0  # too little to be told of other patients
    found = {(s.comparison, s.feature) for s in scored_drift.compare(sums(names, features), then) if s.drifted}
    assert found >= {("same_groups", "color/eosin_od")} and ("scored", "color/eosin_od") not in found


def test_parts_add_up_in_any_cut() -> None:
    names, features = patches(5, 8)
    whole = sums(names, features)
    cut = sums(names[:13], features[:13])
    cut.add(names[13:], features[13:])
    assert cut.patches == whole.patches == 40
    assert whole.means()[0] == cut.means()[0]
    np.testing.assert_allclose(whole.means()[1], cut.means()[1], rtol=1e-12)
    # The patient is the unit: one with many patches weighs no more than another.
    assert scored_drift.compare(sums(names, features), statistics())[0].groups == 8


def test_where_images_are_groups_each_counts_and_where_nothing_is_known_all_are_one() -> None:
    _, features = patches(7, 40)
    scored = sums([WHOLE] * len(features), features)
    assert scored_drift.compare(scored, statistics(group_unit="image"))[0].groups == 200
    assert scored_drift.compare(scored, statistics())[0].groups == 1


def test_the_report_says_what_and_what_to_do_or_why_nothing_was_compared() -> None:
    names, features = patches(1, 10, 40.0, first=500)
    told = scored_drift.report(sums(names, features), statistics(), "7", "patient")
    assert told["drifted"] == ["color/eosin_od"] and (told["unit"], told["groups"]) == ("patient", 10)
    assert "model 7" in told["text"] and "color/eosin_od in what was scored" in told["text"]
    assert "histoline evaluate" in told["text"] and json.loads(json.dumps(told)) == told
    assert scored_drift.report(None, None, "7")["skipped"] == "no statistics to compare with: model 7 carries none"
    old = scored_drift.report(None, {"format": 0}, "7")
    assert old["skipped"].startswith("no statistics to compare with: those of model 7") and not old["drifted"]
    few = scored_drift.report(sums(names, features), statistics(patients=4), "7")
    assert "4 groups, too few" in few["skipped"] and few["text"] == ""
