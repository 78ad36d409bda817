"""Start and stop the sandbox: one emulator for each provider, each on its own port of 127.0.0.1."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

from etl.sandbox import PORT_OF, data
from etl.sandbox.alibaba import Alibaba
from etl.sandbox.data import RandomOf, Sizes
from etl.sandbox.twilio import Twilio
from etl.sandbox.wire import Clock, Emulator, serving
from etl.sandbox.zoom import Zoom


class Emulated(Emulator, Protocol):
    """What an emulator needs in order to be part of the sandbox.

    `name` is the provider's name in callflow.toml.
    """

    name: ClassVar[str]

    def __init__(self, *, clock: Clock | None = None, keep_requests: int | None = 10_000) -> None:
        """Make an empty one that keeps the last `keep_requests` requests (None: all of them)."""

    def fill(self, random_of: RandomOf, sizes: Sizes) -> None:
        """Add generated records."""

    def settings(self) -> Mapping[str, object]:
        """Return what callflow.toml says of this account, without secrets."""

    def secrets(self) -> Mapping[str, str]:
        """Return the secrets of this account, by their keys in callflow.toml."""

    def records(self) -> Mapping[str, list[Any]]:
        """Return the records as they are now, by stream: what complete lists return."""

    def change(self) -> list[str]:
        """Change something for the demo; return what "someone" did, one verb phrase per change."""


EMULATORS: tuple[type[Emulated], ...] = (Zoom, Twilio, Alibaba)
"""The emulators, in the order of the providers that they emulate."""

PORTS = tuple(PORT_OF[emulator.name] for emulator in EMULATORS)
"""The ports of `callflow sandbox` by default, in the order of EMULATORS."""


_NAMES = frozenset(emulator.name for emulator in EMULATORS)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The running emulators, by name. Their attributes and records may be changed meanwhile.

    Each is an attribute too: `sandbox.zoom`.
    """

    emulators: Mapping[str, Emulated]

    def __getattr__(self, name: str) -> Any:
        """Return the emulator called `name`."""
        if name in _NAMES:
            return self.emulators[name]
        raise AttributeError(f"there is no emulator {name!r}")

    def toml(self) -> str:
        """Return the `[sources…]` part of a callflow.toml, with secrets that are accepted."""
        return "\n".join(toml(each, each.secrets()) for each in self.emulators.values())

    def records(self) -> dict[str, Mapping[str, list[Any]]]:
        """Return all records as they are now: `{"zoom": {"flows": [...]}, ...}`."""
        return {name: emulator.records() for name, emulator in self.emulators.items()}


def toml(emulator: Emulated, secrets: Mapping[str, str]) -> str:
    """Return the `[sources.NAME_demo]` table of one emulator, with these secrets."""
    settings = {"provider": emulator.name, **emulator.settings(), **secrets}
    # JSON's texts, numbers and lists are TOML's too.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    return "\n".join([f"[sources.{emulator.name}_demo]", *lines, "requests_per_second = 0", ""])


@contextmanager
def serve(
    sizes: Sizes | None = None,
    seed: int = 1,
    *,
    ports: Sequence[int] = (0,) * len(EMULATORS),
    clock: Clock | None = None,
    keep_requests: int | None = 10_000,
) -> Iterator[Sandbox]:
    """Fill and start the emulators; stop them on leaving.

    `data.EMPTY` is quickest to fill. The same seed gives the same data. `ports` are in the order
    of EMULATORS; 0 is a free one. The emulators share `clock`; without it each has its own.
    `keep_requests` bounds each emulator's record of requests (None: no bound). Raises ConfigError
    if a port is taken.
    """
    made = {each.name: each(clock=clock, keep_requests=keep_requests) for each in EMULATORS}
    with ExitStack() as stack:
        for emulator, port in zip(made.values(), ports, strict=True):
            emulator.fill(partial(data.random_of, seed), sizes or Sizes())
            stack.enter_context(serving(emulator, port))
        yield Sandbox(made)


def run(
    ports: Sequence[int],
    sizes: Sizes,
    seed: int,
    stop: threading.Event,
    announce: Callable[[Sandbox], None],
) -> None:
    """Serve until `stop` is set; call `announce` once all emulators answer.

    Raises ConfigError if a port is taken.
    """
    with serve(sizes, seed, ports=ports, keep_requests=1000) as sandbox:
        announce(sandbox)
        stop.wait()
