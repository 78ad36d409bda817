"""How a provider is declared: its settings, its streams, and how they are requested.

A declaration is one package, `etl/providers/NAME`, and one entry of `PROVIDERS`. Everything that
lists providers is derived from that tuple. To import it takes no tables: those come with `streams`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from etl.config.redact import Redactor
from etl.config.settings import Schedule, Source, StreamOptions, redactor
from etl.config.settings import Table as SettingsTable
from etl.extract.clock import utc_now
from etl.extract.page import EVERYTHING, Lookup, Page, ScanRequest, Wanted

if TYPE_CHECKING:
    from sqlalchemy import Table

    from etl.extract.http import Http, Seam, Sign
    from etl.extract.verdict import Judge
    from etl.transform.tree import Transform
    from etl.warehouse.model.part import Part

Auth = Callable[[Any, "Seam"], "tuple[Sign, Judge]"]
"""(a source's settings, the seam) → what signs each request, what separates answers from errors"""


@dataclass(frozen=True, slots=True)
class Parts:
    """Numbered parts of a record that never change once they are whole, so each is fetched once.

    `table`   where they are: a child table whose key is the record's and the number of the part.
    `content` its column that only a request for one part fills. A part whose row holds it is whole:
              it keeps its row's values where none are sent, and its children.
    `chosen`  the record's column with the number of the part that is shown apart.
    `shown`   child table of `table` → the table of the record that holds the rows of the chosen
              part without its number. Other columns that the latter has are the record's.
    """

    table: "Table"
    content: str
    chosen: str
    shown: "tuple[tuple[Table, Table], ...]" = ()


@dataclass(frozen=True, slots=True)
class Detail:
    """How a record is completed that its list does not hold whole: by more requests for it.

    `fetch`       asks for the record that is `Wanted`, and returns it as `transform` reads it.
    `fingerprint` columns that the list fills, and of which one changes whenever the record does.
                  A record is asked for only if it is new, or if one of them is unlike its row's.
    `fills`       columns that only `fetch` fills; the others stay as the list has them. (): what
                  `fetch` returns is the whole record.
    `parts`       its parts that need not be fetched again; None: there are none.
    """

    fetch: Callable[["Http", Wanted], Any]
    fingerprint: tuple[str, ...]
    fills: tuple[str, ...] = ()
    parts: Parts | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """One list of a provider, from its API to its tables.

    `tables`     the table of the records, then those of their children, parents first.
    `auth`       authenticates the requests.
    `pages`      reads the list page by page, in full or what the `ScanRequest` wants of it.
    `transform`  turns a page into rows.
    `look_up`    asks for one record by its key without source; None: the API cannot do that.
    `probe`      sends one cheap request that shows whether credentials and rights suffice.
    `detail`     completes the records of a list that does not hold them whole; None: it does.
    `modified`   the column of the provider's modification time: the watermark; None: it has none.
    `scope`      the key column that splits the list (Alibaba: its instances).
    `counted`    whether the API says how many rows the list has.
    `changes`    how a run can read less than the whole list: only changes "since" a watermark, or
                 from the start of a list that comes "newest first"; None: it cannot.
    `on_absent`  what happens to a record that is no longer listed, unless the settings say
                 otherwise: "confirm" that it is gone, or "keep" it, for run-time objects that may
                 leave the list while they still exist.
    `resumable`  whether a later run can resume a scan from a page's pointer.
    `batch`      pages per COPY.
    `page_size`  records of a full page; None: as many as the provider allows.
    `origin`     the key of the source's settings that holds the API's address.
    `path`       where under that address its requests go, with settings in braces, such as
                 "/Accounts/{source.account_sid}".
    `parts`      what its tables add to the views of the schema callflow.
    `request_id` the header of an answer by which the provider's support finds the request.
    `optional`   whether an account may lack it, or credentials the right to it: then 403 or 404 on
                 its list is the state "not available", and no failure.
    `ended`      what to read instead of a list that the provider has announced to end, such as
                 "read toy.menus instead"; "": no end is announced. Refusals that last, and an empty
                 list after rows, are then the state "ended", and no failure.
    """

    name: str
    tables: "tuple[Table, ...]"
    auth: Auth
    pages: Callable[["Http", ScanRequest], Iterator[Page]]
    transform: "Transform"
    look_up: Callable[["Http", tuple[Any, ...]], Lookup] | None
    probe: Callable[["Http", ScanRequest], str]
    detail: Detail | None = None
    modified: str | None = None
    scope: str | None = None
    counted: bool = True
    changes: Literal["since", "newest first"] | None = None
    on_absent: Literal["confirm", "keep"] = "confirm"
    resumable: bool = False
    batch: int = 10
    page_size: int | None = None
    origin: str = "base_url"
    path: str = ""
    parts: "tuple[Part, ...]" = ()
    request_id: str = "x-request-id"
    optional: bool = False
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """What callflow knows of one provider.

    `name`        the word in callflow.toml, and the schema of its tables.
    `title`       its name for people.
    `comment`     the COMMENT of the schema.
    `settings`    the model of a source.
    `setup`       where an administrator finds the credentials, a sentence.
    `names`       those of its streams.
    `declared`    returns its streams. It imports their tables, and with them SQLAlchemy, for which
                  a mistake in the configuration need not wait.
    `credentials` which credentials those are.
    `rights`      the rights or scopes that they need, in Markdown.
    `example`     a source in callflow.toml, with each of its keys and the true defaults. Its
                  lines become comments; one that starts with "# " is a comment of the example.

    The last four fill README and callflow.example.toml (`make docs`).
    """

    name: str
    title: str
    comment: str
    settings: type[Source]
    setup: str
    names: tuple[str, ...]
    declared: Callable[[], tuple[Stream, ...]]
    credentials: str = ""
    rights: str = ""
    example: str = ""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Its lists."""
        return self.declared()

    @property
    def parts(self) -> Mapping[str, type[SettingsTable]]:
        """The tables inside a source's table: its schedule, and the options of its streams."""
        return {"schedule": Schedule, **dict.fromkeys(self.names, StreamOptions)}


def streams_of(source: Source, provider: Provider) -> tuple[Stream, ...]:
    """Return the streams of `provider` that `source` chooses; all, unless its settings say which.

    They come in the order of their declarations.
    """
    chosen = source.streams
    return tuple(each for each in provider.streams if chosen is None or each.name in chosen)


def open_http(
    source: Source,
    stream: Stream,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = utc_now,
    redact: Redactor | None = None,
) -> "Http":
    """Return a connection for one run of `stream`; the caller closes it. Sends nothing yet.

    `redact` removes secrets from what is quoted, and learns access tokens; None: one that knows
    the source's secrets.
    """
    from etl.extract.budget import Budget  # they import httpx, which most commands do not need
    from etl.extract.http import Http, Seam
    from etl.extract.route import route_of

    seam = Seam(
        where=f"{source.name}.{stream.name}",
        timeout=source.timeout,
        redact=redact or redactor(source),
        route=route_of(source),
        clock=clock,
        sleep=sleep,
        now=now,
        request_id=stream.request_id,
        setting=stream.origin,
        budget=Budget(clock, sleep),
    )
    sign, judge = stream.auth(source, seam)
    return Http(
        getattr(source, stream.origin).rstrip("/") + stream.path.format(source=source),
        seam,
        sign=sign,
        judge=judge,
        requests_per_second=source.requests_per_second,
    )


def request(source: Source, stream: Stream, ask: ScanRequest = EVERYTHING) -> ScanRequest:
    """Return `ask` completed with what the source's settings and the stream say."""
    from etl.transform.exact import exact_reader

    return replace(
        ask,
        scopes=scopes(source, stream) or ("",),
        zone=zone_of(source),
        size=stream.page_size,
        exact=exact_reader(stream.tables[0]),
    )


def zone_of(source: Source) -> ZoneInfo | None:
    """Return the time zone of times that come without one; None: all come with one."""
    return ZoneInfo(getattr(source, source.zone)) if source.zone else None


def scopes(source: Source, stream: Stream) -> tuple[str, ...] | None:
    """Return the scopes of the stream that `source` configures (Alibaba: its instance ids).

    None means that the stream has no scopes: it is one list.
    """
    if stream.scope is None or source.scopes is None:
        return None
    found: tuple[str, ...] = getattr(source, source.scopes)
    return found


def name_sql(stream: Stream) -> str:
    """Return the SQL of the name that people know a record by, over a row `r` of its table.

    It is that of the views to which the records' table belongs; NULL if it has a name in none.
    """
    theirs = (part for part in stream.parts if part.table is stream.tables[0])
    return next((part.columns["name"] for part in theirs if "name" in part.columns), "NULL::text")


def on_absent(source: Source, stream: Stream) -> Literal["confirm", "keep"]:
    """Return what happens to a record that is no longer listed: the source's choice, or ours."""
    chosen = source.options.get(stream.name)
    return (chosen.on_absent if chosen else None) or stream.on_absent
