"""A server that answers from a script, and a clock that only moves when somebody sleeps."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etl.extract.http import Http, judge_status
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
    """Gives one scripted answer after the other; the last one for ever. A value becomes JSON."""

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
    """An `Http` for a running `script`; it never really sleeps."""
    time = time or Time()
    settings: dict[str, Any] = {
        "sign": unsigned,
        "judge": judge_status,
        "where": "demo.stream",
        "clock": time,
        "sleep": time.sleep,
    }
    with serving(script) as url, Http(url + path, **(settings | options)) as http:
        yield http
