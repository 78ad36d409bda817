"""The verifier against the documents' own vectors and against requests that the SDK sent.

The requests were recorded from alibabacloud-ccc20200701 2.35.0 against a recorder on loopback,
with the invented key below.
"""

import calendar
import time
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

import msgspec
import pytest

from etl.sandbox import signature
from etl.sandbox.alibaba import Alibaba
from etl.sandbox.alibaba_gateway import AccessKey
from etl.sandbox.exchange import Request
from etl.sandbox.wire import Clock
from tests.extract import acs3_recorded as official
from tests.extract.acs3_recorded import Signed, recorded
from tests.sandbox import clients

EMPTY_BODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
KEY_ID = "TESTAKID0000000000000000"
SECRET = "testsecret/with+odd=chars"
STS_TOKEN = "TESTSTS.token/with+odd=chars=="
NOW = "2026-11-20T09:30:36Z"

LONG = (
    "InstanceId=ccc-test&OrderByField=updatedTime&PageNumber=1&PageSize=100"
    "&SearchPattern=%E9%BB%98%E8%AE%A4+%E6%B5%81%E7%A8%8B%2B~%2A%2F%27%C3%A9"
    "&SortOrder=ASC&Type=MAIN_FLOW"
)
SHORT = "InstanceId=ccc-test&PageNumber=1&PageSize=10"


@dataclass(frozen=True)
class Sent:
    """A V3 request of the SDK, by what differs between them."""

    method: str
    query: str
    date: str
    nonce: str
    signature: str
    sts: bool = False

    def request(self) -> Request:
        headers = {
            "host": "127.0.0.1:37021",
            "x-acs-version": "2020-07-01",
            "x-acs-action": "ListContactFlows",
            "user-agent": "AlibabaCloud (Linux; x86_64) Python/3.11.7 Core/0.4.3 TeaDSL/2",
            "x-acs-date": self.date,
            "x-acs-signature-nonce": self.nonce,
            "accept": "application/json",
            "x-acs-content-sha256": EMPTY_BODY,
            "x-acs-credentials-provider": "static_sts" if self.sts else "static_ak",
        }
        if self.sts:
            headers |= {"x-acs-accesskey-id": KEY_ID, "x-acs-security-token": STS_TOKEN}
        signed = ";".join(sorted(headers))
        headers["authorization"] = (
            f"ACS3-HMAC-SHA256 Credential={KEY_ID},SignedHeaders={signed},"
            f"Signature={self.signature}"
        )
        headers["accept-encoding"] = "identity"
        query = parse_qsl(self.query, keep_blank_values=True)
        return Request(self.method, f"/?{self.query}", "/", query, headers, b"", at=0)


V3 = {
    "access key": Sent(
        "POST",
        LONG,
        "2026-11-20T09:30:36Z",
        "dc781924dcb941e2aeb6c78ae205bd41",
        "34ea4feb2ee8ea327fbec9df18b25b1c91d965ae785a44b2579a4f07b5c20fa6",
    ),
    "required parameters only": Sent(
        "POST",
        SHORT,
        "2026-11-20T09:30:36Z",
        "b69f364a8e955931d0f93df704327140",
        "3c4ea74fdf8f575f9ef10950e8cf7b9b46b6c4a12e1c857b17dacb6f05baff2d",
    ),
    "GET": Sent(
        "GET",
        SHORT,
        "2026-11-20T09:30:37Z",
        "45404e0ea3c4810e1506cd8830bb49c8",
        "b44d3d7820c9c142f83a3ab2dcc72895a83f63d0ee34fc34e5a078cd013077d5",
    ),
    "STS": Sent(
        "POST",
        LONG,
        "2026-11-20T09:30:36Z",
        "764432f047a6b69dc458db1ae1ce77c0",
        "729050bc91931f4c7781a59e4dbc93b73aa0814461e182b7bbfea94836178e25",
        sts=True,
    ),
}

