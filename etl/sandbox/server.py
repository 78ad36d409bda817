"""Start and stop the sandbox: three emulators on three ports of 127.0.0.1."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from etl.sandbox import data
from etl.sandbox.alibaba import Alibaba
from etl.sandbox.data import Sizes
from etl.sandbox.twilio import Twilio
from etl.sandbox.wire import Clock, Emulator, serving
from etl.sandbox.zoom import Zoom

Ports = tuple[int, int, int]
"""Of Zoom, Twilio and Alibaba; 0 is a free one."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Three running emulators. Their attributes and rows may be changed while they run."""

    zoom: Zoom
    twilio: Twilio
    alibaba: Alibaba

    def toml(self) -> str:
        """The `[sources…]` part of a callflow.toml, with credentials that the emulators accept."""
        instances = ", ".join(f'"{instance_id}"' for instance_id in self.alibaba.flows)
        key = self.alibaba.keys[self.alibaba.access_key_id]
        sts = f'security_token = "{key.security_token}"\n' if key.security_token else ""
        return f"""\
[sources.zoom_demo]
provider = "zoom"
account_id = "{self.zoom.account_id}"
client_id = "{self.zoom.client_id}"
client_secret = "{self.zoom.client_secret}"
base_url = "{self.zoom.url}/v2"
token_url = "{self.zoom.url}/oauth/token"
requests_per_second = 0

[sources.twilio_demo]
provider = "twilio"
account_sid = "{self.twilio.account_sid}"
auth_token = "{self.twilio.auth_token}"
base_url = "{self.twilio.url}"
requests_per_second = 0

[sources.alibaba_demo]
provider = "alibaba"
access_key_id = "{self.alibaba.access_key_id}"
access_key_secret = "{key.secret}"
{sts}instance_ids = [{instances}]
base_url = "{self.alibaba.url}"
requests_per_second = 0
"""

    def records(self) -> dict[str, Any]:
        """All rows as they are now: `{"zoom": [...], "twilio": {...}, "alibaba": {...}}`."""
        return {
            "zoom": self.zoom.records(),
            "twilio": self.twilio.records(),
            "alibaba": self.alibaba.records(),
        }


@contextmanager
def serve(
    sizes: Sizes | None = None,
    seed: int = 1,
    *,
    ports: Ports = (0, 0, 0),
    clock: Clock | None = None,
    keep_requests: int | None = 10_000,
) -> Iterator[Sandbox]:
    """Fill and start the three emulators; stop them on leaving.

    `sizes` defaults to those of the demo; `data.EMPTY` is quickest. The same seed gives the same
    data. `clock` is shared by the three; without it each has its own. `keep_requests` bounds each
    emulator's record of requests (None: unbounded). ConfigError when a port is taken.
    """
    sandbox = Sandbox(
        Zoom(clock=clock, keep_requests=keep_requests),
        Twilio(clock=clock, keep_requests=keep_requests),
        Alibaba(clock=clock, keep_requests=keep_requests),
    )
    data.fill(sandbox.zoom, sandbox.twilio, sandbox.alibaba, sizes or Sizes(), seed)
    emulators: tuple[Emulator, ...] = (sandbox.zoom, sandbox.twilio, sandbox.alibaba)
    with ExitStack() as stack:
        for emulator, port in zip(emulators, ports, strict=True):
            stack.enter_context(serving(emulator, port))
        yield sandbox


def run(
    ports: Ports,
    sizes: Sizes,
    seed: int,
    stop: threading.Event,
    announce: Callable[[Sandbox], None],
) -> None:
    """Serve in the foreground until `stop` is set; `announce` is called once all three answer.

    ConfigError when a port is taken.
    """
    with serve(sizes, seed, ports=ports, keep_requests=1000) as sandbox:
        announce(sandbox)
        stop.wait()
