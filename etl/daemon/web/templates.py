"""The pages' templates: what they are given besides their values, and how a page is answered."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from etl.daemon.web import contents, flow_contents
from etl.daemon.web.chart import changes, chart, seconds, took
from etl.daemon.web.contents import between
from etl.status import causes, changed, drawing, flows
from etl.status.words import run_word, span

HERE = Path(__file__).parent
Local = Callable[[datetime], datetime]
"""A time → the same time in the zone that is shown beside UTC"""

_ICONS = {
    tone: "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    f"%3Cpath fill='none' stroke='%23{colour}' stroke-width='3' d='{path}'/%3E%3C/svg%3E"
    for tone, colour, path in (
        ("well", "2e9b63", "M2 9l4 4 8-10"),
        ("bad", "d93a30", "M3 3l10 10M13 3l-10 10"),
        ("down", "d93a30", "M8 2v8M8 12v3"),
        ("plain", "5b7fa6", "M8 1v6M3 15v-5h10v5M8 7v3"),
    )
}


Render = Callable[..., str]
"""(name of a template, and its values by name) → the page"""


def renderer(now: Callable[[], datetime], local: Local) -> Render:
    """Return what makes the pages; `now` is the clock, and `local` the zone that they show."""
    templates = _templates()

    def render(template: str, /, **values: Any) -> str:
        moment = now()
        return templates.get_template(template).render(
            ago=lambda time: f"{between(time, moment)} ago",
            since=lambda time, until=None: between(time, until or moment),
            until=lambda time: "due" if time <= moment else f"in {between(moment, time)}",
            beside=partial(beside, local),
            zone=zone(local, moment),
            **values,
        )

    return render


def beside(local: Local, time: datetime, exact: bool = False) -> str:
    """Return a time in the local zone, to stand beside it in UTC: "04:12 CET"; "" in UTC itself.

    It has its date where that is another one, and its seconds if it is `exact`.
    """
    here = local(time)
    if not here.utcoffset():
        return ""
    clock = f"{here:%H:%M:%S}" if exact else f"{here:%H:%M}"
    date = "" if here.date() == time.date() else f"{here:%Y-%m-%d} "
    return f"{date}{clock} {here.tzname()}"


def zone(local: Local, moment: datetime) -> str:
    """Return the name of the local zone; "" if it is UTC."""
    here = local(moment)
    return here.tzname() or "" if here.utcoffset() else ""


def html(text: str, status: int = 200) -> Response:
    """Return a page; half a surrogate pair in a provider's text does not make it fail."""
    kind = {"Content-Type": "text/html; charset=utf-8"}
    return Response(text.encode("utf-8", "replace"), status, headers=kind)


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["span"] = span
    environment.filters["short"] = lambda text, limit=200: drawing.short(text or "", limit)
    environment.filters["took"] = took
    environment.filters["number"] = "{:,}".format
    environment.filters["minute"] = "{:%Y-%m-%d %H:%M}".format
    environment.filters["second"] = "{:%Y-%m-%d %H:%M:%S}".format
    environment.filters["iso"] = lambda time: time.isoformat(timespec="seconds")
    environment.globals.update(
        chart=chart, run_changes=changes, seconds=seconds, word=contents.word, run_word=run_word,
        urlencode=urlencode, icons=_ICONS, problem_of=causes.problem_of, psql=contents.psql,
        without_name=causes.without_name, LATEST=contents.LATEST,
        stream_link=contents.stream_link, run_link=contents.run_link,
        most=flow_contents, changed=changed, drawn=drawing,
        source_link=flow_contents.source_link, flow_link=flow_contents.flow_link,
        key_beside=flow_contents.key_beside, contact_kind=flows.contact_kind,
        what_follows=flow_contents.what_follows,
    )  # fmt: skip
    return environment
