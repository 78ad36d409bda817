"""The pages of sources and flows as texts: what they say, what is escaped, what is refused."""

import re
import threading
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from etl.daemon.web.asking import AT_ONCE, one_at_a_time
from etl.daemon.web.flow_contents import FLOWS, ROWS, STEPS, fitted
from etl.errors import ConfigError, WarehouseError
from etl.status.drawing import Drawing
from etl.status.flows import FlowStory, SourceFlows
from tests.web import calls, fleet
from tests.web.running import running
from tests.web.test_page import Page, in_order

BILLING = "/flow?key=zoom_eu%2Ff1"
SVG = '<svg role="img" aria-label="" width="400pt" height="300pt"><path fill="#ffffff"/></svg>'


def shown(path: str, status: int = 200, **given: object) -> Page:
    with running(**given) as client:  # type: ignore[arg-type]
        answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


# --- a source -------------------------------------------------------------------------------------
def test_the_status_page_leads_to_sources_and_those_to_flows() -> None:
    status = shown("/")
    assert "/source/zoom_eu" in status.links()
    source = shown("/source/zoom_eu")
    assert BILLING in source.links()
    assert "/flow?key=zoom_eu%2Fg1" in source.links()
    flow = shown(BILLING)
    assert {"/", "/source/zoom_eu"} <= set(flow.links())


def test_a_source_shows_its_lists_its_changes_its_flows_and_what_is_gone() -> None:
    page = shown("/source/zoom_eu")
    assert page.titles()[0] == "zoom_eu · callflow"
    in_order(
        page.text, "zoom · every 15m", "good", "4m 20s old", "Last changes", "2026-03-13 17:05",
        "Billing", "by u-anna, made 2026-03-13 17:01", 'name: "Invoices" → "Billing"', "8 flows",
        "Billing", "published, live", "voice", "2026-03-11 03:12 by u-anna", "2 findings", "Gone",
    )  # fmt: skip
    assert page.headings() == ["1 zoom_eu", "2 Last", "2 Flows", "2 Gone"]


def test_what_a_source_has_not_is_not_there() -> None:
    empty = shown("/source/zoom_eu", source=lambda _: SourceFlows([], [], [], {}))
    assert "No change was seen yet." in empty.text
    assert "0 flows" in empty.text
    assert empty.count("table") == 0
    assert empty.headings() == ["1 zoom_eu", "2 Last", "2 Flows"]


def test_the_flows_of_a_source_are_paged_and_narrowed() -> None:
    many = partial(calls.of_source, number=2 * FLOWS + 5)
    first = shown("/source/zoom_eu", source=many)
    assert "205 flows, page 1 of 3" in first.text
    assert first.count("tr") == FLOWS + 1
    assert "/source/zoom_eu?page=2" in first.links()
    last = shown("/source/zoom_eu?page=99", source=many)
    assert "page 3 of 3" in last.text
    assert last.count("tr") == 6
    one = shown("/source/zoom_eu?q=FLOW+0150", source=many)
    assert "1 match" in one.text
    assert one.count("tr") == 2
    paged = shown("/source/zoom_eu?q=flow&page=2", source=many)
    assert "/source/zoom_eu?q=flow" in paged.links()
    assert ("input", "flow") in [(tag, given.get("value")) for tag, given in paged.tags]


def test_an_account_is_shown_where_a_source_has_several() -> None:
    rows = [calls.flow_row("A", "a", account_id="ccc-one"),
            calls.flow_row("B", "b", account_id="ccc-two")]  # fmt: skip
    assert (
        "ccc-two" in shown("/source/zoom_eu", source=lambda _: SourceFlows(rows, [], [], {})).text
    )
    assert "ccc-one" not in (
        shown("/source/zoom_eu", source=lambda _: SourceFlows(rows[:1], [], [], {})).text
    )


def test_a_source_that_is_no_longer_configured_still_has_its_page() -> None:
    page = shown("/source/zoom_eu", view=fleet.overview())
    assert "no source has this name any more" in page.text
    assert BILLING in page.links()


