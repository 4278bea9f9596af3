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


def test_is_readable() -> None:
    assert run_id("idc_train", "manual__2026-11-21T10:00:00+00:00").startswith("manual__2026-11-21T10-00-00-00-00-")
