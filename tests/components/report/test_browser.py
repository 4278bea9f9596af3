"""The pages in a real browser: nothing loaded from elsewhere, nothing sticks out, accessible, printable.

Set HISTOLINE_REQUIRE_BROWSER=1 where a missing browser must fail instead of skip, HISTOLINE_SCREENSHOTS=FOLDER to keep
pictures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.report import index, page, prediction_page, sweep_page
from components.report.evidence import collect
from tests.components.report.test_page import hostile
from tests.components.report.test_prediction_page import summary
from tests.support import sweep_help
from tests.support.report_help import Studio

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTHS = {"desktop": 1280, "phone": 390}
SANDBOX = "allow-popups-to-escape-sandbox"
"""A token that allows nothing by itself: neither scripts nor forms, pop-ups or the same origin."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        if os.environ.get("HISTOLINE_REQUIRE_BROWSER"):
            pytest.fail("HISTOLINE_REQUIRE_BROWSER is set, but there is no chromium on the PATH")
        pytest.skip("no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=list(OPTIONS), timeout=180_000)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(binary: Studio, subtype: Studio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by name: a promoted, a refused, a failed and a subtype run, one of hostile names, and the index."""
    root = tmp_path_factory.mktemp("pages")
    studio = Studio(Path(shutil.copytree(binary.root, root / "w")), binary.data)
    error = {"stage": "train", "exit_code": 65, "message": "A line that is " + "very" * 60 + " long.\n\nFix it."}
    studio.begun("failed", state="failed", error=error)
    made = {
        name: root / "w" / page.write(studio.storage, f"runs/idc/binary/{name}") for name in ("good", "poor", "failed")
    }
    made["index"] = root / "w" / index.write(studio.storage)
    made["subtype"] = root / "subtype.html"
    made["subtype"].write_text(
        page.render(collect(subtype.storage, "runs/breakhis/subtype/types")), encoding="utf-8"
    )
    made["prediction"] = root / "prediction.html"
    made["prediction"].write_text(prediction_page.render(summary()), encoding="utf-8")
    made["sweep"] = root / "sweep.html"
    made["sweep"].write_text(sweep_page.render(*sweep_help.sweep("-of-a-very-long-name" * 3)), encoding="utf-8")
    made["hostile"] = root / "hostile.html"
    evidence = hostile(collect(studio.storage, "runs/idc/binary/poor"))
    made["hostile"].write_text(page.render(evidence), encoding="utf-8")
    return made


def opened(browser: Any, file: Path, width: int, scheme: str) -> tuple[Any, list[str], list[str]]:
    """A tab, and what it complains about and asks for."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url) if _elsewhere(request.url, file) else None)
    tab.goto(file.as_uri(), timeout=120_000)
    return tab, messages, asked


def _elsewhere(url: str, file: Path) -> bool:
    return not url.startswith("data:") and url != file.as_uri()


@pytest.mark.parametrize("name", ["good", "poor", "failed", "index", "subtype", "hostile", "prediction", "sweep"])
def test_at_every_width_and_scheme(browser: Any, pages: dict[str, Path], name: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab, messages, asked = opened(browser, pages[name], WIDTHS["desktop"], "light")
    for device, width in WIDTHS.items():
        tab.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            where = f"{name}, {device}, {scheme}"
            assert messages == [] and asked == [], where
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, where
            assert tab.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0, where
            if folder := os.environ.get("HISTOLINE_SCREENSHOTS"):
                tab.screenshot(path=f"{folder}/{name}-{device}-{scheme}.png", full_page=True)
            found = Axe().run(tab)
            assert found.violations_count == 0, f"{where}\n{found.generate_report()}"
    tab.close()


def test_in_a_sandboxed_frame(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<!doctype html><iframe sandbox="{SANDBOX}" src="{pages["good"].as_uri()}" width="900" height="700"></iframe>'
    )
    tab = browser.new_page()
    messages: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.goto(outer.as_uri(), timeout=120_000)
    frame = tab.frames[1]
    assert "Promoted as the first model" in frame.locator(".why").inner_text()
    assert frame.locator("svg[role=img]").count() >= 5 and messages == []
    tab.close()


def test_by_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    tab, _, _ = opened(browser, pages["good"], 1280, "light")
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.hash || '')"))
    assert "A #figures" in reached and "A #lineage" in reached and any(one.startswith("SUMMARY") for one in reached)
    tab.close()


def test_the_threshold_moves_by_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    tab, messages, _ = opened(browser, pages["good"], 390, "light")
    chosen = tab.locator("#explorer input:checked")
    number = int(str(chosen.get_attribute("id")).removeprefix("step-"))
    assert tab.locator(".step:visible").count() == 1 and tab.locator(f".step-{number}").is_visible()
    chosen.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator(f".step-{number + 1}").is_visible() and tab.locator(".step:visible").count() == 1
    shown = "getComputedStyle(document.getElementById('thresholds-at{}')).visibility"
    assert tab.evaluate(shown.format(number + 1)) == "visible" and tab.evaluate(shown.format(number)) == "hidden"
    assert messages == []
    tab.close()


def test_it_prints(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    tab, _, _ = opened(browser, pages["good"], 1280, "dark")
    printed = tab.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF") and len(printed) > 50_000
    tab.emulate_media(media="print", color_scheme="dark")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"  # ink is dear
    tab.close()