@pytest.mark.parametrize("name", ["nope", "<script>alert(1)</script>", "ünï", "", "a/b"])
def test_an_unknown_source_leads_back_to_the_list(name: str) -> None:
    page = shown(f"/source/{quote(name, safe='')}", 404)
    in_order(
        page.text,
        "There is no such source",
        name or "(no name)",
        "Do now: choose one from the list",
    )
    assert page.links() == ["/", "/"]
    assert page.count("script") == 0


# --- a flow ---------------------------------------------------------------------------------------
def test_a_flow_shows_what_it_is_and_what_is_wrong_with_it() -> None:
    page = shown(BILLING)
    assert page.titles()[0] == "Billing · zoom_eu · callflow"
    in_order(
        page.text, "Billing", "Status", "published", "Live", "yes", "Kind", "voice", "Modified",
        "2026-03-11 03:12 by u-anna", "Unchanged since", "Provider", "zoom", "Id", "f1",
        "Findings", "dead end at Sales: Billing since 2026-03-13 01:12, 1d 2h",
        "loop at Menu: s2 since 2026-03-05 03:12, 9d", "no start since", "Entry points",
        "+4930123456", "phone", "de-DE", "Inside", "References", "Billing", "flow", "Billing",
        "Menu", "flow", "f2 no such flow", "Sales", "url", "f2 an expression",
        "Used by Billing at s9", "Versions", "3", "published",
        "2026-03-05 03:12 by u-ben", "unknown", "Last changes", "2026-03-13 17:05",
        'name: "Invoices" → "Billing"',
    )  # fmt: skip
    assert page.headings() == ["1 Billing", "2 Findings", "2 Entry", "2 Inside", "2 References",
                               "2 Versions", "2 Last"]  # fmt: skip


def test_a_number_whose_calls_and_messages_lead_here_says_which_they_are() -> None:
    its = calls.content()
    (entry,) = its.entry_points
    its = replace(
        its,
        entry_points=[{**entry, "entry_point_id": f"PN1/{way}"} for way in ("voice", "sms")],
        flow={**its.flow, "account_id": "AC1"},
    )
    page = shown(BILLING, flow=lambda _: calls.story_of(its))
    in_order(page.text, "+4930123456", "phone, voice", "+4930123456", "phone, sms")
    assert ("a", {"href": "/flow?key=zoom_eu%2FAC1%2Ff2"}) in page.tags


def test_without_the_extra_a_line_says_why_and_the_table_is_open() -> None:
    page = shown(BILLING)
    in_order(
        page.text, "No picture: pygraphviz is not installed.",
        "Do now: pip install '/path/to/callflow[pictures]'", "3 steps as a table", "1 Billing",
        "INCOMING_CALL", "Billing → 2 Menu", "2 Menu", "timeout ↺ 2 Menu", "1 → 3 Sales", "loop",
        "3 Sales", "done → nothing", "dead end",
    )  # fmt: skip
    assert ("details", {"class": "steps", "open": None}) in page.tags
    assert page.count("figure") == 0


def test_with_a_picture_the_table_is_closed() -> None:
    asked: list[Drawing] = []

    def draw(drawing: Drawing) -> str:
        asked.append(drawing)
        return SVG

    page = shown(BILLING, draw=draw)
    assert ("details", {"class": "steps"}) in page.tags
    assert page.count("figure") == 1
    assert "No picture" not in page.text
    assert '<svg role="img" aria-label="The steps" width="452" height="339">' in page.html
    assert [(each.title, len(each.steps), each.addresses) for each in asked] == [
        ("", 3, ("+4930123456",))
    ]


def test_a_flow_that_is_gone_shows_its_last_content_and_when_it_went() -> None:
    its = replace(calls.content(), gone_at=fleet.ago(days=1))
    page = shown(BILLING, flow=lambda _: calls.story_of(its))
    in_order(
        page.text, "Gone callflow saw at 2026-03-13 03:12 that this flow is gone. This is its last",
        "Live", "it was", "dead end at Sales: Billing since 2026-03-13 01:12, 2h",
    )  # fmt: skip
    assert ("body", {"class": "down"}) in page.tags


