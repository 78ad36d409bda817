"""The application on a real socket of 127.0.0.1, and a client that knows where."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import httpx

from etl.daemon.web.app import Recent, app
from etl.daemon.web.server import listen, serving
from etl.status.health import Overview
from tests.web import fleet


@contextmanager
def running(
    view: Overview = fleet.SOME_BAD,
    recent: Recent | None = None,
    metrics: Callable[[], bytes] = lambda: b"up 1\n",
    *,
    token: str | None = None,
    now: Callable[[], datetime] = lambda: fleet.NOW,
    patience: float = 5.0,
) -> Iterator[httpx.Client]:
    """Serve it. `recent` answers with plausible runs unless one is given."""
    if recent is None:
        recent = partial(fleet.asked, fleet.last_runs(view))
    sock = listen("127.0.0.1:0")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    application = app(lambda: view, recent, metrics, token=token, now=now, patience=patience)
    with (
        serving(application, sock),
        httpx.Client(base_url=url, trust_env=False, verify=False, timeout=60) as client,
    ):
        yield client
