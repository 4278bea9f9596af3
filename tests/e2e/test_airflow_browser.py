"""What a person does: real Airflow servers, a real browser, real steps on drawn patches.

The tests of this file follow one another on the same servers, as a first day would.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.airflow_help import ARTIFACTS, HISTOLINE, PATIENCE, Airflow, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync"]  # fmt: skip
SECONDS = 1000 * 120


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("HISTOLINE_REQUIRE_BROWSER"):
        pytest.fail("no Chromium here, but HISTOLINE_REQUIRE_BROWSER is set")
    pytest.skip("no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    sizes = ["--patches", "1500", "--groups", "60"]
    subprocess.run([str(HISTOLINE), "synth", "idc", "--output", str(root / "idc"), *sizes], check=True)
    return root


@pytest.fixture(scope="module")
def airflow(chromium: str, raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("airflow")
    airflow = Airflow(folder / "home", folder / "workspace", HISTOLINE_IDC_TRAIN_PRESET="idc_quick")
    try:
        airflow.up("--data-root", str(raw))
        wait_for(lambda: airflow.request("/api/v2/dags/idc_train")[0] == 200, "the DAGs to be read")
        yield airflow
    finally:
        airflow.down()


class Person:
    """A browser with somebody logged in; what goes wrong in its pages is kept."""

    def __init__(self, context: Any, airflow: Airflow) -> None:
        self.page, self.airflow = context.new_page(), airflow
        self.page.set_default_timeout(SECONDS)
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.airflow.url, "data:", "blob:", "about:")):
            self.elsewhere.append(url)

    def log_in(self, user: str) -> Person:
        self.page.goto("/")
        self.page.locator("input[name=username]").fill(user)
        self.page.locator("input[name=password]").fill(self.airflow.password(user))
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.airflow.url + "/")
        return self

    def picture(self, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(1500)  # graphs are drawn after the page is there
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")

    def open_form(self, dag_id: str, section: str) -> Any:
        self.page.goto(f"/dags/{dag_id}")
        self.page.get_by_test_id("trigger-dag-button").click()
        form = self.page.get_by_role("dialog")
        form.get_by_role("button", name=section, exact=True).click()
        return form

    def send(self, form: Any) -> Any:
        """Presses Trigger; the server's answer."""
        with self.page.expect_response(lambda r: r.request.method == "POST" and r.url.endswith("/dagRuns")) as answer:
            form.get_by_test_id("trigger-dag-submit").press("Enter")
        return answer.value

    def report_tab(self, dag_id: str, run_id: str) -> Any:
        """Opens a run's Report tab by clicking on it; the frame in it."""
        self.page.goto(f"/dags/{dag_id}/runs/{quote(run_id, safe='')}")
        self.page.get_by_role("link", name="Report", exact=True).click()
        return self.page.frame_locator("iframe")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS, headless=True)
        yield browser
        browser.close()


@pytest.fixture
def person(browser: Any, airflow: Airflow) -> Iterator[Person]:
    context = browser.new_context(base_url=airflow.url, viewport={"width": 1400, "height": 950})
    person = Person(context, airflow)
    yield person
    context.close()
    assert person.errors == []
    assert person.elsewhere == [], "pages must load nothing from other hosts"


