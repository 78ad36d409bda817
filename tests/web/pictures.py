"""`python -m tests.web.pictures [DIRECTORY]`: photograph the pages in headless Chromium.

Writes docs/images/status-*.png, stream.png and run.png, of a healthy daemon with made-up data. With
a directory it writes the pages in all states there, to be looked at: narrow and wide, light and
dark.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from playwright.sync_api import Browser, ViewportSize, sync_playwright

from etl.status.flows import Row
from etl.status.health import Overview, Reach
from tests.web import calls, fleet
from tests.web.running import running

IMAGES = Path(__file__).resolve().parents[2] / "docs/images"
WIDE, NARROW = (1280, 800), (390, 844)
BERLIN = ZoneInfo("Europe/Berlin")


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: of which page in which state, how wide, light or dark."""

    file: str
    view: Overview
    path: str = "/"
    size: tuple[int, int] = WIDE
    scheme: str = "light"
    whole: bool = True


REACH = Reach("db.example", "5432", "callflow", "bi_reader")
HEALTHY = replace(fleet.ALL_WELL, reach=REACH, public_url="https://callflow.example")
CAUSE = "page 1: cannot connect to flex-api.twilio.com: Connection refused (6 attempts)"
ALL_FAILED = fleet.overview(
    *(
        fleet.stream(
            "twilio_main", name, state="failed", stale=True, age=9080.0,
            last_success_at=fleet.ago(seconds=9080),
            problem=f"twilio_main.{name}, {CAUSE.replace('1', str(number))}", rows=number * 300,
            advice="check base_url and the network", last_status="failed",
        )
        for number, name in enumerate(("channels", "flex_flows", "studio_flows", "addresses"), 1)
    )
)  # fmt: skip
NEVER = fleet.overview(
    *(
        fleet.stream(source, name, state="never run", age=None, rows=None, last_success_at=None,
                     last_attempt_at=None, changed_at=None, last_status=None, last_full_at=None)
        for source, name in (("alibaba_sh", "contact_flows"), ("zoom_eu", "flows"))
    )
)  # fmt: skip
STOPPED = fleet.overview(
    *fleet.GOOD,
    replace(
        fleet.INCOMPLETE,
        problem="twilio_main.channels: 123 of 1,204 channels of twilio_main were not returned;"
        " nothing was removed",
        rows=1204,
        advice="if that is right, run `callflow sync twilio_main --full --accept-deletes`",
    ),
)
REFUSED = replace(
    HEALTHY,
    notes=(
        "the new configuration is refused, the previous one stays: callflow.toml: 2 problems\n"
        "  schedule.evry (line 2): unknown key; did you mean every?\n"
        "  sources.zoom_eu.client_id (line 9): missing; for example abc123 → fix them, then send"
        " SIGHUP again",
    ),
)
STATES = {
    "good": HEALTHY,
    "never": NEVER,
    "one-failed": fleet.overview(*fleet.GOOD, fleet.FAILED, reach=REACH),
    "one-cause": ALL_FAILED,
    "safety-stop": STOPPED,
    "down": fleet.DOWN,
    "refused": REFUSED,
    "forty": fleet.many(40, bad_each=3),
}


def latest(limit: int) -> Sequence[Row]:
    """Return changes as a healthy daemon would have seen them."""
    found: list[Row] = []
    for at, (source, flow_id, name, made) in enumerate(_CHANGES):
        seen = fleet.ago(hours=3 * at, minutes=4)
        given = {"observed_at": seen, "modified_at": seen.replace(minute=1), "source": source}
        found += [calls.change(flow_id, name, **given, **each) for each in made]
    return found[:limit]


_NUMBER = {"entity": "entry_point", "entity_id": "e1", "field": "flow"}
_CHANGES: Sequence[tuple[str, str, str, Sequence[dict[str, str | None]]]] = (
    ("zoom_eu", "f1", "Billing", [
        {"field": "name", "old_value": "Invoices", "new_value": "Billing"},
        {"field": "status", "old_value": "draft", "new_value": "published"}]),
    ("twilio_main", "f2", "Returns", [
        {**_NUMBER, "entity_name": "+1 212 555 0113", "old_value": "Old menu",
         "new_value": "Returns", "modified_by": None}]),
    ("alibaba_sh", "f3", "Night line", [
        {"entity": "step", "entity_id": "s1", "entity_name": "Greeting", "field": "text",
         "old_value": "We are closed until 8.", "new_value": "We are closed until 9.",
         "modified_by": "li.wei"},
        {"entity": "step", "entity_id": "s2", "entity_name": "Leave a message",
         "change": "created", "field": None, "old_value": None, "new_value": None,
         "modified_by": "li.wei"}]),
    ("zoom_us", "f4", "Summer promotion", [
        {"change": "deleted", "field": None, "old_value": None, "new_value": None,
         "modified_by": None}]),
)  # fmt: skip


def documented() -> list[Shot]:
    """Return the pictures in the documents."""
    failing = STATES["safety-stop"]
    return [
        Shot("status-light.png", HEALTHY),
        Shot("status-dark.png", HEALTHY, scheme="dark"),
        Shot("status-phone.png", HEALTHY, size=NARROW, scheme="dark", whole=False),
        Shot("stream.png", failing, "/streams/twilio_main/channels"),
        Shot("run.png", HEALTHY, "/runs/zoom_eu.flows-0"),
    ]


def every() -> list[Shot]:
    """Return the pages in all states, narrow and wide, light and dark."""
    pages = [(name, view, "/") for name, view in STATES.items()]
    pages += [
        ("stream", STOPPED, "/streams/twilio_main/channels"),
        ("stream-down", fleet.DOWN, "/streams/zoom_us/flows"),
        ("run", HEALTHY, "/runs/zoom_eu.flows-0"),
        ("run-failed", STATES["one-failed"], "/runs/zoom_us.flows-0"),
    ]
    return [
        Shot(f"{name}-{size[0]}-{scheme}.png", view, path, size, scheme)
        for name, view, path in pages
        for size in (WIDE, NARROW)
        for scheme in ("light", "dark")
    ]


def take(browser: Browser, shot: Shot, where: Path) -> None:
    """Photograph one page, from its top to its end."""
    local: Callable[[datetime], datetime] = lambda time: time.astimezone(BERLIN)  # noqa: E731
    with running(shot.view, latest=latest, local=local) as client:
        page = browser.new_page(
            viewport=ViewportSize(width=shot.size[0], height=shot.size[1]),
            color_scheme="dark" if shot.scheme == "dark" else "light",
        )
        page.goto(str(client.base_url.join(shot.path)))
        page.screenshot(path=where / shot.file, full_page=shot.whole)
        page.close()


def main(arguments: Sequence[str]) -> None:
    where = Path(arguments[0]) if arguments else IMAGES
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for shot in every() if arguments else documented():
            take(browser, shot, where)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
