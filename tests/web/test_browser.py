"""The status page in a real Chromium. It works without JavaScript, and asks no other server."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, Request, ViewportSize, sync_playwright

from etl.status.health import Overview, Reach
from tests.web import fleet
from tests.web.running import running

pytestmark = pytest.mark.slow

ARGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update",
        "--disable-sync")  # fmt: skip
LAPTOP = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=360, height=740)  # narrower than most
VIEWS = {
    "some bad": fleet.SOME_BAD,
    "all well": fleet.ALL_WELL,
    "database down": fleet.DOWN,
    "many": fleet.many(300, bad_each=7),
    "connect": replace(fleet.ALL_WELL, reach=Reach("db." + "x" * 60, "5432", "callflow", "bi")),
    "long words": fleet.overview(
        fleet.stream("x" * 40, "y" * 60, state="failed", problem="z" * 500, advice="w" * 300)
    ),
    "each state": fleet.overview(
        fleet.stream("a"),
        fleet.stream("b", stale=True, age=4000.0),
        fleet.stream("c", state="never run", age=None, rows=None, running_since=fleet.ago(hours=1)),
        fleet.stream("d", state="throttled", problem="daily limit", advice="nothing"),
        fleet.stream("e", state="not configured", provider="", leftovers=(fleet.left("e"),)),
        fleet.stream("f", "contact_flows", leftovers=(fleet.left("f/ccc-" + "old" * 20),)),
        *fleet.SOME_BAD.streams,
    ),
}

CONTRASTS = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => c / 255)
            .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const found = numbers(getComputedStyle(each).backgroundColor);
            if (found.length === 3 || found[3] === 1) return found;
        }
        throw new Error("nothing is painted behind " + element.outerHTML);
    };
    const found = {};
    for (const element of document.querySelectorAll("body *")) {
        const says = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!says || element.closest("svg, .hidden")) continue;
        const [a, b] = [numbers(getComputedStyle(element).color), behind(element)].map(light);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const name = element.tagName + "." + element.className;
        found[name] = Math.min(found[name] ?? 99, ratio);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


def berlin(time: datetime) -> datetime:
    return time.astimezone(ZoneInfo("Europe/Berlin"))


@contextmanager
def opened(
    browser: Browser,
    view: Overview = fleet.SOME_BAD,
    path: str = "/",
    viewport: ViewportSize = LAPTOP,
    *,
    scheme: str = "light",
    script: bool = False,
    token: str | None = None,
) -> Iterator[Page]:
    """Yield the page in the browser; then check that it logged nothing and asked only us."""
    complaints: list[str] = []
    requests: list[Request] = []
    with ExitStack() as stack:
        client = stack.enter_context(running(view, token=token, local=berlin))
        context = browser.new_context(
            viewport=viewport,
            color_scheme="dark" if scheme == "dark" else "light",
            java_script_enabled=script,
            http_credentials={"username": "me", "password": token} if token else None,
        )
        stack.callback(context.close)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.on("request", lambda request: requests.append(request))
        answer = page.goto(str(client.base_url.join(path)))
        assert answer is not None
        assert answer.status == 200
        yield page
        assert complaints == []
        hosts = {urlsplit(request.url).netloc for request in requests}
        paths = {urlsplit(request.url).path for request in requests}
        assert hosts - {""} == {f"{client.base_url.host}:{client.base_url.port}"}
        assert {each for each in paths if each.startswith("/")} == {"/", "/style.css"}


@pytest.mark.parametrize(
    ("name", "viewport"),
    [
        *(pytest.param(name, PHONE, id=f"360-{name}") for name in VIEWS),
        *(
            pytest.param(
                name, LAPTOP, id=f"1280-{name}", marks=[] if name == "many" else pytest.mark.more
            )
            for name in VIEWS
        ),
    ],
)
def test_it_fits_without_sideways_scrolling(
    browser: Browser, name: str, viewport: ViewportSize
) -> None:
    with opened(browser, VIEWS[name], viewport=viewport, script=True) as page:
        if name != "many":
            page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true })")
        wide = page.evaluate("""() => [...document.querySelectorAll("body *")].filter((e) =>
            !e.closest("svg, .hidden, .shapes, thead")
            && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML)""")
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_it_works_without_javascript(browser: Browser) -> None:
    with opened(browser) as page:
        assert page.title() == "2 bad · callflow"
        assert page.locator("h1").inner_text() == "2 of 5 streams need attention"
        table = page.locator("table").first
        assert not table.is_visible()
        page.locator("summary").first.click()
        assert table.is_visible()
        page.get_by_label("Filter").fill("zoom_eu")
        page.get_by_role("button", name="Show").click()
        assert page.locator("article").count() == 1
        assert page.locator("table").is_visible()
        page.get_by_role("link", name="hold still").click()
        assert page.get_by_label("Filter").input_value() == "zoom_eu"
        assert page.locator("meta[http-equiv=refresh]").count() == 0


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser) -> None:
    with opened(browser) as page:
        names = []
        for _ in range(40):
            page.keyboard.press("Tab")
            here = page.locator(":focus")
            if here.count() == 0:
                break
            words = here.inner_text() or here.get_attribute("name") or ""
            names.append(" ".join(words.split()))
            assert here.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert names[:5] == ["callflow", "no, 1 reason", "Needs attention", "Sources", "Last changes"]
    for wanted in ("zoom_us.flows", "q", "Show", "what to do", "hold still", "/readyz"):
        assert wanted in names, names
    assert sum("runs of" in name for name in names) == 5


def test_the_first_screen_says_what_to_do(browser: Browser) -> None:
    for viewport in (LAPTOP, PHONE):
        with opened(browser, viewport=viewport) as page:
            box = page.get_by_text(f"Do now: {fleet.SCOPE_ADVICE}").bounding_box()
            assert box is not None
            assert box["y"] + box["height"] < viewport["height"]


@pytest.mark.parametrize(
    "name",
    [
        "each state",
        *(
            pytest.param(name, marks=pytest.mark.more)
            for name in ("some bad", "all well", "database down")
        ),
    ],
)
def test_all_text_stands_out_in_light_and_in_dark(browser: Browser, name: str) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        with opened(browser, VIEWS[name], scheme=scheme, script=True) as page:
            page.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true })")
            ratios = page.evaluate(CONTRASTS)
            assert len(ratios) > 15
            assert {each: ratio for each, ratio in ratios.items() if ratio < 4.5} == {}
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_every_state_has_its_word_and_its_shape_in_sight(browser: Browser) -> None:
    with opened(browser, VIEWS["each state"]) as page:
        shown = page.locator("article .state")
        assert shown.count() == len(VIEWS["each state"].streams)
        for each in shown.all():
            assert each.inner_text().strip()
            box = each.locator("svg").bounding_box()
            assert box is not None
            assert box["width"] > 10
            assert box["height"] > 10


def test_the_chart_has_its_size_and_its_bars(browser: Browser) -> None:
    with opened(browser, viewport=PHONE) as page:
        chart = page.locator("svg.chart[role=img]").first
        box = chart.bounding_box()
        assert box is not None
        assert (box["width"], box["height"]) == (240, 54)
        assert chart.locator("g").count() == 30
        heights = [bar.bounding_box() for bar in chart.locator("path.t").all()]
        assert max(bar["height"] for bar in heights if bar) == pytest.approx(30, abs=1)


def test_a_browser_sends_the_token_it_was_given(browser: Browser) -> None:
    with opened(browser, token="s3cret") as page:
        assert page.locator("h1").inner_text() == "2 of 5 streams need attention"
        colour = page.locator("h1").evaluate("e => getComputedStyle(e).color")
        assert colour == "rgb(179, 35, 27)"  # of the style sheet, which needs the token too


def test_nothing_from_outside_runs(browser: Browser) -> None:
    evil = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
    view = fleet.overview(fleet.stream(state="failed", problem=evil, advice=evil), database=evil)
    with opened(browser, view, script=True) as page:
        assert page.title() == "database trouble · callflow"
        assert page.locator("script, img").count() == 0
