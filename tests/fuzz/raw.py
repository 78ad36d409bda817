"""Providers that answer with bytes as they are given: what no emulator would ever send."""

import gzip
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from etl.sandbox.exchange import JSON, Request, Response, json_response
from etl.sandbox.faults import Fault
from etl.sandbox.wire import Clock, serving

TOKEN = {"access_token": "t", "token_type": "bearer", "expires_in": 3600, "scope": ""}
LISTS = {
    "zoom_raw.flows": ("/v2/contact_center/flows", b'{"flows":[', b'],"total_records":%d}'),
    "twilio_raw.flex_flows": (
        "/v1/FlexFlows",
        b'{"flex_flows":[',
        b'],"meta":{"next_page_url":null}}',
    ),
    "twilio_raw.channels": (
        "/v1/Channels",
        b'{"flex_chat_channels":[',
        b'],"meta":{"next_page_url":null}}',
    ),
    "alibaba_raw.contact_flows": ("/", b'{"Code":"OK","Data":{"List":[', b'],"TotalCount":%d}}'),
}
"""Stream → path of its list, and what stands before and after its records."""


class Raw:
    """All three providers at once; `answers` are whole answers by path, `handles` make some."""

    def __init__(self) -> None:
        self.url = ""
        self.clock = Clock()
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=1000)
        self.errors: list[Exception] = []
        self.answers: dict[str, Response] = {}
        self.handles: dict[str, Callable[[Request], Response]] = {}

    def handle(self, request: Request) -> Response:
        if request.path == "/oauth/token":
            return json_response(200, TOKEN)
        if request.path in self.handles:
            return self.handles[request.path](request)
        if request.path in self.answers:
            return self.answers[request.path]
        if request.path.startswith("/v2/"):
            return json_response(404, {"code": 3201, "message": "Flow does not exist"})
        return json_response(404, {"code": 20404, "message": "not found", "status": 404})

    def list(self, stream: str, records: Sequence[bytes]) -> None:
        """Let the list of `stream` be one page of `records`, each as its bytes."""
        path, before, after = LISTS[stream]
        end = after % len(records) if b"%d" in after else after
        self.answers[path] = packed(before + b",".join(records) + end)

    def toml(self) -> str:
        """Return a configuration of all of them."""
        return f"""
[sources.zoom_raw]
provider = "zoom"
account_id = "a"
client_id = "c"
client_secret = "s"
base_url = "{self.url}/v2"
token_url = "{self.url}/oauth/token"
requests_per_second = 0
[sources.twilio_raw]
provider = "twilio"
account_sid = "AC{"0" * 32}"
auth_token = "t"
base_url = "{self.url}"
requests_per_second = 0
[sources.alibaba_raw]
provider = "alibaba"
access_key_id = "k"
access_key_secret = "s"
instance_ids = ["i"]
base_url = "{self.url}"
requests_per_second = 0
"""


def packed(body: bytes, status: int = 200) -> Response:
    """Return an answer with `body`, compressed."""
    return Response(status, gzip.compress(body, 1), {**JSON, "Content-Encoding": "gzip"})


@contextmanager
def raw() -> Iterator[Raw]:
    """Yield the providers, on loopback."""
    provider = Raw()
    with serving(provider):
        yield provider
