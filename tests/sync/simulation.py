"""A simulated source that changes while it is read, and every version that its records ever had.

Before every request a Poisson number of operations is applied to the source: insert, update, a
publish that does not move the time of modification, delete; a third of them in bursts within a
second, a fifth stamped up to 2 s before they become visible. Rows of the same second are returned
in another order each time, page tokens expire, answers are garbage or redirects, single records
fail or come from a replica that lags behind, and sometimes the process dies.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from random import Random
from typing import Any

from etl.providers import PROVIDERS
from etl.providers.catalog import STREAMS
from etl.providers.declare import Stream
from etl.sandbox.exchange import Request, Response
from etl.sandbox.faults import Fault, html, redirect
from etl.sandbox.server import Sandbox
from etl.sandbox.store import Row, Store
from etl.sandbox.wire import Clock
from tests.sync.kinds import Key, Kind, Mode, Record, Rendering, moment

START = datetime(2025, 3, 3, 9, tzinfo=UTC).timestamp()
INSTANCES = ("ccc-sandbox", "ccc-sandbox-survey")


class Crash(BaseException):
    """Stands for the death of the process; no handler of the product may catch it."""


HISTORIES = {
    each.name: import_module(f"tests.providers.{each.name}.histories") for each in PROVIDERS
}
"""Provider → the module of its tests that describes its streams."""

MODES: Mapping[str, Mode] = {mode.name: mode for each in HISTORIES.values() for mode in each.MODES}


# -- the source -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Version:
    """A record from the operation `since` on; a `silent` change did not move the record's time.

    `kind` says how much of it has to be known.
    """

    since: int
    rows: Rendering
    kind: Kind
    silent: bool = False

    def is_known_as(self, rows: Rendering) -> bool:
        return rows in (self.rows, self.kind.as_known(self.rows, rows))


@dataclass(slots=True)
class RecordVersions:
    """A record's versions, and the operation that deleted it."""

    versions: list[Version]
    deleted: int | None = None

    def had(self, rows: Rendering) -> bool:
        return any(version.is_known_as(rows) for version in self.versions)

    def is_older(self, rows: Rendering, operation: int, *, seen_by_time: bool) -> bool:
        """Return whether the record looked like this only before `operation`.

        With `seen_by_time` a change since counts only if it moved the record's time.
        """
        last = max(n for n, version in enumerate(self.versions) if version.is_known_as(rows))
        later = [version for version in self.versions[last + 1 :] if version.since <= operation]
        return any(not (seen_by_time and version.silent) for version in later)


