"""RUN_IDs of DAG runs."""

from __future__ import annotations

import re

import pytest

from histoline_dags.ids import run_id

PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@pytest.mark.parametrize(
    "dag_run_id",
    [
        "manual__2026-11-21T10:00:00+00:00",
        "asset_triggered__2026-11-21T10:00:00.123456+00:00_xYz",
        "x" * 250,
        "../../etc/passwd",
        "..",
        "-",
        "",
        "<script>alert(1)</script>",
        "läuft\n",
        "a" * 79 + "-" + "b",
        "\ud800",
    ],
)
def test_matches_the_pipelines_pattern(dag_run_id: str) -> None:
    made = run_id("idc_train", dag_run_id)
    assert PATTERN.fullmatch(made), made
    assert made == run_id("idc_train", dag_run_id)


def test_ids_that_share_a_slug_stay_apart() -> None:
    ids = ["a:b", "a+b", "a-b", "x" * 90, "x" * 91]
    made = {run_id(dag, one) for dag in ("idc_train", "idc_ingest") for one in ids}
    assert len(made) == 10


@pytest.mark.parametrize(
    ("dag_run_id", "readable"),
    [
        ("manual__2026-11-21T10:00:00+00:00", "20261121-100000-manual-"),
        ("asset_triggered__2026-11-24T04:44:02.381511+00:00_RZDzsmgl", "20261124-044402-data-"),
        ("scheduled__2026-11-22T03:00:00+00:00", "20261122-030000-scheduled-"),
        ("manual__2026-11-21", "manual__2026-11-21-"),
        ("the one for the paper", "the-one-for-the-paper-"),
    ],
)
def test_is_readable(dag_run_id: str, readable: str) -> None:
    made = run_id("idc_train", dag_run_id)
    assert made.startswith(readable) and len(made) == len(readable) + 8


def test_runs_of_one_second_stay_apart() -> None:
    ids = [f"asset_triggered__2026-11-24T04:44:02.{part}+00:00_abc" for part in ("381511", "381512")]
    assert len({run_id("idc_train", one) for one in ids}) == 2
