"""What can go wrong between a provider and callflow; tests put it into an emulator's `faults`."""

import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http import HTTPStatus
from random import Random
from typing import Any, Literal

from etl.sandbox.exchange import JSON, Request, Response

Delivery = Literal["whole", "reset_at_once", "reset", "truncated", "close_delimited"]


@dataclass(slots=True, eq=False)
class Fault:
    """A fault: when it happens, and what happens then.

    When (all of these must hold):
    `path`        the request's path; `*` and `?` are wildcards; "" is any.
    `when`        a predicate of the request.
    `nth`         only the nth (1, 2 …) of the requests that match the two above.
    `every`       only each k-th of them.
    `probability` drawn from `rng`.
    `times`       at most this often; None: without limit.
    If several faults that spoil the answer are due, only the first in the list happens. The others
    count the request all the same (`seen`; `fired` counts how often a fault happened).

    What happens (a fault with only `before_request` spoils nothing, and happens beside another):
    `before_request` is called with the emulator and the request before the request is handled, so
        rows can change between two pages.
    `response`    replaces the emulator's answer. That answer is still computed, so a nonce is used
        up; a callable gets the request and that answer (see `altered`).
    `delay`       seconds before the first byte.
    `bytes_per_second` of the body; 0 sends it at once.
    `padding`     bytes of white space after the body: the same JSON, but huge.
    `delivery`    how the answer arrives. "reset_at_once" is a TCP reset instead of an answer. The
        others send `cut` bytes of the body (default: half) and then "reset" the connection, or
        close it short of its Content-Length ("truncated"), or close it without having given a
        Content-Length ("close_delimited", which HTTP takes for a whole answer).
    """

    path: str = ""
    when: Callable[[Request], bool] | None = None
    nth: int | None = None
    every: int | None = None
    probability: float = 1.0
    rng: Random = field(default_factory=lambda: Random(0))  # noqa: S311  (not for secrets)
    times: int | None = 1
    before_request: Callable[[Any, Request], None] | None = None
    response: Response | Callable[[Request, Response], Response] | None = None
    delay: float = 0.0
    bytes_per_second: float = 0.0
    padding: int = 0
    delivery: Delivery = "whole"
    cut: int | None = None
    seen: int = 0
    fired: int = 0

    def counts(self, request: Request) -> bool:
        """Return whether `path` and `when` match the request; if they do, count it."""
        if self.path and not fnmatchcase(request.path, self.path):
            return False
        if self.when is not None and not self.when(request):
            return False
        self.seen += 1
        return True

    def is_due(self) -> bool:
        """Return whether the fault happens to the request that was just counted."""
        return (
            (self.nth is None or self.seen == self.nth)
            and (self.every is None or self.seen % self.every == 0)
            and (self.times is None or self.fired < self.times)
            and (self.probability >= 1 or self.rng.random() < self.probability)
        )

    def spoils_answer(self) -> bool:
        """Return whether the fault does more than call `before_request`."""
        return (
            self.response is not None
            or self.delivery != "whole"
            or max(self.delay, self.bytes_per_second, self.padding) > 0
        )


def happening(faults: Iterable[Fault], request: Request) -> list[Fault]:
    """Count the request for every fault; return those that happen, of which one may spoil it."""
    counted = [fault for fault in faults if fault.counts(request)]
    found: list[Fault] = []
    spoilt = False
    for fault in counted:
        if not (spoilt and fault.spoils_answer()) and fault.is_due():
            fault.fired += 1
            found.append(fault)
            spoilt = spoilt or fault.spoils_answer()
    return found


def altered(change: Callable[[Any], object]) -> Callable[[Request, Response], Response]:
    """Return a fault's `response`: the honest answer with its decoded JSON changed in place."""

    def alter(_: Request, response: Response) -> Response:
        body = json.loads(response.body)
        change(body)
        return Response(response.status, json.dumps(body).encode(), response.headers)

    return alter


def html(status: int = 502) -> Response:
    """Return what a proxy in front of an API answers while the API is down."""
    reason = HTTPStatus(status).phrase
    page = f"<html><head><title>{status} {reason}</title></head><body>{reason}</body></html>"
    return Response(status, page.encode(), {"Content-Type": "text/html; charset=utf-8"})


def empty(status: int = 500) -> Response:
    """Return a status without a body."""
    return Response(status, b"", {})


def redirect(location: str, status: int = 302) -> Response:
    """Return a redirect to an absolute URL or a path."""
    return Response(status, b"", {"Location": location})


def gzip_bomb(unpacked: int) -> Response:
    """Return a gzip body that unpacks to `unpacked` bytes of space, about 1000 times its size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    block = b" " * 65_536
    packed = [packer.compress(block) for _ in range(unpacked // len(block))]
    packed += [packer.compress(block[: unpacked % len(block)]), packer.flush()]
    return Response(200, b"".join(packed), {**JSON, "Content-Encoding": "gzip"})
