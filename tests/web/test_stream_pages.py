"""The pages of streams and runs as texts: what they say, what is escaped, what is refused."""

from dataclasses import replace

import pytest

from etl.errors import WarehouseError
from etl.status.health import Overview
from etl.status.missing import Missing
from etl.status.stories import Rejected, RunStory, StreamStory
from tests.web import calls, fleet
from tests.web.running import running
from tests.web.test_page import EVIL, Page, in_order

CHANNELS = "/streams/twilio_main/channels"


def shown(path: str, status: int = 200, view: Overview = fleet.SOME_BAD, **given: object) -> Page:
    with running(view, **given) as client:  # type: ignore[arg-type]
        answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def down(_: object) -> StreamStory:
    raise WarehouseError("Postgres refuses", where="db:5432", advice="look whether it runs")


# --- a stream -------------------------------------------------------------------------------------
def test_a_stream_shows_its_trouble_what_it_misses_its_runs_and_rejects() -> None:
    page = shown(CHANNELS)
    assert page.titles()[0] == "twilio_main.channels incomplete · callflow"
    in_order(
        page.text, "twilio_main.channels", "incomplete", "the list ended at 41,288",
        "Do now: nothing is deleted", "every 15m next in 6m", "2026-03-14 02:34:20 UTC",
        "38m 20s of 1h allowed", "52,310", "Not listed any more, and kept",
        "left 123 records out", "Billing", "FO" + "0" * 30, "2026-03-14 01:12", "(no name)",
        "and 119 more; callflow show twilio_main.channels --missing lists all",
        "Last runs", "2026-03-14 03:04:", "incomplete",
        "callflow runs twilio_main.channels has more", "Rejected", "no sid, so it has no key",
        "etl.rejects", "Last changes of twilio_main",
    )  # fmt: skip
    assert page.html.count('<tr><th scope="row"><a href="/runs/') == 30
    assert "/source/twilio_main" in page.links()


def test_a_healthy_stream_says_no_more_than_it_has() -> None:
    page = shown("/streams/zoom_eu/flows")
    assert page.titles()[0] == "zoom_eu.flows · callflow"
    assert "Do now" not in page.text
    assert page.headings() == ["1 zoom_eu.flows", "2 Last", "2 Last"]
    assert "/flow?key=zoom_eu%2Ff1" in page.links()


def test_the_first_page_and_the_source_lead_to_the_stream_and_that_to_its_runs() -> None:
    assert CHANNELS in shown("/").links()
    assert "/streams/zoom_eu/flows" in shown("/source/zoom_eu").links()
    assert "/runs/twilio_main.channels-0" in shown(CHANNELS).links()


def test_a_stream_that_was_forgotten_shows_the_runs_that_are_left() -> None:
    runs = fleet.last_runs(fleet.ALL_WELL)["zoom_eu", "flows"]
    page = shown("/streams/zoom_old/flows", stream=lambda _: StreamStory(runs))
    in_order(page.text, "zoom_old.flows", "It is not configured", "Last runs", "complete")


@pytest.mark.parametrize("path", ["/streams/zoom_eu/x", "/streams/x/flows", "/streams/%3Cb/%00"])
def test_an_unknown_stream_leads_to_the_list(path: str) -> None:
    page = shown(path, 404)
    in_order(page.text, "There is no such stream", "Do now: choose one from the list")
    assert page.count("b") == 2  # no name is markup


def test_while_the_database_is_down_a_stream_shows_what_is_known() -> None:
    asked: list[object] = []
    page = shown("/streams/zoom_us/flows", view=fleet.DOWN, stream=asked.append)
    assert asked == []
    in_order(
        page.text, "zoom_us.flows", "failed, stale", "the access token lacks a scope",
        "The database cannot be used: Postgres at db.internal:5432 refuses", "Do now: see whether",
    )  # fmt: skip
    assert page.text.count("Do now") == 1
    assert "Last runs" not in page.text
    shown("/streams/x/flows", 503, view=fleet.DOWN)