RPC = {
    "access key": (
        "Action=ListContactFlows&Format=json&Version=2020-07-01"
        "&Timestamp=2026-11-20T09%3A30%3A36Z&SignatureNonce=8eb822132c738652236f149877e7dad9"
        f"&{LONG}&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0"
        f"&AccessKeyId={KEY_ID}&Signature=it55ltsc%2B48JqYTqTBXFrPVQbbg%3D"
    ),
    "STS": (
        "Action=ListContactFlows&Format=json&Version=2020-07-01"
        "&Timestamp=2026-11-20T09%3A30%3A36Z&SignatureNonce=bb2f46ac7c7e94b9f5296cf3c05a24ce"
        f"&{LONG}&SecurityToken=TESTSTS.token%2Fwith%2Bodd%3Dchars%3D%3D"
        f"&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&AccessKeyId={KEY_ID}"
        "&Signature=xU8PuKIYHz1D%2BqPy9TkpXATaIYw%3D"
    ),
}


def emulator(*, sts: bool, now: str = NOW) -> Alibaba:
    clock = Clock(calendar.timegm(time.strptime(now, "%Y-%m-%dT%H:%M:%SZ")))
    alibaba = Alibaba(("ccc-test",), clock=clock)
    alibaba.keys = {KEY_ID: AccessKey(SECRET, security_token=STS_TOKEN if sts else None)}
    return alibaba


def code(alibaba: Alibaba, request: Request) -> str:
    answer = msgspec.json.decode(alibaba.handle(request).body)
    assert isinstance(answer["Code"], str)
    return answer["Code"]