class SourceSimulation:
    """One source of the sandbox, its changes, and every version that its records ever had.

    `operation` counts the changes of rows; `lam` is the mean number of operations before a request
    (0: quiet, and no faults either).
    """

    def __init__(self, sandbox: Sandbox, mode: Mode, seed: int) -> None:
        self.mode, self.seed = mode, seed
        self.provider = mode.source.partition("_")[0]
        self._of = HISTORIES[self.provider]
        self.kind: Kind = self._of.KINDS[mode.stream]
        self.random = Random(f"{seed} {mode.name}")
        self.clock = Clock(frozen_at=START)
        self.lam = 0.0
        self.operation = 0
        self.records: dict[Key, RecordVersions] = {}
        self.stamps: set[datetime] = set()
        self.run = 0
        self.requests = 0
        self.crashed = False
        self._fault = ""
        self._failure: Response | None = None
        self._images: dict[str, Mapping[str, Row]] = {}
        self._present: dict[Key, None] = {}
        self._instances = INSTANCES[: self.random.choice((1, 1, 2))]
        self._page = self.random.randint(5, 20)
        self._stores = self._set_up(sandbox)
        for _ in range(self.random.randint(*self.kind.sizes)):
            burst = self.random.random() < 0.3
            apart = self.random.uniform(0, 0.3) if burst else self.random.expovariate(1 / 14_000)
            self.clock.advance(apart)
            self._insert(self.random)

    def _set_up(self, sandbox: Sandbox) -> dict[str, Store]:
        """Give the sandbox small pages and the clock of this history."""
        fault = Fault(times=None, before_request=self._before, response=self._answer)
        may_look_up = self.random.random() < 0.75
        for name, emulator in sandbox.emulators.items():
            emulator.clock, emulator.faults = self.clock, [fault]
            for scopes in HISTORIES[name].stores(emulator).values():
                for store in scopes.values():
                    store.clear()
        emulator = sandbox.emulators[self.provider]
        self._of.set_up(emulator, self.mode.paging, self._page, may_look_up=may_look_up)
        found = self._of.stores(emulator)[self.mode.stream]
        return {name: store for name, store in found.items() if name in ("", *self._instances)}

    # -- what the product is given

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def stream(self) -> Stream:
        """Return the stream with the pages of this simulation, whose process may die."""
        real = STREAMS[f"{self.provider}.{self.mode.stream}"]

        def pages(*given: Any) -> Iterator[Any]:
            with closing(real.pages(*given)) as every:  # type: ignore[type-var]
                for page in every:
                    self._raise_if_crashed()
                    yield page

        def fetch(*given: Any) -> Any:
            assert real.detail is not None
            found = real.detail.fetch(*given)
            self._raise_if_crashed()
            return found

        def look_up(*given: Any) -> Any:
            assert real.look_up is not None
            found = real.look_up(*given)
            self._raise_if_crashed()
            return found

        return dataclasses.replace(
            real,
            pages=pages,
            look_up=look_up if real.look_up else None,
            detail=dataclasses.replace(real.detail, fetch=fetch) if real.detail else None,
            page_size=self._page if real.scope else None,
        )

    def settings(self, settings: Any) -> Any:
        if settings.scopes is None:
            return settings
        return settings.model_copy(update={settings.scopes: self._instances})

    def _raise_if_crashed(self) -> None:
        if self.crashed:
            raise Crash

    # -- changes

    def begin_run(self) -> None:
        self.run += 1
        self.requests, self.crashed = 0, False
        self._images = {name: store.image() for name, store in self._stores.items()}

    def churn(self, count: int) -> None:
        """Apply `count` operations between two runs."""
        for _ in range(count):
            self._operate(self.random)

    def before_request(self) -> Random:
        """Apply the operations before the next request; they do not depend on its timing."""
        random = Random(f"{self.seed} {self.mode.name} {self.run} {self.requests}")
        self.requests += 1
        self.clock.advance(random.uniform(0.05, 0.4))
        bulk = 12 if self.lam and random.random() < 0.01 else 0  # as when a person cleans up
        for _ in range(poisson(random, self.lam) + bulk):
            self._operate(random)
        return random

    def quieten(self) -> None:
        """Stop the changes, and leave no second in which more than half a page of rows changed."""
        self.lam = 0.0
        times: dict[str, int] = {}
        for key in list(self._present):
            time = self._stores[scope(key)].get(key[-1])[self.kind.updated] or ""
            times[time] = times.get(time, 0) + 1
            if times[time] > max(2, self._page // 2):
                self.clock.advance(30)
                self._change(self.random, key, silent=False)

    def touch(self, count: int) -> None:
        """Change `count` rows, or add some too, one after the other, each with a new time."""
        new = self.random.choice((0, 0.2))  # the share of new rows, which the list's count shows
        for _ in range(count):
            self.clock.advance(self.random.randint(1, 300))
            if self.random.random() < new or not self._present:
                self._insert(self.random)
            else:
                self._change(self.random, self.random.choice(list(self._present)), silent=False)

    def delete(self, count: int) -> None:
        """Delete `count` rows, or all if there are fewer."""
        for key in self.random.sample(list(self._present), min(count, len(self._present))):
            self._delete(key)

    def present(self) -> list[Key]:
        return list(self._present)

    def _before(self, emulator: Any, request: Request) -> None:
        self._fault = ""
        if request.path == "/oauth/token":
            return
        random = self.before_request()
        emulator.ties = Random(random.random())
        if not self.lam:
            return
        chance = random.random()
        if chance < 0.01:
            self.crashed = True
        elif chance < 0.015:
            self._fault = "garbage"
        elif chance < 0.02:
            self._fault = "elsewhere"
        elif chance < 0.03 and (
            "next_page_token" in request.params or "PageToken" in request.params
        ):
            self._fault = "expired"
        elif chance > 0.95 and self.kind.details and self.kind.details in request.path:
            self._fault = random.choice(("lagging", "failed"))
            self._failure = random.choice(self.kind.failures)
        self._lag(self._images if self._fault == "lagging" else {})

    def _lag(self, images: Mapping[str, Mapping[str, Row]]) -> None:
        """Serve requests from these images of the stores, or from what the stores hold now."""
        for name, store in self._stores.items():
            store.replica = images.get(name)

    def _answer(self, request: Request, answer: Response) -> Response:
        self._lag({})
        if self._fault == "failed":
            assert self._failure is not None
            return self._failure
        if self._fault == "garbage":  # the product asks again
            return html(200)
        if self._fault == "elsewhere":  # the product does not follow it, and ends the scan
            return redirect("http://127.0.0.1:1/")
        if self._fault == "expired":
            refused: Response = self._of.token_refused()
            return refused
        return answer

    def _operate(self, random: Random) -> None:
        burst = random.random() < 0.3
        self.clock.advance(random.uniform(0, 0.3) if burst else random.expovariate(1 / 30))
        what = random.random()
        if what < 0.25 or not self._present:
            self._insert(random)
            return
        key = random.choice(list(self._present))
        if what < 0.7:
            self._change(random, key, silent=what >= 0.6)
        else:
            self._delete(key)

    def _delete(self, key: Key) -> None:
        self.operation += 1
        self._stores[scope(key)].delete(key[-1])
        self.records[key].deleted = self.operation
        del self._present[key]

    def _insert(self, random: Random) -> None:
        self.operation += 1
        instance = random.choice(list(self._stores))
        name = f"{random.getrandbits(32):08x}-{self.operation}"
        record = self.kind.create(random, name, self._stamp(random))
        self._stores[instance].add(record)
        key = (instance, name) if instance else (name,)
        self._present[key] = None
        self.records[key] = RecordVersions(
            [Version(self.operation, self._render(key, record), self.kind)]
        )

    def _change(self, random: Random, key: Key, *, silent: bool) -> None:
        self.operation += 1
        store = self._stores[scope(key)]
        record = store.get(key[-1])
        changes = self.kind.change(random, record)
        if not silent:  # a change never moves a row's own time back
            stamps = self._stamp(random), record[self.kind.updated] or ""
            changes[self.kind.updated] = max(filter(None, stamps), key=moment)
        store.update_silently(key[-1], **changes)
        version = Version(self.operation, self._render(key, record | changes), self.kind, silent)
        self.records[key].versions.append(version)

    def _stamp(self, random: Random) -> str:
        late = random.uniform(0, 2) if random.random() < 0.2 else 0
        return self.kind.stamp(self.clock() - late)

    def _render(self, key: Key, record: Record) -> Rendering:
        if time := record[self.kind.updated]:
            self.stamps.add(moment(time))
        return self.kind.render(key, record)


def scope(key: Key) -> str:
    return key[0] if len(key) == 2 else ""


def poisson(random: Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), random.random(), 0
    while product > limit:
        product *= random.random()
        count += 1
    return count
