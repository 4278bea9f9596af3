"""The web application behind the Report tab: Airflow's own login, static pages, nothing that can run."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from histoline_dags.ids import run_id as pipeline_run_id
from histoline_dags.stages import DAGS, PRUNE, WORKSPACE
from histoline_dags.words import in_form_words
from histoline_pages import files, pages
from histoline_pages.facts import DagRunFacts, look_up, runs_under_way

CATALOG = Path(__file__).resolve().parents[2] / "catalog.json"
NEWEST = 200
RUN_FILES = ("run.json", "predictions.parquet", "comparison.parquet")
"""What a report offers to keep."""

DOWNLOAD_BYTES = 512 * 1024 * 1024
LIVE = "<!-- live -->"
"""Where the page of all runs takes what only a server can know."""
MADE_PAGES = {"predict": ("predictions", "predict"), "sweep": ("sweeps", "choose")}
"""Kind of DAG to the workspace's folder of its pages, and the task that makes them."""

HEADERS = {
    # No scripts, no forms, nothing from elsewhere, whatever a page contains; `allow-same-origin` only lets the
    # browser send the login along when a link to another page of ours is followed.
    "Content-Security-Policy": "sandbox allow-same-origin allow-downloads; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def workspace() -> Path:
    """The folder that runs are read from."""
    return Path(os.environ.get("HISTOLINE_WORKSPACE", "workspace"))


def datasets() -> dict[str, Any]:
    """What the catalogue says of the data sets that have DAGs, by name."""
    try:
        return dict(json.loads(CATALOG.read_text(encoding="utf-8"))["datasets"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _html(text: str | bytes, status: int = 200) -> Response:
    return Response(text, status_code=status, media_type="text/html; charset=utf-8", headers=HEADERS)


def _not_found() -> Response:
    return _html(pages.message("Not found", "There is no such run in this workspace."), 404)


def build_app() -> FastAPI:
    """The application; every page needs a user who may read DAG runs."""
    app = FastAPI(
        title="histoline reports",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))],
    )

    @app.get("/")
    def index(request: Request) -> Response:
        # The page's own links count from where it lies.
        return RedirectResponse(f"{_base(request)}/runs/index.html", headers=HEADERS)

    @app.get("/dag-run/{dag_id}/{dag_run_id:path}")
    def dag_run(dag_id: str, dag_run_id: str, request: Request) -> Response:
        dataset, _, kind = dag_id.rpartition("_")
        if (dataset, kind) == (WORKSPACE, PRUNE):
            facts = look_up(dag_id, dag_run_id)
            return _html(prune_page(facts)) if facts is not None else _not_found()
        if kind not in DAGS or dataset not in datasets():
            return _html(pages.foreign())
        facts = look_up(dag_id, dag_run_id)
        if facts is None:
            return _not_found()
        if kind == "ingest":
            return _html(ingest_page(workspace(), dataset, facts))
        if kind in MADE_PAGES:
            return _html(made_page(workspace(), dataset, kind, facts))
        root, name = workspace(), pipeline_run_id(dag_id, dag_run_id)
        tasks = [task for task, _ in files.folders(root, "runs", dataset)]
        for names in ((dataset, task, name) for task in tasks):
            if has_report(root, names):
                return _to_report(names, request)
        return _html(train_page(root, dataset, facts, _base(request)))

    @app.get("/runs/index.html")
    def overview(request: Request) -> Response:
        return _html(index_page(workspace(), _base(request)))

    @app.get("/runs/{dataset}/{task}/{run_id}")
    @app.get("/runs/{dataset}/{task}/{run_id}/report/index.html")
    def run(dataset: str, task: str, run_id: str, request: Request) -> Response:
        names = (dataset, task, run_id)
        if not request.url.path.endswith("/report/index.html") and has_report(workspace(), names):
            return _to_report(names, request)
        page = run_page(workspace(), (dataset, task, run_id), None, _base(request))
        return _html(page) if page is not None else _not_found()

    @app.get("/runs/{dataset}/{task}/{run_id}/{name}")
    def run_file(dataset: str, task: str, run_id: str, name: str) -> Response:
        return _download("runs", dataset, task, run_id, name) if name in RUN_FILES else _not_found()

    @app.get("/models/{dataset}/{task}/{version}/README.md")
    def model_card(dataset: str, task: str, version: str) -> Response:
        return _download("models", dataset, task, version, "README.md")

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> Response:
        text = "Please log in to Airflow first." if error.status_code == 401 else str(error.detail)
        return _html(pages.message("Not available", text), error.status_code)

    return app


def _to_report(names: tuple[str, str, str], request: Request) -> Response:
    """Leads to where a run's report lies: its links count from there."""
    place = "/".join(quote(name, safe="") for name in names)
    return RedirectResponse(f"{_base(request)}/runs/{place}/report/index.html", headers=HEADERS)


def _download(*place: str) -> Response:
    """A file of the workspace, to keep."""
    data = files.read_bytes(workspace(), *place, limit=DOWNLOAD_BYTES)
    if data is None:
        return _not_found()
    name = f"{place[-2]}-{place[-1]}"  # both are plain names, or there was nothing to read
    kept = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type="application/octet-stream", headers=kept)


