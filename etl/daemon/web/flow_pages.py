"""The pages of a source, with its last changes and its flows, and of a flow, with its picture.

/source/NAME       ?q= narrows the flows, ?page=
/flow?key=KEY      KEY is the flow's flow_key
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from anyio.to_thread import run_sync
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from etl.daemon.web.asking import Draw, Questions, in_time, late
from etl.daemon.web.flow_contents import fitted, listed
from etl.daemon.web.templates import Render, html
from etl.status import flows
from etl.status.health import Overview

PICTURE_PATIENCE = 10.0
"""Seconds that a page waits for its picture, until others are drawn and its own is."""


def routes(
    view: Callable[[], Overview],
    questions: Questions,
    draw: Draw,
    *,
    patience: float,
    render: Render,
) -> list[Route]:
    """Return the routes of these pages; `app` explains what they are given."""
    slow = late(patience)

    async def source(request: Request) -> Response:
        name = request.path_params["name"]
        streams = [each for each in view().streams if each.source == name]
        found, why = await in_time(patience, slow, questions.source, name)
        if found is None:
            return await _answer("unknown.html", 503, called=name, what="source", why=why)
        if not streams and not (found.flows or found.gone or found.changes):
            return await _answer("unknown.html", 404, called=name, what="source", why=None)
        query = request.query_params.get("q", "")[:100].strip()
        listing = listed(name, found, query, request.query_params.get("page", ""))
        return await _answer(
            "source.html", 200, name_of=name, streams=streams, its=found, listing=listing
        )

    async def flow(request: Request) -> Response:
        key = request.query_params.get("key", "")
        found, why = await in_time(patience, slow, questions.flow, key)
        if found is None:
            start = key.partition("/")[0]
            source = start if any(each.source == start for each in view().streams) else ""
            values = {"called": key, "what": "flow", "source": source, "why": why}
            return await _answer("unknown.html", 503 if why else 404, **values)
        drawing = await run_sync(flows.drawing, found.content)
        svg, no_picture = None, None
        if drawing.steps:
            bare = replace(drawing, title="", findings=())  # the page says these
            svg, no_picture = await in_time(
                PICTURE_PATIENCE, "it took too long to draw", draw, bare
            )
        drawn, tall = ("", False) if svg is None else fitted(svg)
        return await _answer(
            "flow.html", 200, story=found, of=found.content, drawing=drawing,
            picture=Markup(drawn), tall=tall,  # noqa: S704 - `draw` escapes
            no_picture=no_picture,
            step_names={row["step_id"]: row["name"] for row in found.content.steps},
        )  # fmt: skip

    async def _answer(template: str, status: int, **values: Any) -> Response:
        return html(await run_sync(lambda: render(template, **values)), status)

    return [Route("/source/{name:path}", source), Route("/flow", flow)]
