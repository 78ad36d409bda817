"""The shapes in which a webhook is sent alerts: Slack's, that of Teams' Workflows, and our own."""

import json
from datetime import timedelta
from typing import Any

import pytest

from etl.daemon.alerts import Alert, alerts
from etl.daemon.messages import CARD_BYTES, LINES, NAMES, payload, send
from etl.version import __version__
from tests.daemon.test_alerts import NOON, hook, new_stream

PAGE = "https://callflow.example"
ADVICE = "check the network"


def failed(source: str = "zoom_eu", number: int = 1, **given: Any) -> Alert:
    """Return the alert on a stream whose page `number` met an error; except for `given`."""
    problem = f"{source}.flows, page {number}: HTTP 503"
    values = {"state": "failed", "problem": problem, "advice": ADVICE, "last_attempt_at": NOON}
    (alert,) = alerts([new_stream(source=source, **(values | given))], {})
    return alert


def well(source: str = "zoom_us") -> Alert:
    (alert,) = alerts([new_stream(source=source, last_success_at=NOON)],
                      {(source, "flows"): "failed"})  # fmt: skip
    return alert


def card(found: list[Alert], page: str | None = None) -> dict[str, Any]:
    """Return the card in the message, after what the documents demand of the message."""
    message = payload(found, "teams", page)
    assert message["type"] == "message"
    (attachment,) = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    content: dict[str, Any] = attachment["content"]
    assert (content["type"], content["version"]) == ("AdaptiveCard", "1.2")
    for block in content["body"]:
        assert block["type"] == "RichTextBlock"
        assert {run["type"] for run in block["inlines"]} == {"TextRun"}
    return content


def lines(content: dict[str, Any]) -> list[str]:
    return ["".join(run["text"] for run in block["inlines"]) for block in content["body"]]


# --- Slack ---------------------------------------------------------------------------------------
def test_slack_gets_a_line_per_stream_and_a_link_if_the_page_is_known() -> None:
    found = [failed(), well()]
    text = "zoom_eu.flows failed: page 1: HTTP 503 → check the network"
    assert payload(found) == {"text": f"{text}\nzoom_us.flows is well again"}
    assert payload(found, "slack", PAGE) == {
        "text": f"{text} <{PAGE}/streams/zoom_eu/flows|status page>\n"
        f"zoom_us.flows is well again <{PAGE}/streams/zoom_us/flows|status page>"
    }


# --- Teams ---------------------------------------------------------------------------------------
def test_a_card_says_one_cause_once() -> None:
    found = [failed("a", 1), failed("b", 2), failed("c", 1, problem="c.flows: no"), well()]
    assert lines(card(found)) == [
        "a.flows, b.flows failed",
        "page 1: HTTP 503",
        "Do now: check the network",
        "c.flows failed",
        "no",
        "Do now: check the network",
        "zoom_us.flows is well again",
    ]


def test_a_card_says_the_state_in_words() -> None:
    stale = failed(stale=True, age=7500.0, stale_after=3600.0)
    assert lines(card([stale]))[0] == "zoom_eu.flows is stale"
    two = [failed("a", state="incomplete"), failed("b", state="incomplete")]
    assert lines(card(two))[0] == "a.flows, b.flows are incomplete"


def test_a_card_links_to_the_page_if_that_is_known() -> None:
    content = card([failed()], PAGE)
    assert content["actions"] == [
        {"type": "Action.OpenUrl", "title": "Open the status page", "url": PAGE}
    ]
    name = content["body"][0]["inlines"][0]
    assert name["selectAction"] == {
        "type": "Action.OpenUrl",
        "url": f"{PAGE}/streams/zoom_eu/flows",
    }
    assert "https" not in json.dumps(card([failed()]))


def test_words_of_others_are_in_runs_that_know_no_markup() -> None:
    evil = "**now** [click](https://evil.example) <at>all</at>"
    content = card([failed(problem=evil, advice=evil)])
    assert lines(content)[1:] == [evil, f"Do now: {evil}"]


def test_a_card_is_small_enough_and_counts_the_rest() -> None:
    many = [failed(f"s{n}", problem=f"problem {n} " + "ü" * 900) for n in range(200)]
    content = card(many)
    shown = [line for line in lines(content) if line.endswith(" failed")]
    assert len(json.dumps(payload(many, "teams"))) <= CARD_BYTES
    assert 3 < len(shown) <= LINES
    assert lines(content)[-1] == f"and {200 - len(shown)} more streams"
    one_cause = [failed(f"s{n}") for n in range(200)]
    assert lines(card(one_cause))[0].endswith(f" and {200 - NAMES} more failed")
    short = [failed(f"s{n}", problem=f"p {n}-x") for n in range(LINES + 1)]
    assert lines(card(short))[-1] == "and 1 more stream"


# --- programs ------------------------------------------------------------------------------------
def test_programs_get_every_alert_with_its_facts() -> None:
    stale = failed("c", stale=True, age=7500.0, stale_after=3600.0, last_success_at=NOON)
    body = payload([failed(), stale, well()], "json", PAGE)
    assert json.loads(json.dumps(body)) == body
    assert (set(body), body["version"]) == ({"version", "alerts"}, __version__)
    first, second, third = body["alerts"]
    assert first == {
        "event": "failed", "source": "zoom_eu", "stream": "flows", "state": "failed",
        "problem": "page 1: HTTP 503", "advice": ADVICE, "since": "2026-11-20T12:00:00+00:00",
        "url": f"{PAGE}/streams/zoom_eu/flows",
    }  # fmt: skip
    assert second["state"] == "stale"
    assert second["since"] == (NOON + timedelta(hours=1)).isoformat()
    assert third == {
        "event": "recovered", "source": "zoom_us", "stream": "flows", "state": "good",
        "problem": None, "advice": None, "since": "2026-11-20T12:00:00+00:00",
        "url": f"{PAGE}/streams/zoom_us/flows",
    }  # fmt: skip
    assert payload([failed(last_attempt_at=None)], "json")["alerts"][0]["since"] is None
    assert payload([failed()], "json")["alerts"][0]["url"] is None
    assert len(payload([failed(f"s{n}") for n in range(90)], "json")["alerts"]) == 90


@pytest.mark.parametrize("form", ["slack", "teams", "json"])
def test_one_message_is_sent_in_the_shape_that_is_asked_for(form: Any) -> None:
    found = [failed("a"), failed("b"), well()]
    with hook() as server:
        send(server.origin, found, form=form, page=PAGE)
    ((_, _, body),) = server.came
    assert json.loads(body) == payload(found, form, PAGE)
