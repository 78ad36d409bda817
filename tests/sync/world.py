"""A source that changes while it is read, and all that it ever was: where the histories happen.

Before every request a Poisson number of operations hits the source: insert, update, a publish that
does not move the time of modification, delete; a third of them in bursts within a second, a fifth
stamped up to 2 s before they become visible. Rows of the same second come in another order each
time, page tokens expire, answers are garbage or lead elsewhere, and now and then the process dies.
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

from etl.providers import PROVIDERS, STREAMS
from etl.providers.declare import Stream
from etl.sandbox.exchange import Request, Response
from etl.sandbox.faults import Fault, html, redirect
from etl.sandbox.server import Sandbox
from etl.sandbox.store import Store
from etl.sandbox.wire import Clock
from tests.sync.kinds import Key, Kind, Mode, Record, Rendering, moment

START = datetime(2025, 3, 3, 9, tzinfo=UTC).timestamp()
INSTANCES = ("ccc-sandbox", "ccc-sandbox-survey")


class Crash(BaseException):
    """The process dies here. No handler of the product may catch it."""


HISTORIES = {
    each.name: import_module(f"tests.providers.{each.name}.histories") for each in PROVIDERS
}
"""What each provider's tests say of its streams."""

MODES: Mapping[str, Mode] = {mode.name: mode for each in HISTORIES.values() for mode in each.MODES}


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
        self.mode, self.seed = mode, seed
        self.provider = mode.source.partition("_")[0]
        self._of = HISTORIES[self.provider]
        self.kind: Kind = self._of.KINDS[mode.stream]
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
        """Make the sandbox what this history needs: small pages, and the history's clock."""
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
        """The stream with the pages and the clock of this world, whose process may die."""
        real = STREAMS[f"{self.provider}.{self.mode.stream}"]

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
            page_size=self._page if real.scope else None,
        )

    def settings(self, settings: Any) -> Any:
        if settings.scopes is None:
            return settings
        return settings.model_copy(update={settings.scopes: self._instances})

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
            refused: Response = self._of.token_refused()
            return refused
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
