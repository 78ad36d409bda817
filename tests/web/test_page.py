"""The status page as a text: what stands where, what is escaped, what a page holds at most."""

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from etl.daemon.web.contents import PAGE
from etl.errors import WarehouseError
from etl.status.health import Overview
from tests.web import fleet
from tests.web.running import running

VOID = {"meta", "link", "input", "br", "hr", "img"}
EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp; {{ 7 * 7 }}"


class Page(HTMLParser):
    """The page's text, its tags, and what each section and list item says. Unclosed tags raise."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def links(self) -> list[str]:
        return [str(given["href"]) for tag, given in self.tags if tag == "a"]

    def titles(self) -> list[str]:
        return re.findall(r"<title>(.*?)</title>", self.html)

    def headings(self) -> list[str]:
        found = re.findall(r"<h([1-6]).*?>(.*?)</h", self.html, re.DOTALL)
        return [f"{level} {re.sub('<.*?>', '', words).split()[0]}" for level, words in found]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def in_order(text: str, *words: str) -> None:
    """Check that the words stand in the text in this order."""
    at = 0
    for each in words:
        assert each in text[at:], (each, text)
        at = text.index(each, at) + len(each)


def page(view: Overview, path: str = "/", runs: fleet.Runs | None = None) -> Page:
    """Return the page at `path`, served."""

    def recent(pairs: Sequence[tuple[str, str]]) -> fleet.Runs:
        return fleet.asked(fleet.last_runs(view) if runs is None else runs, pairs)

    with running(view, recent) as client:
        answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def test_the_page_starts_with_the_overall_state() -> None:
    shown = page(fleet.SOME_BAD)
    assert shown.titles()[0] == "2 bad · callflow"
    text = shown.text
    order = [
        "2 of 5 streams need attention",
        "leads etl-1:4711",
        "12d 4h ago",
        "2s ago",
        "no, 1 reason",
        "0.1.0",
        "Needs attention",
        "zoom_us.flows failed, stale",
        fleet.SCOPE.removeprefix("zoom_us.flows, "),
        f"Do now: {fleet.SCOPE_ADVICE}",
        "last complete run 2h 31m ago, last attempt 6m ago, next run in 8m",
        "twilio_main.channels incomplete",
        fleet.STALLED.removeprefix("twilio_main.channels: "),
        "Sources Filter",
        "twilio_main twilio · every 15m · next run in 6m",
        "zoom_us zoom",
        "alibaba_sh alibaba · cron */30 * * * * Asia/Shanghai · next run in 17m",
        "zoom_eu zoom",
    ]
    in_order(text, *order)
    assert fleet.SCOPE not in text  # the name stands above it
    assert shown.headings()[:5] == ["1 2", "2 Needs", "3 zoom_us.flows", "3 twilio_main.channels",
                                    "2 Sources"]  # fmt: skip
    assert ("html", {"lang": "en"}) in shown.tags


def test_a_stream_shows_its_state_freshness_rows_and_runs() -> None:
    runs = {
        ("zoom_eu", "flows"): [
            fleet.run(inserted=3, updated=1, deleted=1, rejected=2, records=1234, requests=7),
            fleet.run(status="failed", error="it broke → mend it", mode="full"),
            fleet.run(status="busy"),
        ]
    }
    shown = page(fleet.overview(fleet.stream(running_since=fleet.ago(seconds=70))), runs=runs)
    text = shown.text
    assert "flows good running for 1m" in text
    assert "4m 20s old of 1h allowed" in text
    assert "1,204 rows, changed 3h ago" in text
    assert "last run 4m ago: 3 new, 1 changed, 1 gone, 2 rejected" in text
    assert "Last 3 runs of zoom_eu.flows" in text
    assert re.sub(r"\s+", " ", re.sub("<.*?>", " ", shown.html)).count("it broke → mend it") == 1
    cells = re.findall(r"<t[dh](?: scope=\"row\"| class=\"\w+\")?>(.*?)</t[dh]>", shown.html)
    assert cells[0] == '<a href="/runs/0f3a">2026-03-14 03:08:15</a>'
    assert cells[1:10] == ["incremental", "complete", "1,234", "3", "1", "1", "2", "7", "4.2s"]
    assert shown.titles()[1:] == [
        "2026-03-14 03:08:15 UTC, busy, 4.2s: nothing changed",
        "2026-03-14 03:08:15 UTC, failed, 4.2s: nothing changed",
        "2026-03-14 03:08:15 UTC, complete, 4.2s: 3 new, 1 changed, 1 gone, 2 rejected",
    ]
    charts = [given["aria-label"] for tag, given in shown.tags if given.get("role") == "img"]
    assert charts == [
        "The last 3 runs: 1 busy, 1 complete, 1 failed; the longest complete one took 4.2s, the"
        " most rows changed are 5."
    ]
    gauges = [given["width"] for tag, given in shown.tags if given.get("class") == "age"]
    assert gauges == ["7.22"]


STATES = {
    "good": fleet.stream(),
    "stale": fleet.stream(stale=True, age=4000.0),
    "never run": fleet.stream(state="never run", age=None, rows=None, last_success_at=None),
    "never run, stale": fleet.stream(state="never run", stale=True, age=None),
    "failed": fleet.stream(state="failed"),
    "incomplete": fleet.stream(state="incomplete"),
    "throttled": fleet.stream(state="throttled", problem="daily limit; paused until 04:00 UTC",
                              advice="nothing; it continues automatically after that"),
    "not available": fleet.stream(state="not available", age=None, stale_after=None,
                                  problem="this account does not have flows", advice="look"),
    "not available, stale": fleet.stream(state="not available", stale=True, age=4000.0),
    "ended": fleet.stream(state="ended", stale_after=None, problem="it ended", advice="read other"),
    "not configured": fleet.stream(state="not configured", provider="", schedule="",
                                   stale_after=None, next_run_at=None),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_a_word_and_a_shape(name: str) -> None:
    shown = page(fleet.overview(STATES[name]))
    words = re.findall(r'<span class="state ([\w-]+)">.*?href="#([\w-]+)".*?</svg> (.*?)</span>',
                       shown.html)  # fmt: skip
    symbol = name.removesuffix(", stale").replace(" ", "-")
    symbol = "stale" if symbol == "never-run" and ", stale" in name else symbol
    assert set(words) == {(symbol, symbol, name)}
    assert ("symbol", {"id": symbol, "viewbox": "0 0 16 16"}) in shown.tags
    bad = name not in ("good", "never run", "not available", "ended", "not configured")
    calm = name in ("not available", "ended")
    waits = name == "never run"
    assert ("The one stream is healthy" in shown.text) is (not bad and not calm and not waits)
    assert ("No stream has been read yet" in shown.text) is waits
    assert ("Nothing needs attention" in shown.text) is calm
    assert ("1 of 1 stream needs attention" in shown.text) is bad
    assert ("#bad-zoom_eu.flows" in shown.links()) is bad
    assert (("li", {"id": "bad-zoom_eu.flows", "class": symbol}) in shown.tags) is bad


def test_what_cannot_be_read_is_counted_and_says_why() -> None:
    lacks, ended = STATES["not available"], STATES["ended"]
    shown = page(fleet.overview(replace(lacks, source="a"), replace(ended, source="b")))
    assert "1 is not available. 1 was ended by the provider." in shown.text
    assert "this account does not have flows: look" in shown.text
    assert "it ended: read other" in shown.text
    assert "no complete run yet" in shown.text
    assert "allowed" not in shown.text


def test_runs_that_read_nothing_say_why_in_words() -> None:
    runs = [
        fleet.run(status="not_available", error_kind=kind) for kind in ("ended", "not_available")
    ]
    shown = page(fleet.overview(fleet.stream()), runs={("zoom_eu", "flows"): runs})
    assert "not_available" not in shown.text
    assert "1 ended, 1 not available" in shown.html
    assert "last run" in shown.text


def test_all_is_well() -> None:
    shown = page(fleet.ALL_WELL)
    assert shown.titles()[0] == "all well · callflow"
    assert "All 5 streams are healthy" in shown.text
    assert "Needs attention" not in shown.text
    assert "Ready yes" in shown.text.replace("Readyyes", "Ready yes")
    waiting = page(fleet.overview(fleet.stream(), STATES["never run"]))
    assert "All 2 streams are healthy 1 had no run yet." in waiting.text


def test_there_is_nothing_yet() -> None:
    shown = page(fleet.overview(role="starting", leader=None, seen_at=None, started_at=None))
    assert shown.titles()[0] == "no streams · callflow"
    assert "There are no streams yet" in shown.text
    assert "starting" in shown.text
    assert "never" in shown.text


def test_a_standby_names_the_leader() -> None:
    view = replace(fleet.ALL_WELL, role="standby", process="etl-2:99")
    shown = page(view)
    assert "stands by etl-2:99" in shown.text
    assert "Leaderetl-1:4711" in shown.text.replace("Leader etl", "Leaderetl")


def test_when_the_database_is_down_it_says_so_once_and_what_was_known() -> None:
    asked: list[object] = []

    def down(pairs: object) -> fleet.Runs:
        asked.append(pairs)
        raise WarehouseError("Postgres refuses", where="db:5432", advice="look whether it runs")

    with running(fleet.DOWN, down) as client:
        shown = Page(client.get("/").text)
    assert asked == []
    assert shown.titles() == ["database trouble · callflow"]
    order = [
        "The database cannot be used",
        "Postgres at db.internal:5432 refuses connections",
        "Do now: see whether it runs; callflow keeps trying",
        "the changed callflow.toml was refused",
        "Do now: run `callflow check`",
        "Last known state, from 3m ago",
        "2026-03-14 03:09:35 UTC: 2 of 5 streams need attention",
        "Needed attention",
        fleet.SCOPE.removeprefix("zoom_us.flows, "),
        "zoom_eu zoom",
    ]
    in_order(shown.text, *order)
    assert shown.text.count("Do now") == 2  # about the database, and about the configuration
    assert "last runs" not in shown.text
    never = page(replace(fleet.DOWN, seen_at=None))
    assert "The database has not answered since this process started." in never.text


def test_when_the_daemon_does_not_report_it_says_so_first() -> None:
    with running(fleet.ALL_WELL, now=lambda: fleet.NOW + timedelta(minutes=5)) as client:
        shown = Page(client.get("/").text)
        advice = client.get("/readyz").text.partition(" → ")[2].splitlines()[0]
    assert f"Do now: {advice}" in shown.text  # a database that hangs looks the same from here
    assert shown.titles()[0] == "no report · callflow"
    assert "The daemon does not report It last looked at the streams 5m ago" in shown.text
    assert "Last known state, from 5m ago 2026-03-14 03:12:38 UTC" in shown.text


def test_slow_runs_are_left_out() -> None:
    go_on = threading.Event()

    def slow(pairs: object) -> fleet.Runs:
        assert go_on.wait(60)
        return {}

    try:
        with running(recent=slow, patience=0.2) as client:
            shown = Page(client.get("/").text)
    finally:
        go_on.set()
    assert "The last runs are not shown: the database did not answer within 0.2 s" in shown.text
    assert fleet.SCOPE_ADVICE in shown.text


def test_everything_from_outside_is_escaped() -> None:
    evil = fleet.stream(
        EVIL, EVIL, provider=EVIL, state="failed", problem=EVIL, advice=EVIL, schedule=EVIL
    )
    view = fleet.overview(evil, version=EVIL, leader=EVIL, process=EVIL + "x", database=EVIL,
                          notes=(f"{EVIL} → {EVIL}",))  # fmt: skip
    runs = {(EVIL, EVIL): [fleet.run(EVIL, EVIL, status="failed", error=EVIL)]}
    shown = page(view, runs=runs)
    assert shown.text.count("<script>alert(1)</script>") > 10
    assert "<script" not in shown.html
    assert "<img" not in shown.html
    assert "{{ 7 * 7 }}" in shown.text
    tame = page(
        replace(view, streams=(fleet.FAILED,)), runs={("zoom_us", "flows"): [fleet.run(error="x")]}
    )
    assert {tag for tag, _ in shown.tags} == {tag for tag, _ in tame.tags}
    assert not any(name.startswith("on") for _, given in shown.tags for name in given)
    with running(view) as client:
        searched = Page(client.get("/", params={"q": EVIL, "page": EVIL}).text)
    assert "<script" not in searched.html
    inputs = [given["value"] for tag, given in searched.tags if tag == "input"]
    assert inputs == [EVIL]


def test_text_that_no_encoding_can_hold_is_still_shown() -> None:
    broken = fleet.stream(state="failed", problem="half a pair: \ud83d, and a nul: \x00")
    shown = page(fleet.overview(broken))
    assert "half a pair: ?" in shown.text


def test_long_messages_are_cut() -> None:
    shown = page(
        fleet.overview(fleet.stream(state="failed", problem="x" * 100_000, advice="y" * 100_000)),
        runs={("zoom_eu", "flows"): [fleet.run(error="z" * 100_000)] * 30},
    )
    assert "x" * 999 + "…" in shown.text
    assert len(shown.html) < 60_000


def test_it_brings_all_it_needs_and_no_script() -> None:
    shown = page(fleet.SOME_BAD)
    assert shown.count("script") == 0
    assert ("meta", {"http-equiv": "refresh", "content": "30"}) in shown.tags
    for tag, given in shown.tags:
        assert "style" not in given, tag  # the Content-Security-Policy would drop it
        for name in ("href", "src", "action"):
            value = given.get(name) or ""
            assert value.startswith(("/", "#", "data:image/svg+xml,")) or not value, (tag, value)
            assert not value.startswith("//")
    ids = [given["id"] for _, given in shown.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert {each[1:] for each in shown.links() if each.startswith("#")} <= set(ids)
    assert {given["for"] for tag, given in shown.tags if tag == "label"} <= set(ids)


def test_the_page_can_stop_refreshing() -> None:
    shown = page(fleet.SOME_BAD)
    assert "/?still=1" in shown.links()
    still = page(fleet.SOME_BAD, "/?still=1&q=zoom")
    assert not any(given.get("http-equiv") == "refresh" for _, given in still.tags)
    assert "/?q=zoom" in still.links()


# --- many streams ---------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_page_holds_so_many_streams_the_bad_ones_first() -> None:
    view = fleet.many(2000, bad_each=20)
    pages = -(-2000 // PAGE)
    asked: list[Sequence[tuple[str, str]]] = []
    [thirty] = fleet.last_runs(fleet.overview(fleet.FAILED)).values()

    def recent(pairs: Sequence[tuple[str, str]]) -> fleet.Runs:
        asked.append(pairs)
        return dict.fromkeys(pairs, thirty) if len(asked) == 1 else {}

    bad = {(each.source, each.stream) for each in view.streams if not each.good}
    with running(view, recent) as client:
        first = client.get("/")
        assert len(first.content) < 750_000
        assert int(first.headers["content-length"]) < 70_000  # as it travels, packed
        shown = Page(first.text)
        assert "100 of 2,000 streams need attention" in shown.text
        assert "70 more on the next pages." in shown.text
        assert f"2,000 of 2,000 streams; page 1 of {pages}" in shown.text
        assert shown.count("article") == PAGE
        html = first.text
        for number in range(2, pages + 1):
            assert f'<a rel="next" href="/?page={number}">' in html
            html = client.get(f"/?page={number}").text
        assert 'rel="next"' not in html
    assert [len(pairs) for pairs in asked] == [PAGE] * (pages - 1) + [2000 % PAGE]
    seen = [pair for pairs in asked for pair in pairs]
    assert len(seen) == len(set(seen)) == 2000
    # Each with the other stream of its source.
    assert bad <= set(seen[:200])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("zoom_eu", ["zoom_eu.flows"]),
        ("ZOOM", ["zoom_eu.flows", "zoom_us.flows"]),
        ("twilio  chan", ["twilio_main.channels"]),
        ("stale", ["zoom_us.flows"]),
        ("alibaba good", ["alibaba_sh.contact_flows"]),
        ("zoom_eu.flows", ["zoom_eu.flows"]),
        ("nothing_like_it", []),
        ("%_", []),
    ],
)
def test_the_filter(query: str, found: list[str]) -> None:
    asked: list[tuple[str, str]] = []

    def recent(pairs: Sequence[tuple[str, str]]) -> fleet.Runs:
        asked.extend(pairs)
        return {}

    with running(fleet.SOME_BAD, recent) as client:
        shown = Page(client.get("/", params={"q": query}).text)
        status = client.get("/api/status", params={"q": query}).json()
    assert sorted(".".join(pair) for pair in asked) == found
    assert sorted(each["name"] for each in status["streams"]) == found
    assert f"{len(found)} of 5 streams match “{query}”" in shown.text.replace("twilio chan", query)
    assert ("No stream matches." in shown.text) is (not found)
    assert "2 of 5 streams need attention" in shown.text


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "²", "999999", "9" * 5000, "1.5"])
def test_a_page_number_out_of_range_shows_the_nearest_page(number: str) -> None:
    with running(fleet.many(100), lambda pairs: {}) as client:
        answer = client.get("/", params={"page": number})
    assert answer.status_code == 200
    assert f"page {'2' if number == '999999' else '1'} of 2" in answer.text


def test_the_last_runs_are_open_where_few_streams_are_shown() -> None:
    shown = page(fleet.SOME_BAD, "/?q=zoom_eu.flows")
    assert [given for tag, given in shown.tags if tag == "details"] == [{"open": None}]
    assert shown.html.count('<th scope="row">') == 30
    every = page(fleet.many(10))
    assert every.html.count('<th scope="row">') == 100
    assert [given for tag, given in every.tags if tag == "details"] == [{}] * 10
    assert "all 30 of twilio_0000.channels" in every.text
