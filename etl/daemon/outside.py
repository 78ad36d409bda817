"""What the outside sees of the daemon: its overview, its page, its metrics, its alerts."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, make_url

from etl.config.redact import Redactor
from etl.config.settings import Daemon as DaemonSettings
from etl.daemon import alerts, connections, messages
from etl.daemon.alerts import Alert
from etl.daemon.context import Context, Moment, Surroundings
from etl.daemon.executors import Threads
from etl.daemon.leading import Standing
from etl.daemon.metrics import Metrics
from etl.daemon.snapshot import Snapshot
from etl.daemon.web.app import app
from etl.daemon.web.asking import Questions, one_at_a_time
from etl.daemon.web.server import listen, serving
from etl.errors import CallflowError
from etl.extract.route import Route, route_of
from etl.load import runs
from etl.status import graphviz
from etl.status.health import Overview, Reach, Role, StreamHealth, assess
from etl.version import __version__
from etl.warehouse.roles import READER

TRY_AGAIN = 10.0
"""Seconds until a port that was taken is tried again."""
SEND_AGAIN = 30.0
"""Seconds until alerts that the webhook did not take are sent again."""
PICTURE = 4.0
"""Seconds that the process which draws a flow may take."""


class Notes:
    """What a person should know of this daemon: shown on its page, and logged once."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._texts: dict[str, str] = {}

    def set(self, about: str, text: str | None, redact: Redactor) -> None:
        """Replace the note about something; None removes it. Its lines stay lines on the page."""
        text = text and redact.message(text, keep="\n")
        if text is None:
            self._texts.pop(about, None)
        elif self._texts.get(about) != text:
            self._texts[about] = text
            self._log.warning(" ".join(text.split()))

    def texts(self) -> tuple[str, ...]:
        """Return all notes, the oldest first."""
        return tuple(self._texts.values())


def overview(
    context: Context,
    standing: Standing,
    snapshot: Snapshot | None,
    *,
    now: Moment,
    started: Moment,
    notes: tuple[str, ...],
    running: Mapping[tuple[str, str], float],
    next_runs: Mapping[str, datetime],
    role: Role | None = None,
) -> Overview:
    """Return what is known `now`.

    `running` has the seconds since the start of each run. Unless `role` is given, it follows from
    the standing.
    """
    streams: tuple[StreamHealth, ...] = ()
    seen_at = None
    if snapshot is not None:
        time = snapshot.time(now.clock)
        seen_at = now.wall - timedelta(seconds=now.clock - snapshot.read_at)
        streams = assess(
            context.settings,
            snapshot.rows,
            time,
            since=time - timedelta(seconds=now.clock - started.clock),
            next_runs=next_runs if standing.lease else {},
            running={pair: now.wall - timedelta(seconds=age) for pair, age in running.items()},
            held=snapshot.held,
        )
    if role is None:
        asleep: Role = "standby" if snapshot is not None else "starting"
        role = "leader" if standing.leads(now.clock) else asleep
    return Overview(
        at=now.wall,
        version=__version__,
        role=role,
        leader=standing.leader,
        process=context.process,
        started_at=started.wall,
        seen_at=seen_at,
        database=standing.trouble,
        notes=notes,
        public_url=context.settings.daemon.public_url,
        reach=reach(context),
        streams=streams,
    )


def reach(context: Context) -> Reach | None:
    """Return how clients connect to the warehouse; None until it was reached.

    None also if libpq cannot read the URL; a command that connects by it says so. The role is that
    of `read_url`, or the reader of the embedded Postgres.
    """
    if context.engines is None:
        return None
    warehouse = context.settings.warehouse
    url = context.engines.own.url
    if warehouse.read_url is not None:
        url = make_url(warehouse.read_url.get_secret_value())
    libpq = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(libpq).items() if value}
    except ProgrammingError:
        return None
    is_ours = warehouse.url is None
    role = given.get("user") if warehouse.read_url else READER if is_ours else None
    return Reach(
        host=given.get("host", ""),
        port=given.get("port", "5432"),
        database=given.get("dbname") or given.get("user", ""),
        role=role,
        embedded=is_ours and warehouse.read_url is None,
    )


