"""The application on a real socket of 127.0.0.1, and a client that knows where."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import httpx

from etl.daemon.web.app import app
from etl.daemon.web.asking import Draw, Pairs, Questions, Runs
from etl.daemon.web.server import listen, serving
from etl.status.flows import FlowStory, Row, SourceFlows
from etl.status.health import Overview
from etl.status.stories import RunStory, StreamStory
from tests.web import calls, fleet, stories


@contextmanager
def running(
    view: Overview = fleet.SOME_BAD,
    recent: Callable[[Pairs], Runs] | None = None,
    metrics: Callable[[], bytes] = lambda: b"up 1\n",
    *,
    latest: Callable[[int], Sequence[Row]] = calls.latest,
    source: Callable[[str], SourceFlows] = calls.of_source,
    flow: Callable[[str], FlowStory | None] = calls.story,
    stream: Callable[[tuple[str, str]], StreamStory] | None = None,
    run: Callable[[str], RunStory | None] | None = None,
    draw: Draw = calls.no_picture,
    token: str | None = None,
    now: Callable[[], datetime] = lambda: fleet.NOW,
    local: Callable[[datetime], datetime] = lambda time: time,
    patience: float = 5.0,
) -> Iterator[httpx.Client]:
    """Serve it. Unless others are given, the answers are those of fleet, calls and stories."""
    if recent is None:
        recent = partial(fleet.asked, fleet.last_runs(view))
    sock = listen("127.0.0.1:0")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    questions = Questions(
        recent=recent,
        latest=latest,
        source=source,
        flow=flow,
        stream=stream or partial(stories.of_stream, view),
        run=run or partial(stories.of_run, view),
    )
    application = app(
        lambda: view, questions, metrics, draw, token=token, now=now, local=local,
        patience=patience,
    )  # fmt: skip
    with (
        serving(application, sock),
        httpx.Client(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        yield client
