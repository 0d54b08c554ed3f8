"""The page, in a real browser: Chromium of the system, headless."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests import services
from tests.examples.konstruct.fleet import ROOT, Fleet

LAYERS = {
    "ASGI middleware": 3,
    "publisher": 1,
    "worker": 1,
    "Redis guard": 2,
    "key function": 1,
    "SQLAlchemy edge": 3,
    "PostgreSQL policy": 2,
    "PostgreSQL grants": 1,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or the rule for missing servers."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise services.Missing("Chromium", "apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, stage: Fleet) -> Iterator[Any]:
    """The page, loaded; whatever its console says as an error fails the test."""
    context = browser.new_context(viewport={"width": 1180, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(stage.url)
    page.wait_for_selector("body[data-ready=yes]")
    yield page
    context.close()
    assert problems == []


def say(page: Any, tenant: str, text: str) -> None:
    """Type and send, and wait for the answer."""
    window = page.locator(f"#{tenant} .window")
    answers = window.locator("li.assistant").count()
    page.fill(f"#{tenant} form.say input", text)
    page.click(f"#{tenant} form.say button")
    window.locator("li.assistant").nth(answers).wait_for()


def test_two_tenants_talk_side_by_side(page: Any):
    """Equal ids; each column has its own conversation, memory, keys and rows."""
    said = {"acme": "The office moves to Rotterdam in March", "globex": "The merger closes on Friday"}
    for tenant, text in said.items():
        say(page, tenant, text)
    for tenant in said:
        page.fill(f"#{tenant} form.find input", "office merger moves closes")
        page.click(f"#{tenant} form.find button")
        page.locator(f"#{tenant} .found li").first.wait_for()
        page.locator(f"#{tenant} .rows li", has_text="U1").first.wait_for()
    shown = {tenant: page.locator(f"#{tenant}").inner_text() for tenant in said}
    for tenant, other in (("acme", "globex"), ("globex", "acme")):
        assert shown[tenant].count(said[tenant]) >= 3
        assert said[other] not in shown[tenant]
        assert f"{tenant}:memory:short:concierge:U1" in shown[tenant]
        assert f"{other}:" not in shown[tenant]


def test_every_attack_is_refused_and_says_by_what(page: Any, stage: Fleet):
    """All of them, pressed one after the other."""
    stage.told("@concierge a memory to steal", tenant="globex")
    page.click("#all")
    page.wait_for_selector("body[data-pressed=all]")
    verdicts = page.locator(".verdict").all()
    texts = [verdict.inner_text() for verdict in verdicts]
    assert all(text.lower().startswith("refused by") for text in texts), texts
    for layer, count in LAYERS.items():
        found = [text for text in texts if text.startswith(f"refused by {layer}")]
        assert len(found) == count, (layer, texts)
    assert "a memory to steal" not in " ".join(texts)
    assert page.locator("#score").inner_text() == f"{len(texts)} of {len(texts)} refused"
    screenshot(page)


def test_thread_says_what_it_waits_for(page: Any):
    """A pending tool, and a person who can hand the thread back; the other tenant's says nothing."""
    thread = page.locator("#globex .thread")
    say(page, "globex", "clear my history")
    thread.filter(has_text="clear_history waits").wait_for()
    say(page, "globex", "no")
    page.wait_for_function("document.querySelector('#globex .thread').textContent === ''")
    say(page, "globex", "I want to talk to a person")
    page.fill("#globex form.say input", "are you there?")
    page.click("#globex form.say button")
    page.locator("#globex .window li.user", has_text="are you there?").wait_for()
    assert page.locator("#acme .thread").inner_text() == ""
    thread.locator("button").click()
    page.wait_for_function("document.querySelector('#globex .thread').textContent === ''")


@pytest.mark.parametrize("width", [320, 600, 761, 1180])
def test_page_fits_its_window(page: Any, width: int):
    """Nothing is wider than a narrow screen."""
    page.set_viewport_size({"width": width, "height": 800})
    page.click("#all")
    page.wait_for_selector("body[data-pressed=all]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_attack_that_gets_through_shows(page: Any, stage: Fleet):
    """The panel can say the opposite."""
    page.route("**/page/attacks/list-keys", lambda route: route.fulfill(json={"held": False, "detail": "x"}))
    row = page.locator(".attack", has_text="List everybody's keys")
    row.locator("button").click()
    row.locator(".verdict.broken", has_text="NOT REFUSED").wait_for()


def test_text_of_a_tenant_is_text(page: Any):
    """Nothing that somebody says becomes markup."""
    say(page, "acme", "<img src=x onerror=document.title='owned'>")
    assert page.locator("#acme .window img").count() == 0
    assert "owned" not in page.title()


def screenshot(page: Any) -> None:
    """The picture in the README, made anew with KONSTRUCT_SCREENSHOT=1."""
    if os.environ.get("KONSTRUCT_SCREENSHOT") == "1":
        (ROOT / "docs" / "images").mkdir(exist_ok=True)
        page.screenshot(path=str(ROOT / "docs" / "images" / "konstruct.png"), full_page=True)
