"""The application on a real socket of 127.0.0.1, and a client that knows where."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import httpx

from etl.daemon.web.app import app
from etl.daemon.web.asking import Draw, Pairs, Questions, Runs
from etl.daemon.web.server import listen, serving
from etl.status.flows import FlowStory, SourceFlows
from etl.status.health import Overview
from tests.web import calls, fleet


@contextmanager
def running(
    view: Overview = fleet.SOME_BAD,
    recent: Callable[[Pairs], Runs] | None = None,
    metrics: Callable[[], bytes] = lambda: b"up 1\n",
    *,
    source: Callable[[str], SourceFlows] = calls.of_source,
    flow: Callable[[str], FlowStory | None] = calls.story,
    draw: Draw = calls.no_picture,
    token: str | None = None,
    now: Callable[[], datetime] = lambda: fleet.NOW,
    patience: float = 5.0,
) -> Iterator[httpx.Client]:
    """Serve it. Unless others are given, `recent` has plausible runs, and calls.py has flows."""
    if recent is None:
        recent = partial(fleet.asked, fleet.last_runs(view))
    sock = listen("127.0.0.1:0")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    questions = Questions(recent, source, flow)
    application = app(
        lambda: view, questions, metrics, draw, token=token, now=now, patience=patience
    )
    with (
        serving(application, sock),
        httpx.Client(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        yield client
