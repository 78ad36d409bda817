"""What a sync and a check send to Twilio and Zoom is what their documents allow."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from etl.providers.catalog import STREAMS
from etl.providers.declare import open_http, request
from etl.sandbox.data import Sizes
from etl.sandbox.exchange import Request, Response
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox, serve
from tests.extract.sources import twilio_source, zoom_source
from tests.openapi.document import DOCUMENTS
from tests.sync.conftest import Sync

NAMES = [name for name in STREAMS if name.partition(".")[0] in DOCUMENTS]
SOURCES: dict[str, Callable[[Any], Any]] = {"twilio": twilio_source, "zoom": zoom_source}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(Sizes(48, 40), seed=7) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_requests_and_their_answers_are_documented(
    sync: Callable[[Sandbox], Sync], sandbox: Sandbox, name: str
) -> None:
    provider, _, stream = name.partition(".")
    document, emulator = DOCUMENTS[provider], getattr(sandbox, provider)
    wrong: list[str] = []

    def judge(sent: Request, answer: Response) -> Response:
        if sent.path != "/oauth/token":  # another document's
            wrong.extend(document.wrong_in_request(sent))
            if answer.status == 200:
                wrong.extend(document.wrong_in_answer(sent.path, json.loads(answer.body)))
        return answer

    emulator.largest_page = 7
    emulator.faults.append(Fault(times=None, response=judge))
    run = sync(sandbox)
    store = getattr(emulator, stream)
    first, second, *_ = store.keys()
    for _ in range(2):
        assert run(f"{provider}_demo.{stream}").status == "complete"
        store.delete(second)
        store.update(first)
        second = store.keys()[3]
    assert run(f"{provider}_demo.{stream}", full=True).status == "complete"
    source = SOURCES[provider](emulator)
    with open_http(source, STREAMS[name]) as http:
        STREAMS[name].probe(http, request(source, STREAMS[name]))
    assert wrong == []
    assert len(emulator.requests) > 5
