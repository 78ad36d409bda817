"""The status page: one cause once, the last changes, how to connect, local times, its colours."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from etl.daemon.web.templates import HERE
from etl.status.health import Reach, StreamHealth
from tests.web import calls, fleet
from tests.web.running import running
from tests.web.test_page import Page, in_order, page


def failing(name: str, number: int, **given: str) -> StreamHealth:
    """Return a stream whose page `number` met the cause of all of them; except for `given`."""
    problem = f"twilio_main.{name}, page {number}: HTTP 503 ({number} attempts)"
    values = {"problem": problem, "advice": "wait, or ask the provider", "state": "failed"}
    return fleet.stream("twilio_main", name, last_status="failed", **(values | given))


def test_one_cause_is_one_box_with_the_names_of_its_streams() -> None:
    names = ("addresses", "channels", "flex_flows")
    other = failing("studio_flows", 4, advice="ask somebody else")
    shown = page(fleet.overview(*map(failing, names, range(1, 4)), other), runs={})
    assert shown.text.count("HTTP 503") == 2
    assert shown.text.count("wait, or ask the provider") == 1
    in_order(
        shown.text, "Needs attention", "3 streams, one cause HTTP 503 (1 attempts)",
        "Do now: wait, or ask the provider", *(f"twilio_main.{name} failed" for name in names),
        "twilio_main.studio_flows failed", "Do now: ask somebody else", "Sources Filter",
    )  # fmt: skip
    for name in (*names, "studio_flows"):
        assert ("li", {"id": f"bad-twilio_main.{name}", "class": "failed"}) in [
            (tag, {key: given.get(key) for key in ("id", "class")}) for tag, given in shown.tags
        ]
        assert f"/streams/twilio_main/{name}" in shown.links()


def test_a_note_keeps_its_lines() -> None:
    note = "refused: 2 problems\n  schedule.evry: unknown key\n  workers: not a number → fix them"
    shown = page(fleet.overview(fleet.stream(), notes=(note,)))
    lines = "refused: 2 problems\n  schedule.evry: unknown key\n  workers: not a number<br>"
    assert lines in shown.html
    style = (HERE / "style.css").read_text("utf-8")
    assert re.search(r"\.note \{[^}]*white-space: pre-line", style)


def test_the_first_page_has_the_last_changes_of_all_sources() -> None:
    many = [calls.change(f"f{number}", observed_at=fleet.ago(hours=number)) for number in range(25)]
    with running(fleet.ALL_WELL, latest=lambda limit: many[:limit]) as client:
        first, narrowed = (Page(client.get(path).text) for path in ("/", "/?q=zoom"))
    in_order(
        first.text, "Last changes", "2026-03-14 03:12", "zoom_eu", "Billing",
        "by u-anna, made", 'name: "Invoices" → "Billing"',
        "These are the newest 20; callflow changes has more.",
    )  # fmt: skip
    assert {"/flow?key=zoom_eu%2Ff1", "#changes"} <= set(first.links())
    assert first.text.count("Invoices") == 20
    assert "Last changes" not in narrowed.text
    with running(fleet.ALL_WELL, latest=lambda _: []) as client:
        assert "No change was seen yet." in client.get("/").text


REACH = Reach("db.example", "5433", "ware house", "bi'reader")


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (REACH, ("psql -h db.example -p 5433 -U 'bi'\"'\"'reader' -d 'ware house'", "read_url")),
        (replace(REACH, role=None), ("-U ROLE", "CREATE ROLE analyst", "callflow grant analyst")),
        (Reach("127.0.0.1", "5544", "callflow", "callflow_reader", embedded=True),
         ("psql -h 127.0.0.1 -p 5544 -U callflow_reader -d callflow", "from its machine only")),
    ],
)  # fmt: skip
def test_the_first_page_says_how_to_connect(reach: Reach, words: Sequence[str]) -> None:
    shown = page(replace(fleet.ALL_WELL, reach=reach))
    in_order(shown.text, "How to connect", *words)
    assert "How to connect" not in page(fleet.ALL_WELL).text


def test_local_time_stands_beside_utc() -> None:
    def berlin(time: datetime) -> datetime:
        return time.astimezone(ZoneInfo("Europe/Berlin"))

    with running(fleet.ALL_WELL, local=berlin) as client:
        shown = Page(client.get("/?q=zoom_eu").text)
    assert "2026-03-14 03:12:40 UTC 04:12:40 CET" in shown.text
    assert re.search(r"2026-03-13 23:\d\d:\d\d 2026-03-14 00:\d\d:\d\d CET", shown.text)
    assert "Times are UTC, with CET, the zone of the daemon, beside it." in shown.text
    assert "CET" not in page(fleet.ALL_WELL).text


# --- colours --------------------------------------------------------------------------------------
def luminance(colour: str) -> float:
    """Return the relative luminance of "#rgb" or "#rrggbb" (WCAG 2.2)."""
    digits = "".join(each * 2 for each in colour) if len(colour) == 3 else colour
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_the_colours_have_the_contrast_of_aa(scheme: str) -> None:
    style = (HERE / "style.css").read_text("utf-8")
    light, dark, paper = re.findall(r":root \{([^}]*)\}", style)
    declared = {"light": light, "dark": dark, "print": paper}[scheme]
    colours = dict(re.findall(r"--(\w+): #([0-9a-f]+);", declared))
    for ground in ("paper", "raised", "faint"):
        for ink, least in (
            *((name, 4.5) for name in ("ink", "soft", "good", "bad", "warn", "wait", "link")),
            ("bar", 3.0), ("rows", 3.0),
        ):  # fmt: skip
            a, b = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (b + 0.05) / (a + 0.05) >= least, (ink, ground)
