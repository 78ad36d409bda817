"""A source that changes while it is read, and all that it ever was: where the histories happen.

Before every request a Poisson number of operations hits the source: insert, update, a publish that
does not move the time of modification, delete; a third of them in bursts within a second, a fifth
stamped up to 2 s before they become visible. Rows of the same second come in another order each
time, page tokens expire, answers are garbage or lead elsewhere, and now and then the process dies.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

from sqlalchemy import Table

from etl.providers import STREAMS, TABLES
from etl.providers.declare import Stream
from etl.sandbox import twilio, zoom
from etl.sandbox.exchange import Request, Response
from etl.sandbox.faults import Fault, html, redirect
from etl.sandbox.server import Sandbox
from etl.sandbox.store import Paging, Store
from etl.sandbox.wire import Clock
from etl.warehouse import tables

Record = dict[str, Any]
Key = tuple[str, ...]
Row = tuple[Any, ...]
Rendering = tuple[frozenset[Row], ...]
"""The rows that a record becomes, per table of its stream, without source and valid_from."""

START = datetime(2025, 3, 3, 9, tzinfo=UTC).timestamp()
SHANGHAI = timezone(timedelta(hours=8))
INSTANCES = ("ccc-sandbox", "ccc-sandbox-survey")


class Crash(BaseException):
    """The process dies here. No handler of the product may catch it."""


# -- modes and records ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mode:
    """A stream and how its list is paged.

    `promises`  whether a complete run vouches for every row that lived all along: by the list's
                count (Zoom) or by anchors and count (Alibaba). Twilio tells no count.
    `keeps`     rows that are no longer listed stay in the table.
    """

    name: str
    source: str
    stream: str
    paging: Paging
    promises: bool = False
    keeps: bool = False


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        *(
            Mode(f"zoom/{paging}", "zoom_demo", "flows", paging, promises=True)
            for paging in ("offset/updated", "offset/created", "keyset", "snapshot")
        ),
        *(
            Mode(f"twilio.{stream}/{paging}", "twilio_demo", stream, paging, keeps=keeps)
            for stream, keeps in (("flex_flows", False), ("channels", True))
            for paging in ("offset/updated", "offset/created", "keyset")
        ),
        Mode("alibaba/offset/updated", "alibaba_demo", "contact_flows", "offset/updated", True),
    )
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How one stream's records are made, changed, and what rows they become.

    `create` (random, id, stamp) → record; `change` (random, record) → the members that change;
    `render` (key, record) → rows; `stamp` seconds since 1970 → the text of a time.
    """

    key: str
    updated: str
    stamp: Callable[[float], str]
    create: Callable[[Random, str, str], Record]
    change: Callable[[Random, Record], Record]
    render: Callable[[Key, Record], Rendering]


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shanghai(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, SHANGHAI).strftime("%Y-%m-%d %H:%M:%S.0")


def moment(text: str) -> datetime:
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=SHANGHAI)


def row(table: Table, **values: Any) -> Row:
    return tuple(values.get(name) for name in tables.data_columns(table))


def few(random: Random, prefix: str) -> list[str]:
    """Ids of children: up to three of five, so that they go and come back."""
    return random.sample([f"{prefix}{n}" for n in range(5)], random.randint(0, 3))


def word(random: Random) -> str:
    """A text of few values, so that a record changes back at times."""
    return random.choice(("Main", "Sales", "Störung ☎", "售后服务", "'; --"))


def zoom_children(random: Random) -> Record:
    return {
        "flow_versions": [
            {"flow_version_id": name, "flow_version": random.randint(1, 3)}
            for name in few(random, "v")
        ],
        "entry_points": [
            {"entry_id": name, "entry_name": word(random)} for name in few(random, "e")
        ],
    }


def zoom_flow(random: Random, name: str, stamp: str) -> Record:
    return {
        "flow_id": name,
        "flow_name": word(random),
        "status": "draft",
        "last_modified_time": stamp,
        **zoom_children(random),
    }


def zoom_change(random: Random, record: Record) -> Record:
    changes: tuple[Record, ...] = (
        {"flow_name": word(random)},
        {"status": random.choice(("draft", "published", "archived"))},
        zoom_children(random),
        {"flow_name": word(random), **zoom_children(random)},
    )
    return random.choice(changes)


