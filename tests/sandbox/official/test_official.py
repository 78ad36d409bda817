"""The providers' own clients read the emulators: what they understand is what the emulators have.

They are installed for these tests alone, into an environment that is removed afterwards. Where PyPI
cannot be reached the tests are skipped, unless CALLFLOW_SDKS_PYTHON names an interpreter that has
what requirements.txt says.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from etl.sandbox.alibaba import Alibaba
from etl.sandbox.alibaba_gateway import AccessKey
from etl.sandbox.data import Sizes
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox, serve
from etl.sandbox.twilio import Twilio

HERE = Path(__file__).parent

pytestmark = pytest.mark.more

SIZES = Sizes(88, 30)
"""Of Twilio's lists more than two pages of ten rows each."""


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    """Yield an interpreter that has the clients."""
    named = os.environ.get("CALLFLOW_SDKS_PYTHON")
    if named:
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="callflow-sdks-") as place:
        program = f"{place}/bin/python"
        wanted = str(HERE / "requirements.txt")
        for command in (
            [sys.executable, "-m", "venv", place],
            [program, "-m", "pip", "install", "--quiet", "--no-compile", "-r", wanted],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode:
                last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
                pytest.skip(f"the clients cannot be installed: {last}")
        yield program


def found(python: str, script: str, **given: Any) -> Any:
    done = subprocess.run(
        [python, "-W", "ignore", str(HERE / script), json.dumps(given)],
        env={"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- Twilio ---------------------------------------------------------------------------------------


@pytest.fixture
def twilio() -> Iterator[Twilio]:
    with serve(SIZES, seed=3) as sandbox:
        emulator: Twilio = sandbox.twilio
        yield emulator


def twilio_found(python: str, twilio: Twilio, *, key: bool) -> Any:
    user, secret = twilio.account_sid, twilio.auth_token
    if key:
        user, secret = twilio.api_key_sid, twilio.api_key_secret
    return found(
        python,
        "read_twilio.py",
        url=twilio.url,
        user=user,
        secret=secret,
        account=twilio.account_sid,
        page_size=10,
    )


def understood(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its times as the client shows them."""
    times = {
        name: _moment(record[name]).isoformat()
        for name in ("date_created", "date_updated")
        if record[name] is not None
    }
    return record | times


def _moment(text: str) -> datetime:
    return parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)


def no_more_than(record: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a record that the client shows; it must know all but a few."""
    assert record.keys() - shown.keys() <= {"beta", "revisions"}, record.keys() - shown.keys()
    return {name: record.get(name) for name in shown}


@pytest.mark.parametrize("key", [False, True], ids=["auth token", "API key"])
def test_twilios_client_reads_all_lists(python: str, twilio: Twilio, key: bool) -> None:
    read = twilio_found(python, twilio, key=key)
    records = twilio.records()
    for stream, rows in records.items():
        expected = [understood(row) for row in reversed(rows)]
        if stream == "studio_flows":
            expected = [row | {"definition": None} for row in expected]
        shown = read[stream]
        assert len(shown) == len(rows) > 20
        assert shown == [no_more_than(*each) for each in zip(expected, shown, strict=True)]
    unpublished = 0
    for flow in records["studio_flows"]:
        one = read["one"][flow["sid"]]
        *_, newest = revisions = [understood(each) for each in flow["revisions"]]
        assert one["flow"] == no_more_than(understood(flow), one["flow"])
        assert one["newest"] == no_more_than(newest, one["newest"])
        listed = [each | {"definition": None} for each in reversed(revisions)]
        assert one["listed"] == [
            no_more_than(*each) for each in zip(listed, one["listed"], strict=True)
        ]
        live = [each for each in revisions if each["status"] == "published"]
        if live:
            assert one["live"] == no_more_than(live[-1], one["live"])
        else:
            assert one["live"] == {"status": 404, "code": 20404}
            unpublished += 1
    assert unpublished > 0
    pages = [r for r in twilio.requests if r.path == "/v1/Configuration/Addresses"]
    assert len(pages) == 3
    assert all(request.status in (200, 404) for request in twilio.requests)


def test_twilios_client_is_refused_what_its_key_may_not_read(python: str, twilio: Twilio) -> None:
    twilio.api_key_may_read = {"flex", "api"}
    read = twilio_found(python, twilio, key=True)
    assert len(read["flex_flows"]) == len(twilio.flex_flows)
    assert len(read["phone_numbers"]) == len(twilio.phone_numbers)
    for stream in ("studio_flows", "addresses"):
        assert "403" in read[stream]["refused"]


# -- Alibaba --------------------------------------------------------------------------------------


@pytest.fixture
def alibaba() -> Iterator[Alibaba]:
    with serve(SIZES, seed=3) as sandbox:
        assert isinstance(sandbox, Sandbox)
        emulator: Alibaba = sandbox.alibaba
        emulator.ties = None
        yield emulator


def alibaba_found(python: str, alibaba: Alibaba, **changed: Any) -> Any:
    key = alibaba.keys[alibaba.access_key_id]
    given: dict[str, Any] = {
        "url": alibaba.url,
        "key": alibaba.access_key_id,
        "secret": key.secret,
        "token": key.security_token,
        "instances": list(alibaba.flows),
        "page_size": 25,
    }
    return found(python, "read_alibaba.py", **(given | changed))


def by_key(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row.get("ContactFlowId")) + str(row.get("Number")))


@pytest.mark.parametrize("token", [None, "TESTSTS.token/with+odd=chars=="], ids=["key", "STS"])
def test_alibabas_client_reads_both_lists(python: str, alibaba: Alibaba, token: str | None) -> None:
    secret = alibaba.access_key_secret
    alibaba.keys[alibaba.access_key_id] = AccessKey(secret, security_token=token)
    read = alibaba_found(python, alibaba)
    records = alibaba.records()
    assert len(records["phone_numbers"]) > 50
    for stream, rows in records.items():
        assert by_key(read[stream]) == by_key(rows)
    actions = [request.headers["x-acs-action"] for request in alibaba.requests]
    assert actions.count("ListContactFlows") == 2 * 4
    assert actions.count("ListPhoneNumbers") == 2 * 2
    assert all("x-acs-security-token" in r.headers for r in alibaba.requests) is bool(token)


def test_alibabas_client_is_refused_as_documented(python: str, alibaba: Alibaba) -> None:
    def code(**changed: Any) -> tuple[int, str]:
        refused = alibaba_found(python, alibaba, **changed)["phone_numbers"]
        return refused["status"], refused["code"]

    assert code(secret="another") == (400, "SignatureDoesNotMatch")
    assert code(key="another") == (404, "InvalidAccessKeyId.NotFound")
    assert code(instances=["another"]) == (404, "NotExists.InstanceId")
    alibaba.clock.advance(3600)
    assert code() == (400, "InvalidTimeStamp.Expired")
    alibaba.clock.advance(-3600)
    twice = Fault(times=None, before_request=lambda emulator, request: emulator.handle(request))
    alibaba.faults = [twice]
    assert code() == (400, "SignatureNonceUsed")
    assert twice.fired > 0
