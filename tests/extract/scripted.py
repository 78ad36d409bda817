"""A server that answers from a script, and a clock that only moves when code sleeps."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from etl.extract.http import Http, Seam
from etl.extract.verdict import judge_status
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault
from etl.sandbox.wire import Clock, serving


class Time:
    """A monotonic clock and its sleep, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Script:
    """Gives one scripted answer after the other, then the last one forever. Values become JSON."""

    def __init__(self, *answers: Any) -> None:
        self.url = ""
        self.clock = Clock()
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque()
        self.errors: list[Exception] = []
        self.answers: list[Any] = list(answers) or [{}]

    def handle(self, request: Request) -> Response:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, Response) else json_response(200, answer)


def unsigned(method: str, url: str, body: bytes) -> dict[str, str]:
    return {}


@contextmanager
def connected(
    script: Script, time: Time | None = None, *, path: str = "", **options: Any
) -> Iterator[Http]:
    """Serve `script` and yield an `Http` that talks to it; see `scripted_http`."""
    with serving(script) as url, scripted_http(url + path, time or Time(), **options) as http:
        yield http


def scripted_http(url: str, time: Time, **options: Any) -> Http:
    """Return an `Http` that never really sleeps; `options` are those of `Seam` and `Http`."""
    names = {field.name for field in fields(Seam)}
    seam: dict[str, Any] = {"where": "demo.stream", "clock": time, "sleep": time.sleep}
    seam |= {name: value for name, value in options.items() if name in names}
    others = {name: value for name, value in options.items() if name not in names}
    return Http(url, Seam(**seam), **({"sign": unsigned, "judge": judge_status} | others))
