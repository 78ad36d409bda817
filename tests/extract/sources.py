"""Settings of sources that live in a sandbox, and connections that never really sleep."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from etl.extract.http import Http
from etl.extract.page import ScanRequest
from etl.providers.alibaba.source import AlibabaSource
from etl.providers.catalog import STREAMS
from etl.providers.declare import open_http, request
from etl.providers.twilio.source import TwilioSource
from etl.providers.zoom.source import ZoomSource
from etl.sandbox.alibaba import Alibaba
from etl.sandbox.twilio import Twilio
from etl.sandbox.wire import serving
from etl.sandbox.zoom import Zoom
from tests.extract.scripted import Time

DEFAULTS = {"requests_per_second": 0.0, "timeout": 10.0}


def zoom_source(emulator: Any = None, **changes: Any) -> ZoomSource:
    url = emulator.url if emulator else ""
    values: dict[str, Any] = {
        "name": "zoom_eu",
        "account_id": "sandbox-zoom-account",
        "client_id": "sandbox-zoom-client",
        "client_secret": SecretStr("sandbox-zoom-secret"),
        "base_url": url + "/v2",
        "token_url": url + "/oauth/token",
    }
    return ZoomSource(**(DEFAULTS | values | changes))


def twilio_source(emulator: Any, **changes: Any) -> TwilioSource:
    values = {
        "name": "twilio_main",
        "account_sid": "AC" + "5" * 32,
        "auth_token": SecretStr("sandbox-twilio-token"),
        "base_url": emulator.url,
    }
    return TwilioSource(**(DEFAULTS | values | changes))


def alibaba_source(emulator: Any, **changes: Any) -> AlibabaSource:
    values = {
        "name": "alibaba_sh",
        "access_key_id": "sandbox-alibaba-key",
        "access_key_secret": SecretStr("sandbox-alibaba-secret"),
        "instance_ids": ("ccc-sandbox",),
        "base_url": emulator.url,
    }
    return AlibabaSource(**(DEFAULTS | values | changes))


@contextmanager
def zoom_flows(emulator: Any = None, time: Time | None = None, **changes: Any) -> Iterator[Http]:
    emulator, time = emulator or Zoom(), time or Time()
    with serving(emulator):
        source = zoom_source(emulator, **changes)
        with open_http(source, STREAMS["zoom.flows"], clock=time, sleep=time.sleep) as http:
            yield http


@contextmanager
def twilio_lists(
    emulator: Any = None, time: Time | None = None, of: str = "channels", **changes: Any
) -> Iterator[Http]:
    emulator, time = emulator or Twilio(), time or Time()
    with serving(emulator):
        source = twilio_source(emulator, **changes)
        with open_http(source, STREAMS[f"twilio.{of}"], clock=time, sleep=time.sleep) as http:
            yield http


@contextmanager
def alibaba_flows(
    emulator: Any = None, time: Time | None = None, **changes: Any
) -> Iterator[tuple[Http, ScanRequest]]:
    """Yield a connection, and the request for the whole list, with records as JSON values."""
    emulator, time = emulator or Alibaba(("ccc-sandbox",)), time or Time()
    with serving(emulator):
        source, flows = alibaba_source(emulator, **changes), STREAMS["alibaba.contact_flows"]
        with open_http(source, flows, clock=time, sleep=time.sleep) as http:
            yield http, replace(request(source, flows), exact=None)