def zoom_rows(key: Key, record: Record) -> Rendering:
    (flow_id,) = key
    time = moment(record["last_modified_time"])
    return (
        frozenset([row(TABLES["zoom.flows"], **{**record, "last_modified_time": time})]),
        frozenset(
            row(TABLES["zoom.flow_versions"], flow_id=flow_id, **each)
            for each in record["flow_versions"]
        ),
        frozenset(
            row(TABLES["zoom.entry_points"], flow_id=flow_id, **each)
            for each in record["entry_points"]
        ),
    )


def flex_flow(random: Random, name: str, stamp: str) -> Record:
    return {
        "sid": name,
        "friendly_name": word(random),
        "enabled": True,
        "date_created": stamp,
        "date_updated": stamp,
    }


def flex_change(random: Random, record: Record) -> Record:
    return random.choice(({"friendly_name": word(random)}, {"enabled": not record["enabled"]}))


def channel(random: Random, name: str, stamp: str) -> Record:
    return {"sid": name, "user_sid": word(random), "date_created": stamp, "date_updated": stamp}


def channel_change(random: Random, record: Record) -> Record:
    return {random.choice(("user_sid", "task_sid")): word(random)}


def twilio_rows(table: Table) -> Callable[[Key, Record], Rendering]:
    def render(key: Key, record: Record) -> Rendering:
        times = {name: moment(record[name]) for name in ("date_created", "date_updated")}
        return (frozenset([row(table, **{**record, **times})]),)

    return render


def definition(random: Random) -> str:
    activities = [
        {
            "id": name,
            "type": random.choice(("PLAY_SAY", "HANGUP")),
            "name": word(random),
            "nodeIndex": random.randint(1, 3),
            "properties": {"content": word(random)},
            "events": [
                {"event": "complete", "edgeId": f"{name}-{n}", "next": "a0"}
                for n in range(random.randint(0, 2))
            ],
        }
        for name in few(random, "a")
    ]
    return json.dumps({"activities": activities}, ensure_ascii=False)


def contact_flow(random: Random, name: str, stamp: str) -> Record:
    return {
        "ContactFlowId": name,
        "Name": word(random),
        "Type": "MAIN_FLOW",
        "Definition": definition(random),
        "Published": False,
        "NumberList": few(random, "400"),
        "CreatedTime": stamp,
        "UpdatedTime": stamp,
    }


def contact_change(random: Random, record: Record) -> Record:
    changes: tuple[Record, ...] = (
        {"Name": word(random)},
        {"Published": not record["Published"]},
        {"NumberList": few(random, "400")},
        {"Definition": definition(random)},
    )
    return random.choice(changes)


def contact_rows(key: Key, record: Record) -> Rendering:
    above = dict(zip(("instance_id", "contact_flow_id"), key, strict=True))
    activities = json.loads(record["Definition"])["activities"]
    main = row(
        TABLES["alibaba.contact_flows"],
        **above,
        name=record["Name"],
        type=record["Type"],
        definition=record["Definition"],
        published=record["Published"],
        created_time=moment(record["CreatedTime"]),
        updated_time=moment(record["UpdatedTime"]),
    )
    return (
        frozenset([main]),
        frozenset(
            row(TABLES["alibaba.contact_flow_numbers"], **above, number=number)
            for number in record["NumberList"]
        ),
        frozenset(
            row(
                TABLES["alibaba.contact_flow_activities"],
                **above,
                activity_id=each["id"],
                type=each["type"],
                name=each["name"],
                node_index=each["nodeIndex"],
                properties=canonical(each["properties"]),
            )
            for each in activities
        ),
        frozenset(
            row(
                TABLES["alibaba.contact_flow_transitions"],
                **above,
                activity_id=each["id"],
                position=position,
                event=event["event"],
                edge_id=event["edgeId"],
                next_activity_id=event["next"],
            )
            for each in activities
            for position, event in enumerate(each["events"])
        ),
    )