def has_report(root: Path, names: tuple[str, str, str]) -> bool:
    """Whether a run is over and has a report.

    Args:
        root: The workspace.
        names: Data set, task, RUN_ID.
    """
    record = files.read_json(root, "runs", *names, "run.json")
    over = record is not None and record.get("state") != "running"
    return over and files.exists(root, "runs", *names, "report", "index.html")


def _base(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def run_page(root: Path, names: tuple[str, str, str], facts: DagRunFacts | None, base: str) -> str | bytes | None:
    """The page of a training run: its report, else what its run.json says; None where there is no such run.

    Args:
        root: The workspace.
        names: Data set, task, RUN_ID.
        facts: What Airflow knows of it; None for a run from the command line.
        base: Address of the pages.
    """
    folder = ("runs", *names)
    record = files.read_json(root, *folder, "run.json")
    if record is None:
        return None
    if record.get("state") == "running":
        record = _abandoned(root, folder, record, under_way=runs_under_way())
    else:
        report = files.read_bytes(root, *folder, "report", "index.html", limit=files.REPORT_BYTES)
        if report is not None and record.get("state") != "failed":
            return report
        if report is not None:
            return _in_form_words(report.decode("utf-8", "replace"), names[0])
    return _in_form_words(pages.training(record, facts, base), names[0])


def _in_form_words(page: str, dataset: str) -> str:
    """A page on what went wrong: what it says to do about it on the command line, here is done by the form."""
    return in_form_words(page, datasets().get(dataset, {}).get("train", {}))


def _abandoned(
    root: Path, folder: tuple[str, ...], record: dict[str, Any], under_way: Collection[str]
) -> dict[str, Any]:
    """The record; of a run that says it runs, but that nobody works on or will, it says so."""
    if record.get("state") != "running" or folder[-1] in under_way or files.is_locked(root, *folder):
        return record
    return {**record, "state": "abandoned", "reason": pages.abandoned(record)}


def train_page(root: Path, dataset: str, facts: DagRunFacts, base: str) -> str | bytes:
    """The Report tab of DATASET_train."""
    name = pipeline_run_id(facts.dag_id, facts.dag_run_id)
    # Which task it was stands in the results; they are not needed, since a RUN_ID is unique in the workspace.
    for task, _ in files.folders(root, "runs", dataset):
        page = run_page(root, (dataset, task, name), facts, base)
        if page is not None:
            return page
    return pages.nothing_yet(facts, name)


def made_page(root: Path, dataset: str, kind: str, facts: DagRunFacts) -> str | bytes:
    """The Report tab of DATASET_predict and DATASET_sweep: the page that their command has made, once it stands."""
    home, task_of_page = MADE_PAGES[kind]
    name = pipeline_run_id(facts.dag_id, facts.dag_run_id)
    if facts.tasks.get(task_of_page) in ("success", "skipped"):
        for task, _ in files.folders(root, home, dataset):
            page = files.read_bytes(root, home, dataset, task, name, "index.html", limit=files.REPORT_BYTES)
            if page is not None:
                return page
    return pages.nothing_yet(facts, name)


def prune_page(facts: DagRunFacts) -> str:
    """The Report tab of histoline_prune."""
    name = f"Pruning {pipeline_run_id(facts.dag_id, facts.dag_run_id)}"
    done = facts.tasks.get(PRUNE) == "success"
    return pages.pruning(facts, name) if done else pages.nothing_yet(facts, name)


def ingest_page(root: Path, dataset: str, facts: DagRunFacts) -> str:
    """The Report tab of DATASET_ingest."""
    name = f"{dataset}: ingest {pipeline_run_id(facts.dag_id, facts.dag_run_id)}"
    task, state = facts.first_bad()
    if state in ("failed", "up_for_retry"):
        return pages.nothing_yet(facts, name)
    manifest = _manifest(root, dataset, facts.last_result())
    return pages.ingest(manifest, facts, name) if manifest is not None else pages.nothing_yet(facts, name)


def _manifest(root: Path, dataset: str, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest that a result names by task and plan; its path is not trusted."""
    task, plan = result.get("task"), result.get("plan_id")
    if not (files.is_name(task) and files.is_name(plan)):
        return None
    return files.read_json(root, "datasets", dataset, str(task), str(plan), "manifest.json")


def index_page(root: Path, base: str) -> str:
    """All runs of the workspace as the last one that ended left the page, and above them those that are not over."""
    found = [
        (changed, (dataset, task, name))
        for dataset, _ in files.folders(root, "runs")
        for task, _ in files.folders(root, "runs", dataset)
        for name, changed in files.folders(root, "runs", dataset, task)
    ]
    found.sort(reverse=True)
    read = ((("runs", *names), files.read_json(root, "runs", *names, "run.json")) for _, names in found[:NEWEST])
    begun = [(folder, record) for folder, record in read if record is not None and record.get("state") == "running"]
    under_way = runs_under_way() if begun else frozenset()
    live = pages.live([_abandoned(root, folder, record, under_way) for folder, record in begun], base)
    overview = files.read_bytes(root, "runs", "index.html", limit=files.REPORT_BYTES)
    if overview is None:
        return pages.message("Runs", "No run is over yet." if live else "No run yet.", extra=live)
    return overview.decode("utf-8", "replace").replace(LIVE, live, 1)