def test_a_flow_of_which_nothing_is_known_has_a_page() -> None:
    row = dict.fromkeys(calls.flow_row("x", "f1")) | {
        "provider": "zoom", "source": "zoom_eu", "flow_id": "f1", "flow_key": "zoom_eu/f1",
        "is_live": False, "has_unpublished_changes": False, "valid_from": fleet.NOW,
    }  # fmt: skip
    empty = calls.content(None, flow=row, entry_points=[], versions=[], findings=[], steps=[],
                          links=[], uses=[], used_by=[])  # fmt: skip
    page = shown(BILLING, flow=lambda _: calls.story_of(empty, []))
    in_order(
        page.text, "(no name)", "unknown", "no", "No entry point leads to this flow.",
        "The warehouse holds no steps of this flow.", "No change of it was seen yet.",
    )  # fmt: skip
    assert "None" not in page.text
    assert page.headings() == ["1 (no", "2 Entry", "2 Inside", "2 Last"]


def test_versions_that_differ_are_named() -> None:
    newer = calls.content(
        flow=calls.flow_row("x", "f1", has_unpublished_changes=True, newest_version=7)
    )
    page = shown(BILLING, flow=lambda _: calls.story_of(newer))
    assert "3 is published, 7 is the newest" in page.text


def test_a_huge_flow_is_cut_and_says_so() -> None:
    number = 5000
    steps = [calls.step(f"s{at}", f"Step {at}") for at in range(number)]
    links = [calls.link(f"s{at}", 0, "ok", f"s{at + 1}") for at in range(number)]
    findings = [{"step_id": f"s{at}", "finding": "unreachable", "detail": None,
                 "valid_from": fleet.NOW} for at in range(number)]  # fmt: skip
    huge = calls.content(steps=steps, links=links, findings=findings)
    page = shown(BILLING, flow=lambda _: calls.story_of(huge))
    assert f"and {number - STEPS:,} more" in page.text
    assert f"and {number - ROWS:,} more" in page.text
    assert len(page.html) < 500_000


@pytest.mark.parametrize("number", range(1, len(calls.NAMES) + 1))
def test_no_name_is_more_than_text(number: int) -> None:
    for page in (shown(f"/flow?key=zoom_eu%2Ff{number}"), shown("/source/zoom_eu")):
        assert page.count("script") == page.count("img") == page.count("style") == 0
        assert not any(name.startswith("on") or name == "style" for _, given in page.tags
                       for name in given)  # fmt: skip
        assert "49" not in page.text.replace("+4930123456", "")
        assert "\u202e" not in page.html
    name = calls.NAMES[number - 1]
    if name and "\u202e" not in name:
        assert " ".join(name.split()) in shown(f"/flow?key=zoom_eu%2Ff{number}").text


@pytest.mark.parametrize("key", ["zoom_eu/x", "zoom_eu", "x/<script>alert(1)</script>", "\0", "/"])
def test_an_unknown_flow_leads_to_its_source_or_to_the_list(key: str) -> None:
    page = shown(f"/flow?key={quote(key, safe='')}", 404)
    in_order(page.text, "There is no such flow", "has never seen a flow with the key", "Do now")
    assert page.links()[1:] == (["/source/zoom_eu"] if "zoom_eu" in key else ["/"])
    assert page.count("script") == 0


@pytest.mark.parametrize("path", ["/flow", "/flow?key="])
def test_an_address_without_a_key_is_explained(path: str) -> None:
    page = shown(path, 404)
    assert "The address does not say which flow: it ends with ?key=" in page.text


# --- a database that is away, slow or asked too much ----------------------------------------------
@pytest.mark.parametrize("path", ["/source/zoom_eu", BILLING])
def test_a_database_that_is_away_is_named_with_what_to_do(path: str) -> None:
    def away(_: str) -> SourceFlows:
        raise WarehouseError("Postgres is <away>", advice="start it")

    page = shown(path, 503, source=away, flow=away)
    in_order(page.text, "cannot be shown", "Postgres is <away>", "Do now: start it")


