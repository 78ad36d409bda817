"""The pages of a stream, with its last runs and what it misses, and of a run.

/streams/SOURCE/STREAM
/runs/RUN_ID
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from etl.daemon.web.asking import Questions, in_time, late
from etl.daemon.web.templates import Render, html
from etl.status.health import Overview
from etl.status.stories import StreamStory


def routes(
    view: Callable[[], Overview],
    questions: Questions,
    *,
    now: Callable[[], datetime],
    patience: float,
    render: Render,
) -> list[Route]:
    """Return the routes of these pages; `app` explains what they are given."""
    slow = late(patience)

    async def stream(request: Request) -> Response:
        source, name = request.path_params["source"], request.path_params["stream"]
        shown = view().as_seen_at(now())
        pair = (source, name)
        known = {(each.source, each.stream): each for each in shown.streams}.get(pair)
        its, why = None, shown.database
        if why is None:
            its, why = await in_time(patience, slow, questions.stream, pair)
        if known is None and (its is None or not its.runs):
            called = f"{source}.{name}"
            return await _answer(
                "unknown.html", 404 if its else 503, called=called, what="stream", why=why
            )
        return await _answer(
            "stream.html", 200, source=source, called=name, stream=known,
            its=its or StreamStory(), why=why, is_down=shown.database is not None,
        )  # fmt: skip

    async def run(request: Request) -> Response:
        run_id = request.path_params["run_id"]
        found, why = await in_time(patience, slow, questions.run, run_id)
        if found is None:
            status = 503 if why else 404
            return await _answer("unknown.html", status, called=run_id, what="run", why=why)
        return await _answer("run.html", 200, its=found)

    async def _answer(template: str, status: int, **values: Any) -> Response:
        return html(await run_sync(lambda: render(template, **values)), status)

    return [Route("/streams/{source}/{stream}", stream), Route("/runs/{run_id}", run)]
