"""The pages of streams, runs, sources and flows in a real Chromium, with pictures if there are."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from etl.status import graphviz
from tests.web import calls
from tests.web.running import running
from tests.web.test_browser import CONTRASTS, LAPTOP, PHONE, berlin, browser

pytestmark = pytest.mark.slow

__all__ = ["browser"]  # the fixture

STREAMS = ["/streams/twilio_main/channels", "/streams/zoom_eu/flows", "/runs/zoom_us.flows-0",
           "/runs/zoom_eu.flows-0"]  # fmt: skip
FLOWS = [f"/flow?key=zoom_eu%2Ff{number}" for number in range(1, len(calls.NAMES) + 1)]


@contextmanager
def opened(
    browser: Browser,
    path: str,
    viewport: ViewportSize = LAPTOP,
    *,
    scheme: Any = "light",
    script: bool = False,
    picture: bool = True,
    **given: Any,
) -> Iterator[Page]:
    """Yield the page; then check that it logged nothing and asked only us for a page and a style.

    What its policy refuses, such as an attribute `style` in a picture, would be in that log.
    """
    complaints: list[str] = []
    requests: list[str] = []
    if picture:
        pytest.importorskip("pygraphviz", exc_type=ImportError)
        given["draw"] = partial(graphviz.svg, seconds=60)
    token = given.get("token")
    with ExitStack() as stack:
        client = stack.enter_context(running(**given))
        context = browser.new_context(
            viewport=viewport,
            color_scheme=scheme,
            java_script_enabled=script,
            http_credentials={"username": "me", "password": token} if token else None,
        )
        stack.callback(context.close)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        answer = page.goto(str(client.base_url.join(path)))
        assert answer is not None
        assert answer.status == 200
        yield page
        assert complaints == []
        where = {urlsplit(each) for each in requests if not each.startswith("data:")}
        assert {each.netloc for each in where} == {f"127.0.0.1:{client.base_url.port}"}
        ours = {"", "source", "streams", "runs", "flow", "style.css"}
        assert {each.path.split("/")[1] for each in where} <= ours


def test_the_links_lead_from_the_sources_to_the_picture_of_a_flow(browser: Browser) -> None:
    with opened(browser, "/", token="s3cret") as page:
        page.get_by_role("link", name="zoom_eu", exact=True).first.click()
        assert page.locator("h1").inner_text() == "zoom_eu"
        page.get_by_label("Filter").fill("billing")
        page.get_by_role("button", name="Show").click()
        assert page.locator("tbody tr").count() == 1
        page.locator("tbody a").first.click()
        assert page.locator("h1").inner_text() == "Billing"
        picture = page.locator("figure svg")
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] > 150
        assert "Menu" in (picture.text_content() or "")
        table = page.locator(".steps table")
        assert not table.is_visible()
        page.locator("summary").click()
        assert table.is_visible()
        page.get_by_role("link", name="zoom_eu").click()
        assert page.locator("h1").inner_text() == "zoom_eu"


def test_the_links_lead_from_a_stream_to_its_runs_and_back(browser: Browser) -> None:
    with opened(browser, "/", token="s3cret", picture=False) as page:
        page.get_by_role("link", name="twilio_main.channels").first.click()
        assert page.locator("h1").inner_text() == "twilio_main.channels"
        assert page.locator(".runs-list tbody tr:not(.error)").count() == 30
        page.locator(".runs-list a").first.click()
        assert page.locator("h1").inner_text() == "Run of twilio_main.channels"
        page.get_by_role("link", name="channels", exact=True).click()
        assert page.locator("h1").inner_text() == "twilio_main.channels"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_has_the_colours_of_the_page(browser: Browser, scheme: str) -> None:
    """It has them although the policy allows neither a style element nor a style attribute."""
    with opened(browser, FLOWS[0], scheme=scheme, script=True) as page:
        colours = page.evaluate("""() => Object.fromEntries(
            [...document.querySelectorAll("figure svg text")].map((e) =>
                [e.textContent.trim(), getComputedStyle(e).fill]))""")
        ground = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")
        page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        other = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")
    assert ground != other
    light, dark = "rgb(25, 28, 32)", "rgb(228, 230, 232)"
    assert colours["Menu"] == (light if scheme == "light" else dark)
    assert colours["dead end"] == (
        "rgb(179, 35, 27)" if scheme == "light" else "rgb(255, 141, 130)"
    )


@pytest.mark.parametrize("viewport", [PHONE, LAPTOP], ids=["360", "1280"])
@pytest.mark.parametrize("path", ["/source/zoom_eu", *STREAMS, *FLOWS])
def test_any_name_fits_and_runs_nothing(
    browser: Browser, path: str, viewport: ViewportSize
) -> None:
    with opened(browser, path, viewport, script=True, local=berlin) as page:
        page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true })")
        wide = page.evaluate("""() => [...document.querySelectorAll("body *")].filter((e) =>
            !e.closest("svg, .hidden, .shapes, thead")
            && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML)""")
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert page.locator("script, img").count() == 0
        assert page.title().endswith("callflow")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/source/zoom_eu", STREAMS[0], STREAMS[2], FLOWS[0]])
def test_all_text_stands_out(browser: Browser, path: str, scheme: str) -> None:
    with opened(browser, path, scheme=scheme, script=True, picture=False) as page:
        ratios = page.evaluate(CONTRASTS)
        assert len(ratios) > 8
        assert {each: ratio for each, ratio in ratios.items() if ratio < 4.5} == {}


def test_the_keyboard_reaches_the_picture_and_what_is_in_the_table(browser: Browser) -> None:
    with opened(browser, FLOWS[0]) as page:
        names = []
        for _ in range(20):
            page.keyboard.press("Tab")
            here = page.locator(":focus")
            if here.count() == 0:
                break
            assert here.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
            names.append(here.evaluate("e => e.tagName"))
            if names[-1] == "SUMMARY":
                page.keyboard.press("Enter")
    assert names[:4] == ["A", "A", "FIGURE", "SUMMARY"]
    assert names[4:7] == ["A", "A", "A"]
