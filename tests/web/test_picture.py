"""The page of a flow in a real Chromium: it runs no script, asks for nothing, and can be read."""

import pytest
from playwright.sync_api import Browser

from etl.status.graphviz import svg
from etl.status.picture import html
from tests.test_drawing import AWKWARD, IVR, named
from tests.web.test_browser import CONTRASTS, LAPTOP, PHONE, browser

pytestmark = pytest.mark.slow

__all__ = ["browser"]  # the fixture


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["1280", "360"])
def test_a_flow_can_be_read_and_its_page_asks_for_nothing(
    browser: Browser, viewport: object, scheme: str
) -> None:
    pytest.importorskip("pygraphviz", exc_type=ImportError)
    context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: complaints.append(request.url))
        for flow in (IVR, *map(named, AWKWARD[:8])):
            page.set_content(html(flow, svg(flow)))
            assert page.locator("tbody tr").count() == len(flow.steps)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert min(page.evaluate(CONTRASTS).values()) >= 4.5
        assert complaints == []
    finally:
        context.close()