def test_the_documented_v3_vector() -> None:
    headers = {
        "host": "ecs.cn-shanghai.aliyuncs.com",
        "x-acs-action": "RunInstances",
        "x-acs-content-sha256": EMPTY_BODY,
        "x-acs-date": "2023-10-26T10:22:32Z",
        "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
        "x-acs-version": "2014-05-26",
    }
    query = [
        ("RegionId", "cn-shanghai"),
        ("ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"),
    ]
    text = signature.v3_string_to_sign("POST", query, headers, headers, b"")
    assert text == (
        "ACS3-HMAC-SHA256\n7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259"
    )
    assert signature.v3_signature("YourAccessKeySecret", text) == (
        "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )


def test_the_documented_rpc_vector() -> None:
    parameters = {
        "Timestamp": "2016-02-23T12:46:24Z",
        "Format": "XML",
        "AccessKeyId": "testid",
        "Action": "DescribeRegions",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
        "Version": "2014-05-26",
        "SignatureVersion": "1.0",
        "Signature": "not part of what is signed",
    }
    text = signature.v1_string_to_sign("GET", parameters.items())
    assert signature.v1_signature("testsecret", text) == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="


def test_percent_encoding_is_that_of_rfc_3986() -> None:
    assert signature.percent("aZ09-_.~ *+/=&%'é流") == (
        "aZ09-_.~%20%2A%2B%2F%3D%26%25%27%C3%A9%E6%B5%81"
    )
    assert signature.canonical_query([("b", ""), ("a", "2"), ("A", "3")]) == "A=3&a=2&b="


def test_header_values_are_trimmed_and_their_order_does_not_matter() -> None:
    one = signature.v3_string_to_sign("GET", [], {"a": " x ", "b": "y"}, ["b", "a"], b"")
    two = signature.v3_string_to_sign("GET", [], {"b": "y", "a": "x"}, ["a", "b"], b"")
    assert one == two


@pytest.mark.parametrize("sent", V3.values(), ids=V3.keys())
def test_what_the_sdk_signed_is_accepted_once(sent: Sent) -> None:
    alibaba = emulator(sts=sent.sts)
    assert code(alibaba, sent.request()) == "OK"
    assert code(alibaba, sent.request()) == "SignatureNonceUsed"


@pytest.mark.parametrize("sent", V3.values(), ids=V3.keys())
def test_what_the_sdk_signed_is_refused_after_any_change(sent: Sent) -> None:
    changed_query = replace(sent, query=sent.query.replace("PageSize=10", "PageSize=11"))
    other_method = replace(sent, method="POST" if sent.method == "GET" else "GET")
    other_nonce = replace(sent, nonce="0" * 32)
    other_agent = sent.request()
    other_agent.headers["user-agent"] = "a proxy's"
    other_body = sent.request()
    other_body.body = b"x"
    for request in (
        changed_query.request(),
        other_method.request(),
        other_nonce.request(),
        other_agent,
        other_body,
    ):
        assert code(emulator(sts=sent.sts), request) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("kind", RPC)
def test_what_the_sdk_signed_in_the_old_style_is_accepted_once(kind: str) -> None:
    alibaba = emulator(sts=kind == "STS")
    query = parse_qsl(RPC[kind])
    request = Request("POST", f"/?{RPC[kind]}", "/", query, {}, b"", at=0)
    assert code(alibaba, request) == "OK"
    assert code(alibaba, request) == "SignatureNonceUsed"
    request.query = [(k, "99" if k == "PageSize" else v) for k, v in query]
    assert code(emulator(sts=kind == "STS"), request) == "SignatureDoesNotMatch"


def test_the_old_style_may_be_31_minutes_old() -> None:
    query = parse_qsl(RPC["access key"])
    request = Request("POST", "/", "/", query, {}, b"", at=0)
    assert code(emulator(sts=False, now="2026-11-20T10:01:36Z"), request) == "OK"
    late = emulator(sts=False, now="2026-11-20T10:01:37Z")
    assert code(late, request) == "InvalidTimeStamp.Expired"


def test_an_sts_token_must_be_signed() -> None:
    request = V3["STS"].request()
    signed = request.headers["authorization"].replace("x-acs-security-token;", "")
    request.headers["authorization"] = signed
    assert code(emulator(sts=True), request) == "IncompleteSignature"


def test_a_signed_header_must_be_present() -> None:
    request = V3["access key"].request()
    del request.headers["accept"]
    assert code(emulator(sts=False), request) == "IncompleteSignature"


def test_each_key_has_its_own_nonces() -> None:
    alibaba = emulator(sts=False)
    query = dict(parse_qsl(RPC["access key"]))
    alibaba.keys["another"] = alibaba.keys[KEY_ID]
    for key_id in (KEY_ID, "another"):
        query["AccessKeyId"] = key_id
        text = signature.v1_string_to_sign("POST", query.items())
        query["Signature"] = signature.v1_signature(SECRET, text)
        request = Request("POST", "/", "/", list(query.items()), {}, b"", at=0)
        assert code(alibaba, request) == "OK"


def test_the_old_style_must_ask_for_json() -> None:
    for query in (
        RPC["access key"].replace("Format=json", "Format=XML"),
        RPC["access key"].replace("&Format=json", ""),
    ):
        request = Request("POST", "/", "/", parse_qsl(query), {}, b"", at=0)
        assert code(emulator(sts=False), request) == "InvalidParameter.Format"


def test_the_old_style_names_what_is_missing() -> None:
    query = [pair for pair in parse_qsl(RPC["access key"]) if pair[0] != "SignatureNonce"]
    request = Request("POST", "/", "/", query, {}, b"", at=0)
    assert code(emulator(sts=False), request) == "MissingSignatureNonce"


@pytest.mark.parametrize("case", recorded())
def test_everything_that_alibabas_own_library_signed_is_accepted(case: Signed) -> None:
    alibaba = emulator(sts=False, now=case.date)
    alibaba.keys = {
        official.KEY_ID: AccessKey(case.secret, security_token=case.token or None),
    }
    headers = {**case.headers(), "authorization": case.authorization}
    query = list(case.query.items())
    request = Request(case.method, case.url(), "/", query, headers, case.content(), at=0)
    first = code(alibaba, request)
    assert not first.startswith(("Signature", "Incomplete", "InvalidTimeStamp", "InvalidAccess"))
    assert code(alibaba, request) == "SignatureNonceUsed"
    headers["x-acs-signature-nonce"] = "0" * 32
    assert code(alibaba, request) == "SignatureDoesNotMatch"


def test_the_tests_own_client_signs_like_alibabas_library() -> None:
    for case in recorded():
        authorization = clients.v3_authorization(
            case.method,
            case.query,
            case.headers(),
            official.KEY_ID,
            case.secret,
        )
        assert authorization == case.authorization
