"""The page of all runs, what is said of runs that are not over, and who may frame the pages."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

from page_help import RUN, facts, write_run


def test_the_page_of_all_runs_is_the_pipelines_own_with_what_is_not_over(
    client: Any, workspace: Path, known: Any
) -> None:
    assert "No run yet." in client.get("/").text
    known["idc_train", "b"] = facts(state="running")
    write_run(workspace, run_id="a", state="running", stage="train", decision=None)
    running = write_run(workspace, run_id="b", state="running", stage="evaluate", decision=None)
    write_run(workspace, run_id="c", reason="it is over")
    for text in (client.get("/").text, client.get("/runs/index.html").text):
        assert "No run is over yet." in text and "Abandoned in train" in text and "Running: evaluate" in text
        assert f'href="/runs/idc/binary/{running.name}"' in text and "it is over" not in text
    (workspace / "runs" / "index.html").write_text("<main><!-- live -->the page</main>")
    text = client.get("/").text
    assert text.startswith("<main>") and text.endswith("the page</main>") and "Running: evaluate" in text
    assert client.get("/", follow_redirects=False).headers["location"].endswith("/runs/index.html")


def test_a_run_whose_lock_is_held_is_not_abandoned(client: Any, workspace: Path, known: Any) -> None:
    folder = write_run(workspace, state="running", stage="train", decision=None, reason="")
    (folder / ".lock").write_text("{}")
    with open(folder / ".lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for path in (f"/runs/idc/binary/{folder.name}", "/"):
            assert "Running: train" in client.get(path).text and "Abandoned" not in client.get(path).text
    assert "Abandoned in train" in client.get(f"/runs/idc/binary/{folder.name}").text
    assert "Abandoned in train" in client.get("/").text
    # Between two tasks nobody holds it; Airflow knows that the run goes on.
    known["idc_train", RUN] = facts(state="queued")
    assert "Abandoned" not in client.get("/").text


def test_no_other_origin_may_frame_airflows_own_pages() -> None:
    from fastapi.testclient import TestClient
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from histoline_reports import HistolineReports, PageHeaders

    def plain(_: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    def own(_: Any) -> PlainTextResponse:
        return PlainTextResponse("x", headers={"Content-Security-Policy": "sandbox"})

    app = Starlette(routes=[Route("/", plain), Route("/own", own)])
    (entry,) = HistolineReports.fastapi_root_middlewares
    assert entry["middleware"] is PageHeaders
    app.add_middleware(entry["middleware"], *entry["args"], **entry["kwargs"])
    client = TestClient(app)
    headers = client.get("/").headers
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["content-security-policy"] == "frame-ancestors 'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert client.get("/own").headers["content-security-policy"] == "sandbox"
