"""The V3 signature against Alibaba Cloud's own example, what its library signed, and the wire."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.extract.acs3 import Signer, canonical_query, signature
from etl.extract.http import Http, Seam
from etl.extract.verdict import judge_status
from etl.sandbox.signature import v3_signature, v3_string_to_sign
from etl.sandbox.wire import serving
from tests.extract.acs3_recorded import KEY_ID, Signed, recorded
from tests.extract.scripted import Script

EMPTY = hashlib.sha256(b"").hexdigest()
TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("+*~/ %&=?#-_.ü中"), max_size=20)
NAMES = st.text("ABCabcXYZxyz019-._", min_size=1, max_size=8)


def test_the_example_of_the_documents() -> None:
    """Alibaba Cloud's docs, "V3 request structure and signature"."""
    names, digest = signature(
        "POST",
        {
            "RegionId": "cn-shanghai",
            "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
        },
        {
            "host": "ecs.cn-shanghai.aliyuncs.com",
            "x-acs-action": "RunInstances",
            "x-acs-content-sha256": EMPTY,
            "x-acs-date": "2023-10-26T10:22:32Z",
            "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
            "x-acs-version": "2014-05-26",
            "user-agent": "not signed",
        },
        EMPTY,
        "YourAccessKeySecret",
    )
    assert names == (
        "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version"
    )
    assert digest == "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"


@pytest.mark.parametrize("case", [case for case in recorded() if not case.content_type])
def test_it_signs_to_the_byte_like_the_official_library(case: Signed) -> None:
    signer = Signer(
        KEY_ID,
        case.secret,
        case.token or None,
        case.action,
        now=lambda: datetime.fromisoformat(case.date),
        nonce=lambda: case.nonce,
    )
    sent = signer(case.method, case.url(), case.content())
    assert sent == {**case.headers(), "authorization": case.authorization}


def test_all_that_the_official_library_signs_is_signed() -> None:
    cases = recorded()
    for case in cases:
        body_hash = hashlib.sha256(case.content()).hexdigest()
        names, digest = signature(case.method, case.query, case.headers(), body_hash, case.secret)
        head = f"ACS3-HMAC-SHA256 Credential={KEY_ID},SignedHeaders={names}"
        assert case.authorization == f"{head},Signature={digest}", case
    assert len(cases) == 100
    assert sum(bool(case.content_type) for case in cases) > 10


def test_the_canonical_query() -> None:
    assert canonical_query({}) == ""
    assert canonical_query({"b": "", "a": "x y*~/+", "a-b": "ü", "B": "%"}) == (
        "B=%25&a=x%20y%2A~%2F%2B&a-b=%C3%BC&b="
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(NAMES, TEXT, max_size=6), min_size=1, max_size=5))
def test_what_arrives_is_what_was_signed(queries: list[dict[str, str]]) -> None:
    """The test signs again what the server received: raw target, headers and body."""
    script = Script({})
    signer = Signer("key", "secret", "sts", "ListContactFlows")
    with (
        serving(script) as url,
        Http(url, Seam("demo"), sign=signer, judge=judge_status) as http,
    ):
        for query in queries:
            http.call("POST", "/", query)
    for query, sent in zip(queries, script.requests, strict=True):
        assert sent.params == query
        assert "+" not in sent.target
        head, _, digest = sent.headers["authorization"].partition(",Signature=")
        names = frozenset(head.partition("SignedHeaders=")[2].split(";"))
        to_sign = v3_string_to_sign(sent.method, sent.query, sent.headers, names, sent.body)
        assert digest == v3_signature("secret", to_sign)
        assert {n for n in sent.headers if n.startswith("x-acs-")} | {"host"} == names
        assert sent.headers["host"] == url.removeprefix("http://")


def test_each_request_has_its_own_nonce_and_the_time_of_now() -> None:
    times = iter([datetime(2026, 11, 20, 12, 0, second, 999, tzinfo=UTC) for second in range(2)])
    signer = Signer("key", "secret", None, "ListContactFlows", now=lambda: next(times))
    sent: list[Any] = [signer("POST", "https://ccc.example/?A=1", b"") for _ in range(2)]
    assert [headers["x-acs-date"] for headers in sent] == [
        "2026-11-20T12:00:00Z",
        "2026-11-20T12:00:01Z",
    ]
    assert len({headers["x-acs-signature-nonce"] for headers in sent}) == 2
    assert all("x-acs-security-token" not in headers for headers in sent)
    assert all("secret" not in str(headers) for headers in sent)