def test_a_bad_folder_is_refused_by_form_and_api(person: Person, airflow: Airflow) -> None:
    form = person.log_in("admin").open_form("idc_ingest", "Data")
    form.locator("[name=element_input]").fill("/etc")
    form.locator("[name=element_input]").press("Tab")
    person.picture("refused-before")
    assert person.send(form).status in (400, 422)
    person.picture("refused")
    for dag_id, conf in (
        ("idc_ingest", {"input": "/etc"}), ("idc_ingest", {"seed": -1}), ("idc_train", {"epochs": "many"}),
        ("idc_train", {"preset": "nosuch"}), ("idc_train", {"epochs": 0}),
    ):  # fmt: skip
        status, answer = airflow.request(f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        assert status in (400, 422), (conf, answer)
    assert airflow.runs("idc_ingest") == airflow.runs("idc_train") == []


def test_a_page_of_another_origin_can_frame_nothing(browser: Any, airflow: Airflow, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f'<iframe src="{airflow.url}/"></iframe>')
    # Airflow's own frame is the control: without it a server that is down would pass.
    (tmp_path / "control.html").write_text('<iframe src="/index.html"></iframe>')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context(base_url=f"http://127.0.0.1:{server.server_port}")
        try:
            page = context.new_page()
            page.goto("/control.html", wait_until="networkidle")
            allowed, refused = page.frames[1:]
            assert allowed.url.endswith("/index.html")
            assert refused.url.startswith("chrome-error:"), refused.url
        finally:
            context.close()
            server.shutdown()


def test_nobody_else_reads_what_airflow_keeps(airflow: Airflow) -> None:
    kept = [path for path in airflow.home.rglob("*") if not path.is_symlink()]
    assert {path.name for path in kept} >= {"airflow.db", "airflow.cfg", "scheduler.log", "supervisor.log"}
    assert [str(path) for path in kept if path.exists() and path.stat().st_mode & 0o077] == []


def test_a_run_id_that_no_folder_can_have_is_refused(airflow: Airflow) -> None:
    body = {"logical_date": None, "conf": {}, "dag_run_id": "x" * 300}
    assert airflow.request("/api/v2/dags/idc_ingest/dagRuns", body)[0] in (400, 422)
    assert airflow.runs("idc_ingest") == []


def test_from_the_form_to_the_report(person: Person, airflow: Airflow, raw: Path) -> None:
    from playwright.sync_api import expect

    form = person.log_in("admin").open_form("idc_ingest", "Data")
    form.locator("[name=element_input]").fill("/elsewhere")
    assert person.send(form).status == 400
    expect(form.get_by_text(f"'/elsewhere' is not a 'path below {raw}, without . and ..'")).to_be_visible()
    form.locator("[name=element_input]").fill(str(raw / "idc"))
    person.picture("form-ingest")
    answer = person.send(form)
    assert answer.ok, answer.text()
    ingest = answer.json()["dag_run_id"]
    assert airflow.finished("idc_ingest", ingest) == "success", airflow.task_log("idc_ingest", ingest, "ingest")

    # The new data set starts the training by itself; meanwhile its page says what goes on.
    wait_for(lambda: airflow.runs("idc_train"), "the data set to start a training")
    train = airflow.runs("idc_train")[0]["dag_run_id"]
    expect(person.report_tab("idc_train", train).locator("body")).to_contain_text("unning")

    frame = person.report_tab("idc_ingest", ingest)
    expect(frame.get_by_text("Committed.")).to_be_visible()
    expect(frame.get_by_role("cell", name="1,500")).to_be_visible()
    expect(frame.get_by_role("cell", name="too narrow")).to_be_visible()
    person.picture("report-ingest")

    assert airflow.finished("idc_train", train, 3 * PATIENCE) == "success", airflow.logs()
    frame = person.report_tab("idc_train", train)
    expect(frame.locator("body")).to_contain_text("AUC")
    expect(frame.locator("body")).to_contain_text("not a medical device", ignore_case=True)
    person.picture("report-train")
    # Another click away from the run's page and back still finds it.
    person.page.goto("/dags")
    person.picture("dags")


def test_a_folder_is_scored_with_the_champion(person: Person, airflow: Airflow, raw: Path) -> None:
    from playwright.sync_api import expect

    home = airflow.workspace / "models" / "idc" / "binary" / "champion.json"
    if not home.exists():  # the gate may refuse so quick a model
        (trained,) = (airflow.workspace / "runs" / "idc" / "binary").iterdir()
        promote = [str(HISTOLINE), "models", "promote", trained.name, "--reason", "a test"]
        subprocess.run([*promote, "--workspace", str(airflow.workspace)], check=True)
    patients = sorted((raw / "idc").iterdir())[:3]
    for patient in patients:
        shutil.copytree(patient, raw / "new" / patient.name)
    (raw / "new" / patients[0].name / "broken.png").write_bytes(b"no image")
    form = person.log_in("admin").open_form("idc_predict", "Data")
    form.locator("[name=element_input]").fill(str(raw / "new"))
    person.picture("form-predict")
    answer = person.send(form)
    assert answer.ok, answer.text()
    run = answer.json()["dag_run_id"]
    assert airflow.finished("idc_predict", run) == "success", airflow.task_log("idc_predict", run, "predict")
    frame = person.report_tab("idc_predict", run)
    person.picture("report-predict")
    assert airflow.tasks("idc_predict", run)["drift"]["state"] == "success"
    expect(frame.get_by_role("heading", name="Slide maps")).to_be_visible()
    expect(frame.get_by_role("rowheader", name="not an image", exact=True)).to_be_visible()
    expect(frame.locator("body")).to_contain_text("Colours against the training data")


def test_the_same_data_and_recipe_are_skipped_with_a_reason(person: Person, airflow: Airflow) -> None:
    from playwright.sync_api import expect

    form = person.log_in("admin").open_form("idc_train", "Model")
    person.picture("form-train")
    answer = person.send(form)
    assert answer.ok, answer.text()
    run = answer.json()["dag_run_id"]
    assert airflow.finished("idc_train", run) == "success"
    assert airflow.tasks("idc_train", run)["train"]["state"] == "skipped"
    frame = person.report_tab("idc_train", run)
    expect(frame.locator("body")).to_contain_text("unchanged", ignore_case=True)
    person.picture("report-skipped")


def test_the_index_in_the_browse_menu(person: Person, airflow: Airflow) -> None:
    from playwright.sync_api import expect

    page = person.log_in("admin").page
    expect(page.get_by_text("Triggerer is red below because none runs")).to_be_visible()
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Model reports").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    person.picture("index")
    frame.locator("table a").last.click()
    expect(frame.locator("body")).to_contain_text("AUC")


def test_a_viewer_reads_reports_and_starts_nothing(person: Person, airflow: Airflow) -> None:
    from playwright.sync_api import expect

    page = person.log_in("viewer").page
    before = airflow.runs("idc_train")
    # Airflow shows its button to everybody; it is the server that refuses.
    assert person.send(person.open_form("idc_train", "Model")).status == 403
    person.picture("viewer-refused")
    answer = page.request.post("/api/v2/dags/idc_train/dagRuns", data={"logical_date": None, "conf": {}})
    assert answer.status == 403
    expect(person.report_tab("idc_train", before[0]["dag_run_id"]).locator("body")).to_contain_text("AUC")
    assert page.request.get("/histoline/").status == 200
    assert len(airflow.runs("idc_train")) == len(before)


def test_without_a_login_nothing_is_shown(browser: Any, airflow: Airflow) -> None:
    context = browser.new_context(base_url=airflow.url)
    for path in ("/histoline/", "/histoline/runs/index.html", "/api/v2/dags"):
        assert context.request.get(path).status == 401, path
    context.close()
