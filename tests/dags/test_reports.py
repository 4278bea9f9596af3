"""The Report tab: what it shows of every kind of run, who may read it, and what it refuses to serve."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from page_help import RUN, facts, tab, user, write_run

HOSTILE = "<script>alert(1)</script>\"'"


def test_a_report_is_served_as_it_is_and_can_run_nothing(client: Any, workspace: Path, known: Any) -> None:
    known["idc_train", RUN] = facts()
    folder = write_run(workspace)
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_bytes(b"<!doctype html>the report \xe2\x9c\x93")
    answer = tab(client)
    assert (answer.status_code, answer.text) == (200, "<!doctype html>the report ✓")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox ") and "allow-scripts" not in policy
    for rule in ("default-src 'none'", "img-src data:", "form-action 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/runs/idc/binary/{folder.name}").text == answer.text
    assert client.get(f"/runs/idc/binary/{folder.name}/report/index.html").text == answer.text


def test_a_failed_run_names_fields_of_the_form(client: Any, workspace: Path, known: Any) -> None:
    known["idc_train", RUN] = facts(state="failed")
    said = "Train with --accept-drift REASON."
    folder = write_run(workspace, state="failed", decision=None, error={"stage": "validate", "message": said})
    assert "Train with “Accept a shift of colours because”." in tab(client).text
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text(f"<style>:root{{--ink: #000}}</style>{said}")
    assert "--ink" in tab(client).text and "--accept" not in tab(client).text


@pytest.mark.parametrize(
    ("changes", "airflow", "expected"),
    [
        ({}, {}, ["Promoted as the first model.", "0.980 (0.970 to 0.990)", "2,385 patches of 30 patients"]),
        ({"decision": "refused", "reason": "Refused: below the floors."}, {}, ["Refused: below the floors."]),
        (
            {"state": "running", "stage": "train", "decision": None, "reason": ""},
            {"state": "running"},
            ["Running: train"],
        ),
        (
            {"state": "running", "stage": "train", "decision": None, "updated": "2026-11-21T10:04:00+00:00"},
            {},
            ["Abandoned in train: nobody has worked on it since 2026-11-21 10:04 UTC."],
        ),
        (
            {"state": "failed", "decision": None, "error": {"stage": "validate", "message": "Colour drift."}},
            {},
            ["Failed in validate: Colour drift."],
        ),
        (
            {"state": "running", "decision": None, "reason": ""},
            {"state": "failed", "tasks": {"train": "failed"}, "results": {"train": {"reason": "killed by signal 9"}}},
            ["Failed in train: killed by signal 9"],
        ),
        (
            {"decision": "unchanged", "reason": "Nothing new.", "paths": {"same_as": "runs/idc/binary/earlier-run"}},
            {},
            ["Nothing new.", 'href="/runs/idc/binary/earlier-run"'],
        ),
    ],
)
def test_without_a_report_the_page_says_what_run_json_says(
    client: Any, workspace: Path, known: Any, changes: Any, airflow: Any, expected: list[str]
) -> None:
    known["idc_train", RUN] = facts(**airflow)
    write_run(workspace, **changes)
    answer = tab(client)
    assert answer.status_code == 200
    for text in expected:
        assert text in answer.text


@pytest.mark.parametrize(
    ("airflow", "expected"),
    [
        ({"state": "queued"}, "Waiting for its first task."),
        ({"state": "running"}, "Running: no result yet."),
        (
            {"tasks": {"validate": "skipped"}, "results": {"validate": {"reason": "no data set committed yet"}}},
            "Skipped: no data set committed yet",
        ),
        (
            {"state": "failed", "tasks": {"validate": "failed"}, "results": {"validate": {"reason": "No such recipe"}}},
            "Failed in validate: No such recipe",
        ),
        ({"state": "failed", "tasks": {"validate": "failed"}}, "Failed in validate: see the log"),
        ({"state": "running", "tasks": {"train": "up_for_retry"}}, "train is tried again soon"),
    ],
)
def test_before_there_is_a_run_json_airflow_is_asked(client: Any, known: Any, airflow: Any, expected: str) -> None:
    known["idc_train", RUN] = facts(**airflow)
    assert expected in tab(client).text


def write_manifest(workspace: Path, plan: str = "d128676bcb33d75f") -> None:
    folder = workspace / "datasets" / "idc" / "binary" / plan
    folder.mkdir(parents=True)
    manifest = {
        "dataset": "idc", "task": "binary", "plan_id": plan, "found": 12000, "written": 11940, "group_unit": "patient",
        "classes": ["negative", "idc"], "rejects": {"too_narrow": {"count": 60, "kind": "fault"}}, "warnings": [],
        "splits": {"train": {"patches": 8359, "groups": 105, "by_class": {"idc": 3000, "negative": 5359}}},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_an_ingest_shows_counts_splits_and_rejects(client: Any, workspace: Path, known: Any) -> None:
    write_manifest(workspace)
    result = {"state": "committed", "task": "binary", "plan_id": "d128676bcb33d75f"}
    known["idc_ingest", RUN] = facts("idc_ingest", results={"ingest": result})
    text = tab(client, "idc_ingest").text
    for part in ("12,000", "11,940", "too narrow", "fault", "8,359", "105", "patients", "Committed."):
        assert part in text


def test_a_failed_ingest_says_why(client: Any, known: Any) -> None:
    result = {"state": "failed", "reason": "3 of 100 images are faults"}
    known["idc_ingest", RUN] = facts("idc_ingest", "failed", {"ingest": "failed"}, {"ingest": result})
    assert "3 of 100 images are faults" in tab(client, "idc_ingest").text


@pytest.mark.parametrize("plan", ["../../../../etc", "..", "a/b", "a\0b", "", None, 7, ["x"], "%2e%2e"])
def test_a_result_that_anyone_may_have_posted_leads_nowhere(
    client: Any, workspace: Path, known: Any, plan: Any
) -> None:
    (workspace / "manifest.json").write_text('{"plan_id": "stolen"}')
    known["idc_ingest", RUN] = facts("idc_ingest", results={"ingest": {"task": "binary", "plan_id": plan}})
    answer = tab(client, "idc_ingest")
    assert answer.status_code == 200
    assert "stolen" not in answer.text


@pytest.mark.parametrize("dag_id", ["example_bash_operator", "idc_other", "_train", "nosuch_train", HOSTILE])
def test_a_foreign_dag_gets_one_neutral_sentence(client: Any, dag_id: str) -> None:
    answer = tab(client, dag_id.replace("/", ""))
    assert answer.status_code == 200
    assert "not one of histoline" in answer.text
    assert "alert" not in answer.text


def test_an_unknown_run_is_not_found(client: Any, workspace: Path, known: Any) -> None:
    write_run(workspace)  # also where the workspace holds one of that name
    assert tab(client).status_code == 404


@pytest.mark.parametrize(
    "text", [HOSTILE, "{0.__class__}", "{{ 7777 * 7777 }}{% raw %}", "%s %(x)s", "\u202ereversed", "a" * 10_000]
)
def test_everything_that_is_shown_is_escaped(client: Any, workspace: Path, known: Any, text: str) -> None:
    run_id = text[:200]
    from histoline_pages.facts import DagRunFacts

    known["idc_train", run_id] = DagRunFacts(
        "idc_train", run_id, "failed", {"train": "failed", text: text}, {"train": {"reason": text}}
    )
    write_run(workspace, run_id=run_id, reason=text, decision="refused", version=text, group_unit=text,
              metrics={"test": {"values": {text: {"estimate": text}}}}, gate={"comparisons": [{"name": text}]},
              paths={"same_as": f"runs/{text}/x/y".replace("script>/", "")})  # fmt: skip
    for answer in (tab(client, run_id=run_id), client.get("/")):
        assert answer.status_code == 200
        assert "<script" not in answer.text and str(7777 * 7777) not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/runs/idc/binary/..", "/runs/../../etc/passwd", "/runs/idc/binary/%2e%2e", "/runs/idc/binary/%2e%2e%2f%2e%2e",
        "/runs/idc/binary/..%2f..%2f..%2fsecret", "/runs/idc/binary/%252e%252e", "/runs/idc/binary/a%00b",
        "/runs/idc/%c0%ae%c0%ae/x", "/runs/idc/binary/..%5c..%5csecret", "/runs//etc/passwd",
        "/runs/idc/binary/.hidden", "/runs/idc/binary/%EF%BC%8E%EF%BC%8E", "/runs/idc/binary/x/run.json",
        "/runs/idc/binary/x/report/index.html/y",
        "/secret", "/%2e%2e/secret", "/runs/index.html%00", "/runs/idc/binary/%ff%fe",
    ],
)  # fmt: skip
def test_no_path_leads_out(client: Any, workspace: Path, path: str) -> None:
    (workspace.parent / "secret").write_text("stolen")
    (workspace / "secret").write_text("stolen")
    hidden = workspace / "runs" / "idc" / "binary" / ".hidden"
    hidden.mkdir(parents=True)
    (hidden / "run.json").write_text('{"run_id": "stolen"}')
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert "stolen" not in answer.text and "root:" not in answer.text


Damage = Callable[[Path, Path], None]


def link_report(folder: Path, outside: Path) -> None:
    (folder / "report").mkdir()
    (folder / "report" / "index.html").symlink_to(outside / "index.html")


def link_report_folder(folder: Path, outside: Path) -> None:
    (folder / "report").symlink_to(outside)


def pipe(folder: Path, outside: Path) -> None:
    (folder / "report").mkdir()
    os.mkfifo(folder / "report" / "index.html")


@pytest.mark.parametrize("damage", [link_report, link_report_folder, pipe])
def test_links_and_pipes_are_not_followed(client: Any, workspace: Path, known: Any, damage: Damage) -> None:
    outside = workspace.parent / "outside"
    outside.mkdir()
    (outside / "index.html").write_text("stolen")
    known["idc_train", RUN] = facts()
    damage(write_run(workspace), outside)
    answer = tab(client)
    assert "stolen" not in answer.text
    assert "Promoted as the first model." in answer.text


def test_a_linked_run_folder_is_not_followed(client: Any, workspace: Path, known: Any) -> None:
    known["idc_train", RUN] = facts()
    folder = write_run(workspace)
    moved = workspace.parent / "moved"
    folder.rename(moved)
    folder.symlink_to(moved)
    assert "Promoted" not in tab(client).text
    assert "Promoted" not in client.get("/").text


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", '{"metrics": 3, "stages": [], "gate": 1}', "[" * 100_000,
     '{"gate": {"comparisons": 3}, "stages": {"x": 1}, "metrics": {"test": {"values": 1}}}'],
)  # fmt: skip
def test_a_damaged_run_json_breaks_no_page(client: Any, workspace: Path, known: Any, text: str) -> None:
    known["idc_train", RUN] = facts()
    (write_run(workspace) / "run.json").write_text(text)
    assert tab(client).status_code == 200
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/", "/runs/index.html", "/runs/idc/binary/x", f"/dag-run/idc_train/{RUN}"])
def test_nobody_reads_without_a_login(client: Any, path: str) -> None:
    from airflow.api_fastapi.core_api.security import get_user

    client.app.dependency_overrides.clear()
    answer = client.get(path)
    assert answer.status_code == 401
    assert "log in" in answer.text
    client.app.dependency_overrides[get_user] = lambda: user(None)
    assert client.get(path).status_code == 403


def test_what_airflow_stores_is_read_back(database: Path) -> None:
    from histoline_pages.facts import look_up

    assert look_up("idc_train", "no such run") is None


def test_the_plugin_costs_the_other_processes_nothing() -> None:
    import subprocess
    import sys

    code = "import sys, histoline_reports; sys.exit('histoline_pages.app' in sys.modules or 'fastapi' in sys.modules)"
    plugins = Path(__file__).resolve().parents[2] / "dags" / "plugins"
    done = subprocess.run([sys.executable, "-c", code], cwd=plugins, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tab_is_there() -> None:
    import histoline_reports

    views = {view["destination"]: view for view in histoline_reports.HistolineReports.external_views}
    assert views["dag_run"]["name"] == "Report"
    assert views["nav"]["category"] == "browse"
    assert SimpleNamespace(**histoline_reports.HistolineReports.fastapi_apps[0]).url_prefix == "/histoline"

def test_what_a_report_links_to_is_there(client: Any, workspace: Path, known: Any) -> None:
    known["idc_train", RUN] = facts()
    folder = write_run(workspace)
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("the report")
    (folder / "predictions.parquet").write_bytes(b"PAR1")
    card = workspace / "models" / "idc" / "binary" / "7" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("# card")
    page = tab(client).url
    assert page.path == f"/runs/idc/binary/{folder.name}/report/index.html", "links count from here"
    assert client.get(page.join("../../../../index.html")).status_code == 200
    kept = client.get(page.join("../predictions.parquet"))
    assert (kept.content, kept.headers["content-type"]) == (b"PAR1", "application/octet-stream")
    assert kept.headers["content-disposition"] == f'attachment; filename="{folder.name}-predictions.parquet"'
    assert client.get(page.join("../run.json")).json()["run_id"] == folder.name
    assert client.get(page.join("../../../../../models/idc/binary/7/README.md")).text == "# card"
    (folder / "secret.key").write_text("s")
    (folder / "comparison.parquet").symlink_to(folder / "secret.key")
    for name in ("secret.key", "comparison.parquet", ".lock", "model", "../../x"):
        assert client.get(f"/runs/idc/binary/{folder.name}/{name}").status_code == 404, name
    assert client.get("/models/idc/binary/..%2F..%2F7/README.md").status_code == 404
