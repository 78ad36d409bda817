"""What the status page shows, out of an Overview: a headline, and one page of streams. Pure."""

import itertools
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlencode

from etl.status.causes import Cause, grouped
from etl.status.health import OLD, WHEN_OLD, Leftover, Overview, Reach, StreamHealth
from etl.status.words import span

PAGE = 60
"""How many streams one page shows in full."""
LATEST = 20
"""How many changes of all sources the first page shows."""


@dataclass(frozen=True, slots=True)
class Headline:
    """How things stand: `tone` is "well", "plain", "bad" or "down", `title` a few words.

    `streams` is how the streams stand, if the sentence is about something more urgent.
    """

    tone: str
    title: str
    sentence: str
    detail: str = ""
    advice: str = ""
    streams: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one page shows: its streams by source, what is wrong with them, and its number.

    `found` is how many streams match `query`; `more_bad` how many bad ones are on later pages.
    """

    query: str
    number: int
    pages: int
    found: int
    streams: tuple[StreamHealth, ...]
    sources: tuple[tuple[str, tuple[StreamHealth, ...]], ...]
    causes: tuple[Cause, ...]
    more_bad: int
    left: tuple[Leftover, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it is the first page of all streams."""
        return not self.query and self.number == 1

    def link(self, number: int = 1, still: bool = False) -> str:
        """Return the address of another page of the same streams."""
        given = {"q": self.query, "page": "" if number == 1 else str(number)}
        given["still"] = "1" if still else ""
        query = urlencode({name: value for name, value in given.items() if value})
        return f"/?{query}" if query else "/"


def headline(view: Overview, now: datetime) -> Headline:
    """Return how things stand, in one sentence."""
    bad = sum(not stream.good for stream in view.streams)
    total = len(view.streams)
    streams = f"{total:,} stream{'s' * (total != 1)}"
    trouble = f"{bad:,} of {streams} need{'s' * (bad == 1)} attention" if bad else ""
    if now - view.at > OLD:
        return Headline(
            "down",
            "no report",
            "The daemon does not report",
            f"It last looked at the streams {span((now - view.at).total_seconds(), 2)} ago, and"
            " should do so every 2s.",
            WHEN_OLD,
            trouble,
        )
    if view.database is not None:
        problem, _, advice = view.database.partition(" → ")
        sentence = "The database cannot be used"
        return Headline("down", "database trouble", sentence, problem, advice, trouble)
    if bad:
        return Headline("bad", f"{bad:,} bad", trouble)
    if not total:
        return Headline("well", "no streams", "There are no streams yet")
    counts = Counter(stream.state for stream in view.streams)
    waiting, lacking, ended = (counts[name] for name in ("never run", "not available", "ended"))
    if waiting == total:
        return Headline("plain", "no run yet", "No stream has been read yet")
    known = (
        (waiting, "had no run yet."),
        (lacking, f"{'are' if lacking > 1 else 'is'} not available."),
        (ended, f"{'were' if ended > 1 else 'was'} ended by the provider."),
    )
    detail = " ".join(f"{count:,} {words}" for count, words in known if count)
    if lacking or ended:
        return Headline("well", "all well", "Nothing needs attention", detail)
    every = f"All {streams} are healthy" if total > 1 else "The one stream is healthy"
    return Headline("well", "all well", every, detail)


def between(earlier: datetime, later: datetime) -> str:
    """Return a length of time in its largest unit, from an hour on in two: "40s", "3m", "1h 5m"."""
    length = max(0.0, (later - earlier).total_seconds())
    return span(length, 1 if length < 3600 else 2)


def word(stream: StreamHealth) -> str:
    """Return the state of `stream` in a word or two; "stale" replaces "good"."""
    if not stream.stale:
        return stream.state
    return "stale" if stream.state == "good" else f"{stream.state}, stale"


def matching(streams: Sequence[StreamHealth], query: str) -> list[StreamHealth]:
    """Return the streams with every word of `query` in name, provider or state, in any case."""
    words = query.lower().split()
    if not words:
        return list(streams)
    return [
        stream
        for stream in streams
        if all(each in f"{stream.name} {stream.provider} {word(stream)}".lower() for each in words)
    ]


def paged(view: Overview, query: str, number: str) -> Plan:
    """Return page `number` of the streams that match `query`; sources in trouble come first."""
    found = matching(view.streams, query)
    troubled = {stream.source for stream in found if not stream.good}
    found.sort(key=lambda stream: (stream.source not in troubled, stream.source, stream.stream))
    pages = max(1, -(-len(found) // PAGE))
    wanted = int(number) if number.isdecimal() and len(number) < 7 else 1
    here = min(max(1, wanted), pages)
    shown = tuple(found[(here - 1) * PAGE : here * PAGE])
    sources = tuple(
        (source, tuple(streams))
        for source, streams in itertools.groupby(shown, key=lambda stream: stream.source)
    )
    return Plan(
        query=query,
        number=here,
        pages=pages,
        found=len(found),
        streams=shown,
        sources=sources,
        causes=grouped(sorted((stream for stream in shown if not stream.good), key=_weight)),
        more_bad=sum(not stream.good for stream in found[here * PAGE :]),
        left=tuple({left.name: left for each in found for left in each.leftovers}.values()),
    )


def _weight(stream: StreamHealth) -> int:
    """Return a key that sorts the worst first: stale, failed, incomplete, throttled."""
    return -2 * stream.stale - (stream.state == "failed") + (stream.state == "throttled")


def stream_link(source: str, stream: str) -> str:
    """Return the address of the page of a stream."""
    return f"/streams/{quote(source, safe='')}/{quote(stream, safe='')}"


def run_link(run_id: str) -> str:
    """Return the address of the page of a run."""
    return f"/runs/{quote(run_id, safe='')}"


def psql(reach: Reach, role: str) -> str:
    """Return the shell line that opens psql as `role`; it asks for the password."""
    given = {"-h": reach.host, "-p": reach.port, "-U": role, "-d": reach.database}
    options = [f"{name} {shlex.quote(value)}" for name, value in given.items() if value]
    return " ".join(["psql", *options])