def test_a_database_that_fails_is_named_with_what_to_do() -> None:
    page = shown(CHANNELS, stream=down)
    in_order(page.text, "Do now: nothing is deleted", "Its runs are not shown",
             "db:5432: Postgres refuses", "Do now: look whether it runs")  # fmt: skip
    shown("/streams/x/flows", 503, stream=down)


# --- a run ----------------------------------------------------------------------------------------
FAILED = fleet.run(
    "zoom_us", status="failed", mode="full", reason="the last full scan is 25h old",
    error=f"{fleet.SCOPE} → {fleet.SCOPE_ADVICE}", error_kind="credentials", requests=1234,
    retries=6, throttled_seconds=62.0, pages=7, records=31, rejected=2, absent=4, warnings=9,
    rows_written=11, watermark_before=fleet.ago(hours=5), watermark_after=fleet.ago(hours=4),
)  # fmt: skip


def test_a_run_shows_what_it_did_and_why_it_failed() -> None:
    story = RunStory(FAILED, rejects=[Rejected("no id", 2, fleet.NOW)])
    page = shown("/runs/0f3a", run=lambda _: story)
    assert page.titles()[0] == "run of zoom_us.flows failed · callflow"
    in_order(
        page.text, "Run of zoom_us.flows", "failed", "2026-03-14 03:08:15 UTC", "took 4.2s",
        "page 1: the access token lacks a scope", f"Do now: {fleet.SCOPE_ADVICE}", "What it did",
        "full the last full scan is 25h old", "Kind of error", "credentials", "Took4.2s",
        "Requests1,234", "Retries6", "Throttled1m 2s", "Pages7", "Records31", "New0", "Gone0",
        "4 not listed, but kept", "Rejected2", "9", "Rows written11", "Watermark before",
        "2026-03-13 22:12:40 UTC", "Watermark after", "2026-03-13 23:12:40 UTC", "Id0f3a",
        "What changed", "Nothing.", "Rejected", "no id", "etl.rejects",
    )  # fmt: skip
    assert {"/source/zoom_us", "/streams/zoom_us/flows"} <= set(page.links())


def test_a_run_shows_what_changed_in_it() -> None:
    run = fleet.run(inserted=1, updated=2)
    page = shown("/runs/0f3a", run=lambda _: RunStory(run, [calls.change()]))
    in_order(
        page.text, "1 new, 2 changed", "What changed", "Billing", 'name: "Invoices" → "Billing"',
        "callflow changes zoom_eu --since 2026-03-14T03:08:15+00:00 has these",
    )  # fmt: skip
    assert "/flow?key=zoom_eu%2Ff1" in page.links()
    none = shown("/runs/0f3a", run=lambda _: RunStory(run))
    assert "No change of a flow is recorded" in none.text


def test_an_unknown_run_leads_to_the_list() -> None:
    page = shown("/runs/nothing", 404)
    in_order(page.text, "There is no such run", "nothing", "Do now: look for it")
    shown("/runs/0f3a", 503, run=down)


def test_no_text_of_others_is_more_than_text() -> None:
    evil = fleet.stream(state="failed", problem=EVIL, advice=EVIL)
    run = replace(FAILED, error=f"{EVIL} → {EVIL}", reason=EVIL, error_kind=EVIL, run_id=EVIL)
    rejects = [Rejected(EVIL, 1, fleet.NOW)]
    changes = [calls.change("f1", EVIL, old_value=EVIL)]
    story = StreamStory([run], [Missing(EVIL, EVIL, fleet.NOW, None)], 1, rejects, changes)
    pages = [
        shown("/streams/zoom_eu/flows", view=fleet.overview(evil), stream=lambda _: story),
        shown("/runs/x", run=lambda _: RunStory(replace(run, inserted=1), changes, rejects)),
    ]
    for page in pages:
        assert page.text.count("<script>alert(1)</script>") > 5
        assert "<script" not in page.html
        assert "<img" not in page.html
        assert not any(name.startswith("on") for _, given in page.tags for name in given)
        ids = [given["id"] for _, given in page.tags if "id" in given]
        assert len(ids) == len(set(ids))
