"""An empty sandbox for each test, and one HTTP client for all of them."""

from collections.abc import Iterator

import httpx
import pytest

from etl.sandbox.data import EMPTY
from etl.sandbox.server import Sandbox, serve


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(EMPTY) as running:
        yield running


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client