def canonical(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


KINDS: Mapping[str, Kind] = {
    "flows": Kind("flow_id", "last_modified_time", iso, zoom_flow, zoom_change, zoom_rows),
    "flex_flows": Kind(
        "sid", "date_updated", iso, flex_flow, flex_change, twilio_rows(TABLES["twilio.flex_flows"])
    ),
    "channels": Kind(
        "sid", "date_updated", iso, channel, channel_change, twilio_rows(TABLES["twilio.channels"])
    ),
    "contact_flows": Kind(
        "ContactFlowId", "UpdatedTime", shanghai, contact_flow, contact_change, contact_rows
    ),
}


# -- the source -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Version:
    """A record as it was from the operation `since` on; `silent`: its time says nothing of it."""

    since: int
    rows: Rendering
    silent: bool = False


@dataclass(slots=True)
class Life:
    """A record's versions, and the operation that ended it."""

    versions: list[Version]
    died: int | None = None

    def was(self, rows: Rendering) -> bool:
        return any(version.rows == rows for version in self.versions)

    def is_older(self, rows: Rendering, operation: int, *, seen_by_time: bool) -> bool:
        """Whether it looked like this only before `operation`.

        With `seen_by_time` a change since counts only if it moved the record's time.
        """
        last = max(n for n, version in enumerate(self.versions) if version.rows == rows)
        later = [version for version in self.versions[last + 1 :] if version.since <= operation]
        return any(not (seen_by_time and version.silent) for version in later)


class World:
    """One source of the sandbox, what happens to it, and all that it ever was.

    `operation` counts what happened to the rows; `lam` is the mean number of operations before a
    request (0: quiet, and no misfortunes either).
    """

    def __init__(self, sandbox: Sandbox, mode: Mode, seed: int) -> None:
        self.mode, self.seed, self.kind = mode, seed, KINDS[mode.stream]
        self.random = Random(f"{seed} {mode.name}")
        self.clock = Clock(frozen_at=START)
        self.lam = 0.0
        self.operation = 0
        self.lives: dict[Key, Life] = {}
        self.stamps: set[datetime] = set()
        self.run = 0
        self.requests = 0
        self.crashed = False
        self._fate = ""
        self._living: dict[Key, None] = {}
        self._instances = INSTANCES[: self.random.choice((1, 1, 2))]
        self._page = self.random.randint(5, 20)
        self._stores = self._set_up(sandbox)
        for _ in range(self.random.randint(30, 110)):
            burst = self.random.random() < 0.3
            apart = self.random.uniform(0, 0.3) if burst else self.random.expovariate(1 / 14_000)
            self.clock.advance(apart)
            self._insert(self.random)

    def _set_up(self, sandbox: Sandbox) -> dict[str, Store]:
        """Make the sandbox what this history needs: small pages, a clock of its own."""
        fault = Fault(times=None, before_request=self._before, response=self._answer)
        for emulator in (sandbox.zoom, sandbox.twilio, sandbox.alibaba):
            emulator.clock, emulator.faults = self.clock, [fault]
        sandbox.zoom.paging = sandbox.twilio.paging = self.mode.paging
        sandbox.zoom.largest_page = sandbox.twilio.largest_page = self._page
        may_look = self.random.random() < 0.75
        scopes = {zoom.LIST_SCOPES[1], zoom.GET_SCOPES[1]} if may_look else {zoom.LIST_SCOPES[1]}
        sandbox.zoom.scopes = scopes
        for store in (
            sandbox.zoom.flows,
            sandbox.twilio.flex_flows,
            sandbox.twilio.channels,
            *sandbox.alibaba.flows.values(),
        ):
            store.clear()
        if self.mode.stream == "contact_flows":
            return {name: sandbox.alibaba.flows[name] for name in self._instances}
        return {
            "flows": {"": sandbox.zoom.flows},
            "flex_flows": {"": sandbox.twilio.flex_flows},
            "channels": {"": sandbox.twilio.channels},
        }[self.mode.stream]

    # -- what the product is given

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def stream(self) -> Stream:
        """The stream with the pages and the clock of this world, whose process may die."""
        provider = self.mode.source.partition("_")[0]
        real = STREAMS[f"{provider}.{self.mode.stream}"]

        def pages(*given: Any) -> Iterator[Any]:
            with closing(real.pages(*given)) as every:  # type: ignore[type-var]
                for page in every:
                    self._die_if_crashed()
                    yield page

        def look_up(*given: Any) -> Any:
            assert real.look_up is not None
            found = real.look_up(*given)
            self._die_if_crashed()
            return found

        return dataclasses.replace(
            real,
            pages=pages,
            look_up=look_up if real.look_up else None,
            page_size=self._page if provider == "alibaba" else None,
        )

    def settings(self, settings: Any) -> Any:
        if self.mode.stream != "contact_flows":
            return settings
        return settings.model_copy(update={"instance_ids": self._instances})

    def _die_if_crashed(self) -> None:
        if self.crashed:
            raise Crash

    # -- what happens

    def begin_run(self) -> None:
        self.run += 1
        self.requests, self.crashed = 0, False

    def churn(self, count: int) -> None:
        """Operations between two runs."""
        for _ in range(count):
            self._operate(self.random)

    def before_request(self) -> Random:
        """What happens before the next request of this run; the same however fast it comes."""
        random = Random(f"{self.seed} {self.mode.name} {self.run} {self.requests}")
        self.requests += 1
        self.clock.advance(random.uniform(0.05, 0.4))
        storm = 12 if self.lam and random.random() < 0.01 else 0  # somebody cleans up
        for _ in range(poisson(random, self.lam) + storm):
            self._operate(random)
        return random

    def calm(self) -> None:
        """No more changes; and no second in which more than half a page of rows changed."""
        self.lam = 0.0
        times: dict[str, int] = {}
        for key in list(self._living):
            time = self._stores[scope(key)].get(key[-1])[self.kind.updated]
            times[time] = times.get(time, 0) + 1
            if times[time] > max(2, self._page // 2):
                self.clock.advance(30)
                self._change(self.random, key, silent=False)

    def touch(self, count: int) -> None:
        """Change `count` rows, or add some too, openly, one after the other."""
        new = self.random.choice((0, 0.2))  # a new one shows in the list's count
        for _ in range(count):
            self.clock.advance(self.random.randint(1, 300))
            if self.random.random() < new or not self._living:
                self._insert(self.random)
            else:
                self._change(self.random, self.random.choice(list(self._living)), silent=False)

    def living(self) -> list[Key]:
        return list(self._living)

    def _before(self, emulator: Any, request: Request) -> None:
        self._fate = ""
        if request.path == "/oauth/token":
            return
        random = self.before_request()
        emulator.ties = Random(random.random())
        if not self.lam:
            return
        fate = random.random()
        if fate < 0.01:
            self.crashed = True
        elif fate < 0.015:
            self._fate = "garbage"
        elif fate < 0.02:
            self._fate = "elsewhere"
        elif fate < 0.03 and ("next_page_token" in request.params or "PageToken" in request.params):
            self._fate = "expired"

    def _answer(self, request: Request, honest: Response) -> Response:
        if self._fate == "garbage":  # is asked for again
            return html(200)
        if self._fate == "elsewhere":  # is not, and ends the scan
            return redirect("http://127.0.0.1:1/")
        if self._fate == "expired":
            of_zoom = self.mode.stream == "flows"
            return zoom.page_token_refused() if of_zoom else twilio.page_token_refused()
        return honest

    def _operate(self, random: Random) -> None:
        burst = random.random() < 0.3
        self.clock.advance(random.uniform(0, 0.3) if burst else random.expovariate(1 / 30))
        what = random.random()
        if what < 0.25 or not self._living:
            self._insert(random)
            return
        key = random.choice(list(self._living))
        if what < 0.7:
            self._change(random, key, silent=what >= 0.6)
            return
        self.operation += 1
        self._stores[scope(key)].delete(key[-1])
        self.lives[key].died = self.operation
        del self._living[key]

    def _insert(self, random: Random) -> None:
        self.operation += 1
        instance = random.choice(list(self._stores))
        name = f"{random.getrandbits(32):08x}-{self.operation}"
        record = self.kind.create(random, name, self._stamp(random))
        self._stores[instance].add(record)
        key = (instance, name) if instance else (name,)
        self._living[key] = None
        self.lives[key] = Life([Version(self.operation, self._render(key, record))])

    def _change(self, random: Random, key: Key, *, silent: bool) -> None:
        self.operation += 1
        store = self._stores[scope(key)]
        record = store.get(key[-1])
        changes = self.kind.change(random, record)
        if not silent:  # a change never moves a row's own time back
            changes[self.kind.updated] = max(self._stamp(random), record[self.kind.updated])
        store.update_silently(key[-1], **changes)
        version = Version(self.operation, self._render(key, record | changes), silent)
        self.lives[key].versions.append(version)

    def _stamp(self, random: Random) -> str:
        late = random.uniform(0, 2) if random.random() < 0.2 else 0
        return self.kind.stamp(self.clock() - late)

    def _render(self, key: Key, record: Record) -> Rendering:
        self.stamps.add(moment(record[self.kind.updated]))
        return self.kind.render(key, record)


def scope(key: Key) -> str:
    return key[0] if len(key) == 2 else ""


def poisson(random: Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), random.random(), 0
    while product > limit:
        product *= random.random()
        count += 1
    return count