@pytest.mark.parametrize("path", ["/source/zoom_eu", BILLING])
def test_a_database_that_hangs_costs_only_so_many_threads(path: str) -> None:
    go_on = threading.Event()
    asked: list[object] = []

    def hangs(value: object) -> Any:
        asked.append(value)
        assert go_on.wait(60)

    try:
        with running(recent=hangs, source=hangs, flow=hangs, patience=0.1) as client:
            first = client.get(path)
            assert first.status_code == 503
            assert "the database did not answer within 0.1 s" in first.text
            assert "reload this page" in first.text
            for _ in range(5):
                client.get("/")  # its question counts as well
            assert "last four questions" in client.get(path).text
            assert len(asked) == AT_ONCE
            assert client.get("/healthz").status_code == 200
    finally:
        go_on.set()


def test_a_bug_in_a_question_shows_no_traceback() -> None:
    def broken(_: str) -> FlowStory:
        raise RuntimeError("hunter2")

    with running(flow=broken) as client:
        answer = client.get(BILLING)
    assert answer.status_code == 500
    assert "hunter2" not in answer.text


# --- pictures -------------------------------------------------------------------------------------
def test_one_picture_is_drawn_at_a_time_and_the_others_wait() -> None:
    under_way, most = 0, 0
    lock, started, go_on = threading.Lock(), threading.Event(), threading.Event()

    def draw(_: Drawing) -> str:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        started.set()
        assert go_on.wait(60)
        with lock:
            under_way -= 1
        return SVG

    drawn = one_at_a_time(draw, 60)
    found: list[str] = []

    def ask() -> None:
        found.append(drawn(Drawing("", ())))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for each in threads:
        each.start()
    assert started.wait(60)
    go_on.set()
    for each in threads:
        each.join(60)
    assert (most, found) == (1, [SVG] * 3)


def test_who_waits_in_vain_hears_so_and_the_next_is_drawn() -> None:
    started, go_on = threading.Event(), threading.Event()

    def draw(_: Drawing) -> str:
        started.set()
        assert go_on.wait(60)
        return SVG

    drawn = one_at_a_time(draw, 0.01)
    first = threading.Thread(target=drawn, args=(Drawing("", ()),))
    first.start()
    try:
        assert started.wait(60)
        with pytest.raises(ConfigError, match="other pictures are being drawn → reload"):
            drawn(Drawing("", ()))
    finally:
        go_on.set()
        first.join(60)
    assert drawn(Drawing("", ())) == SVG


def test_no_more_than_four_wait_for_a_picture() -> None:
    go_on, started = threading.Event(), threading.Semaphore(0)

    def draw(_: Drawing) -> str:
        started.release()
        assert go_on.wait(60)
        raise ConfigError("no picture")

    drawn = one_at_a_time(draw, 60)
    refused = threading.Semaphore(0)

    def ask() -> None:
        try:
            drawn(Drawing("", ()))
        except ConfigError as error:
            if "other pictures" in str(error):
                refused.release()

    threads = [threading.Thread(target=ask) for _ in range(AT_ONCE + 2)]
    for each in threads:
        each.start()
    assert started.acquire(timeout=60)
    for _ in range(2):
        assert refused.acquire(timeout=60)
    go_on.set()
    for each in threads:
        each.join(60)


@pytest.mark.parametrize(
    ("size", "shown_as", "tall"),
    [
        ((400, 300), ("452", "339"), False),
        ((1100, 300), ("1150", "314"), False),
        ((9000, 300), ("7200", "240"), False),
        ((200, 40000), ("226", "45200"), True),
    ],
)
def test_a_picture_is_as_large_as_its_words_need(
    size: tuple[int, int], shown_as: tuple[str, str], tall: bool
) -> None:
    svg, is_tall = fitted(f'<svg width="{size[0]}pt" height="{size[1]}pt">')
    assert re.findall(r'"(\d+)"', svg) == list(shown_as)
    assert is_tall is tall


def test_an_unexpected_picture_stays_as_it_is() -> None:
    assert fitted("<svg>") == ("<svg>", False)