class Page:
    """Serves the overview over HTTP, at the address and with the token of the settings.

    The loop sets `shown`; the threads of the server read it.
    """

    def __init__(
        self,
        shown: Overview,
        questions: Questions,
        metrics: Metrics,
        notes: Notes,
        given: Surroundings,
    ) -> None:
        self.shown = shown
        self._questions = questions
        draw = partial(graphviz.svg, seconds=PICTURE)
        self._draw = one_at_a_time(draw, PICTURE)
        self._metrics = metrics
        self._notes = notes
        self._given = given
        self._server = ExitStack()
        self._served: tuple[str, str | None] | None = None
        self._try_at = float("-inf")

    def serve(self, settings: DaemonSettings, now: float, redact: Redactor) -> None:
        """Serve as the settings say.

        When it cannot listen there it says so in a note, goes on where it listened before, and
        tries again after TRY_AGAIN seconds. `now` is by the steady clock.
        """
        token = settings.http_token.get_secret_value() if settings.http_token else None
        wanted = (settings.http, token)
        if wanted == self._served or now < self._try_at:
            return
        if self._served is not None and self._served[0] == settings.http:  # only a new token
            self.close()
        try:
            sock = listen(settings.http) if settings.http else None
        except CallflowError as error:
            self._try_at = now + TRY_AGAIN
            self._notes.set("http", f"{error}; trying again", redact)
            return
        self.close()
        self._served = wanted
        self._notes.set("http", None, redact)
        if sock is None:
            return
        page = app(lambda: self.shown, self._questions, self._render, self._draw, token=token)
        self._server.enter_context(serving(page, sock))
        self._given.log.info("the status page is up", url=f"http://{settings.http}/")

    def try_now(self) -> None:
        """Do not wait before the next attempt to listen."""
        self._try_at = float("-inf")

    def close(self) -> None:
        """Serve no more."""
        self._server.close()
        self._served = None

    def _render(self) -> bytes:
        return self._metrics.render(self.shown.as_seen_at(self._given.wall()))


class Alerting:
    """Sends alerts to the webhook, one message at a time, in its own thread.

    Used by the main thread only. What was sent is recorded in the warehouse, so that it is sent
    once, whichever daemon leads.
    """

    def __init__(self, metrics: Metrics, notes: Notes) -> None:
        self._metrics = metrics
        self._notes = notes
        self._message: Future[None] | None = None
        self._next_at = self._recorded_at = float("-inf")

    def beat(
        self, context: Context, shown: Overview, snapshot: Snapshot | None, now: float
    ) -> None:
        """Follow the message under way; when there is none, send the alerts that are due.

        Nothing is sent unless this daemon leads and the warehouse answers. `now` is by the steady
        clock.
        """
        if self._message is not None and self._message.done():
            message, self._message = self._message, None
            self._finish(message.exception(), context, now)
        webhook = context.settings.daemon.alert_webhook
        if (
            self._message is not None
            or webhook is None
            or snapshot is None
            or context.lease is None
            or context.engines is None
            or shown.database is not None
            or now < self._next_at
            or snapshot.read_at <= self._recorded_at  # it does not know what was sent since
        ):
            return
        found = alerts.alerts(shown.streams, snapshot.alerted, context.redact)
        if found:
            url, route = webhook.get_secret_value(), route_of(context.settings.network)
            self._message = Threads().submit(_send, url, route, found, context)

    def _finish(self, error: BaseException | None, context: Context, now: float) -> None:
        self._metrics.alerted(error is None)
        if error is None:
            self._recorded_at = now
            self._notes.set("webhook", None, context.redact)
            return
        self._next_at = now + SEND_AGAIN
        if not isinstance(error, CallflowError):
            raise error
        self._notes.set("webhook", f"no alert could be sent: {error}", context.redact)


def _send(url: str, route: Route, found: Sequence[Alert], context: Context) -> None:
    given = context.settings.daemon
    messages.send(
        url, found, form=given.alert_format, page=given.public_url, route=route,
        redact=context.redact,
    )  # fmt: skip
    if context.engines is not None:
        connections.attempt(context.engines.own, context.redact, _record, found)


def _record(connection: Connection, sent: Sequence[Alert]) -> None:
    for alert in sent:
        runs.record_alert(connection, alert.source, alert.stream, alert.state)
