"""The Alibaba emulator against the API reference's examples and rules."""

import json
from dataclasses import replace
from random import Random

import httpx
import pytest

from etl.sandbox import alibaba as errors
from etl.sandbox import alibaba_data
from etl.sandbox.alibaba import Alibaba
from etl.sandbox.alibaba_gateway import MUST_BE_SIGNED, AccessKey
from etl.sandbox.exchange import Response
from etl.sandbox.faults import Fault
from etl.sandbox.server import Sandbox
from etl.sandbox.wire import Clock
from tests.sandbox.clients import alibaba_call, alibaba_get, v3_headers, v3_send

PAGE = {"InstanceId": "ccc-sandbox", "PageNumber": "1", "PageSize": "100"}

# The record of the reference's example response, definition shortened.
EXAMPLE = {
    "Type": "MAIN_FLOW",
    "Definition": '{"activities":[],"description":""}',
    "DraftId": "db07c0bb-6b1f-47d2-b37e-2451c617562d",
    "Description": "1.0",
    "UpdatedTime": "2021-03-08 15:34:49.0",
    "Editor": "ccc-test",
    "Published": True,
    "InstanceId": "ccc-test",
    "Name": "默认流程",
    "ContactFlowId": "78128960-bb00-4ddc-8e82-923a8c5bd22d",
    "CreatedTime": "2021-03-05 17:35:45.0",
    "NumberList": ["400289****"],
}


@pytest.fixture
def alibaba(sandbox: Sandbox) -> Alibaba:
    emulator: Alibaba = sandbox.alibaba
    return emulator


def flow(flow_id: str, minute: int, **more: object) -> dict[str, object]:
    updated = f"2021-03-08 15:{minute:02}:00.0"
    return {"ContactFlowId": flow_id, "UpdatedTime": updated, **more}


def listed(http: httpx.Client, alibaba: Alibaba, **params: str) -> list[str]:
    page = alibaba_get(http, alibaba, "ListContactFlows", **{**PAGE, **params})
    return [row["ContactFlowId"] for row in page["List"]]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["Code"]


def test_the_reference_example_comes_back_as_documented(
    http: httpx.Client, alibaba: Alibaba
) -> None:
    alibaba.add_instance("ccc-test").add(EXAMPLE)
    answer = alibaba_call(http, alibaba, InstanceId="ccc-test", PageNumber="1", PageSize="10")
    body = answer.json()
    assert len(body.pop("RequestId")) == 36
    assert body == {
        "Code": "OK",
        "HttpStatusCode": 200,
        "Message": "",
        "Data": {"PageNumber": 1, "PageSize": 10, "TotalCount": 1, "List": [EXAMPLE]},
    }


def test_pages_cover_the_list(http: httpx.Client, alibaba: Alibaba) -> None:
    store = alibaba.flows["ccc-sandbox"]
    for number in range(25):
        store.add(flow(f"f{number}", number))
    pages = [
        alibaba_get(
            http,
            alibaba,
            "ListContactFlows",
            **{**PAGE, "PageNumber": str(n), "PageSize": "10", "SortOrder": "ASC"},
        )
        for n in (1, 2, 3, 4)
    ]
    assert [len(page["List"]) for page in pages] == [10, 10, 5, 0]
    assert {page["TotalCount"] for page in pages} == {25}
    ids = [row["ContactFlowId"] for page in pages for row in page["List"]]
    assert ids == [f"f{n}" for n in range(25)]


def test_newest_first_unless_ascending_order_is_requested(
    http: httpx.Client, alibaba: Alibaba
) -> None:
    for flow_id, minute in (("b", 2), ("c", 3), ("a", 1)):
        alibaba.flows["ccc-sandbox"].add(flow(flow_id, minute))
    assert listed(http, alibaba) == ["c", "b", "a"]
    assert listed(http, alibaba, SortOrder="DESC", OrderByField="updatedTime") == ["c", "b", "a"]
    assert listed(http, alibaba, SortOrder="ASC") == ["a", "b", "c"]


def test_rows_of_the_same_second_change_places_unless_switched_off(
    http: httpx.Client, alibaba: Alibaba
) -> None:
    for number in range(8):
        alibaba.flows["ccc-sandbox"].add(flow(f"f{number}", 5))
    alibaba.flows["ccc-sandbox"].add(flow("newest", 6))
    orders = {tuple(listed(http, alibaba)) for _ in range(5)}
    assert len(orders) > 1
    assert {order[0] for order in orders} == {"newest"}
    assert {frozenset(order) for order in orders} == {
        frozenset(alibaba.flows["ccc-sandbox"].keys())
    }
    alibaba.ties = None
    assert len({tuple(listed(http, alibaba)) for _ in range(5)}) == 1
    alibaba.ties = Random(1)
    assert len({tuple(listed(http, alibaba)) for _ in range(5)}) > 1


def test_filters(http: httpx.Client, alibaba: Alibaba) -> None:
    store = alibaba.flows["ccc-sandbox"]
    store.add(flow("main", 1, Type="MAIN_FLOW", Name="默认流程"))
    store.add(flow("sub", 2, Type="SUB_FLOW", Name="x", Description="the 默认 one"))
    store.add(flow("bare", 3))
    assert listed(http, alibaba, Type="MAIN_FLOW") == ["main"]
    assert listed(http, alibaba, SearchPattern="默认") == ["sub", "main"]
    assert listed(http, alibaba, SearchPattern="默认", Type="SUB_FLOW") == ["sub"]
    assert listed(http, alibaba, SearchPattern="流程 默认") == []
    page = alibaba_get(http, alibaba, "ListContactFlows", **PAGE, Type="SURVEY_FLOW")
    assert page["TotalCount"] == 0


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"InstanceId": ""}, "MissingInstanceId"),
        ({"PageNumber": ""}, "MissingPageNumber"),
        ({"PageSize": ""}, "MissingPageSize"),
        ({"PageNumber": "0"}, "Parameter.Minimum"),
        ({"PageNumber": "101"}, "Parameter.Maximum"),
        ({"PageSize": "101"}, "Parameter.Maximum"),
        ({"PageSize": "ten"}, "InvalidParameter.Format"),
        ({"PageSize": "-1"}, "InvalidParameter.Format"),
        ({"Type": "FLOW"}, "InvalidParameter"),
        ({"SortOrder": "UP"}, "InvalidParameter"),
        ({"OrderByField": "name"}, "InvalidParameter"),
    ],
)
def test_parameters_out_of_range(
    http: httpx.Client, alibaba: Alibaba, changed: dict[str, str], expected: str
) -> None:
    assert code(alibaba_call(http, alibaba, **{**PAGE, **changed})) == (400, expected)


def test_page_number_above_100_as_in_the_english_reference(
    http: httpx.Client, alibaba: Alibaba
) -> None:
    alibaba.unlimited_pages = True
    page = alibaba_get(http, alibaba, "ListContactFlows", **{**PAGE, "PageNumber": "5000"})
    assert (page["PageNumber"], page["List"]) == (5000, [])
    assert (
        code(alibaba_call(http, alibaba, **{**PAGE, "PageSize": "101"}))[1] == "Parameter.Maximum"
    )


def test_an_unknown_instance_is_the_documented_404(http: httpx.Client, alibaba: Alibaba) -> None:
    answer = alibaba_call(http, alibaba, **{**PAGE, "InstanceId": "ccc-test"})
    assert answer.status_code == 404
    body = answer.json()
    assert body.pop("RequestId") == answer.headers["x-acs-request-id"]
    assert body == {
        "HostId": "ccc.cn-shanghai.aliyuncs.com",
        "Code": "NotExists.InstanceId",
        "Message": "The specified instance ccc-test does not exist.",
        "Recommend": "https://api.aliyun.com/troubleshoot?q=NotExists.InstanceId",
    }


# -- what the gateway checks ----------------------------------------------------------------------


def test_a_retry_with_the_same_nonce_is_refused(http: httpx.Client, alibaba: Alibaba) -> None:
    headers = v3_headers(alibaba)
    assert code(v3_send(http, alibaba, headers, PAGE)) == (200, "OK")
    assert code(v3_send(http, alibaba, headers, PAGE)) == (400, "SignatureNonceUsed")
    headers["x-acs-signature-nonce"] += "1"
    assert code(v3_send(http, alibaba, headers, PAGE)) == (200, "OK")


def test_a_nonce_is_used_up_by_an_answer_that_never_arrived(
    http: httpx.Client, alibaba: Alibaba
) -> None:
    alibaba.faults.append(Fault(response=errors.throttled()))
    headers = v3_headers(alibaba)
    assert code(v3_send(http, alibaba, headers, PAGE)) == (400, "Throttling.User")
    assert code(v3_send(http, alibaba, headers, PAGE)) == (400, "SignatureNonceUsed")


@pytest.mark.parametrize("skew", [-901, -900, 900, 901])
def test_the_clock_may_be_15_minutes_off(http: httpx.Client, alibaba: Alibaba, skew: int) -> None:
    alibaba.clock = Clock(frozen_at=1_700_000_000)
    headers = v3_headers(alibaba)
    alibaba.clock.advance(skew)
    expected = (200, "OK") if abs(skew) == 900 else (400, "InvalidTimeStamp.Expired")
    assert code(v3_send(http, alibaba, headers, PAGE)) == expected


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("x-acs-date", "2023-10-26 10:22:32", (400, "InvalidTimeStamp.Format")),
        ("x-acs-version", "2017-07-05", (404, "InvalidVersion")),
        ("x-acs-action", "DropContactFlows", (404, "InvalidAction.NotFound")),
        ("x-acs-content-sha256", "0" * 64, (400, "SignatureDoesNotMatch")),
        ("x-acs-signature-nonce", None, (400, "IncompleteSignature")),
        ("x-acs-security-token", "surplus", (400, "InvalidSecurityToken.MismatchWithAccessKey")),
    ],
)
def test_a_wrong_header(
    http: httpx.Client,
    alibaba: Alibaba,
    header: str,
    value: str | None,
    expected: tuple[int, str],
) -> None:
    headers = v3_headers(alibaba)
    if value is None:
        del headers[header]
    else:
        headers[header] = value
    assert code(v3_send(http, alibaba, headers, PAGE)) == expected


@pytest.mark.parametrize("left_out", sorted(MUST_BE_SIGNED))
def test_every_required_header_must_be_signed(
    http: httpx.Client, alibaba: Alibaba, left_out: str
) -> None:
    headers = v3_headers(alibaba)
    answer = v3_send(http, alibaba, headers, PAGE)
    assert code(answer) == (200, "OK")
    request = alibaba.requests[-1]
    names = ";".join(sorted(MUST_BE_SIGNED - {left_out}))
    text = f"ACS3-HMAC-SHA256 Credential={alibaba.access_key_id},SignedHeaders={names},Signature="
    request.headers["authorization"] = text + "0" * 64
    assert json.loads(alibaba.handle(request).body)["Code"] == "IncompleteSignature"


def test_keys(http: httpx.Client, alibaba: Alibaba) -> None:
    good = alibaba.keys[alibaba.access_key_id]
    headers = v3_headers(alibaba)

    def with_key(key: AccessKey | None, signing_secret: str = good.secret) -> tuple[int, str]:
        headers["x-acs-signature-nonce"] += "1"
        alibaba.keys = {alibaba.access_key_id: AccessKey(signing_secret)}

        def swap(*_: object) -> None:
            alibaba.keys = {} if key is None else {alibaba.access_key_id: key}

        alibaba.faults[:] = [Fault(before_request=swap)]
        return code(v3_send(http, alibaba, headers, PAGE))

    assert with_key(good) == (200, "OK")
    assert with_key(None) == (404, "InvalidAccessKeyId.NotFound")
    assert with_key(replace(good, active=False)) == (400, "InvalidAccessKeyId.Inactive")
    assert with_key(good, "another secret") == (400, "SignatureDoesNotMatch")
    sts = replace(good, security_token="sandbox-sts")
    assert with_key(sts) == (400, "InvalidSecurityToken.MismatchWithAccessKey")
    headers["x-acs-security-token"] = "sandbox-sts"
    assert with_key(sts) == (200, "OK")
    late = replace(sts, expires_at=alibaba.clock() - 1)
    assert with_key(late) == (400, "InvalidSecurityToken.Expired")


def test_no_signature_at_all(http: httpx.Client, alibaba: Alibaba) -> None:
    answer = http.post(f"{alibaba.url}/?InstanceId=ccc-sandbox")
    assert code(answer) == (400, "MissingAccessKeyId")


def test_the_message_of_a_wrong_signature_shows_what_was_signed(
    http: httpx.Client, alibaba: Alibaba
) -> None:
    headers = v3_headers(alibaba)
    headers["x-acs-content-sha256"] = "0" * 64
    message = v3_send(http, alibaba, headers, PAGE).json()["Message"]
    assert "server string to sign is:ACS3-HMAC-SHA256\n" in message
    assert alibaba.access_key_secret not in message


def test_get_and_other_paths(http: httpx.Client, alibaba: Alibaba) -> None:
    headers = v3_headers(alibaba)
    assert code(v3_send(http, alibaba, headers, PAGE, method="GET")) == (200, "OK")
    alibaba.accepts_get = False
    answer = v3_send(http, alibaba, headers, PAGE, method="GET")
    assert code(answer) == (400, "UnsupportedHTTPMethod")
    assert code(http.post(f"{alibaba.url}/api")) == (404, "InvalidAction.NotFound")


# -- the other actions ----------------------------------------------------------------------------


def test_get_contact_flow_needs_the_draft_id(http: httpx.Client, alibaba: Alibaba) -> None:
    alibaba.flows["ccc-sandbox"].add(EXAMPLE)
    ids = {"InstanceId": "ccc-sandbox", "ContactFlowId": str(EXAMPLE["ContactFlowId"])}
    assert code(alibaba_call(http, alibaba, "GetContactFlow", **ids)) == (400, "MissingDraftId")
    draft = {**ids, "DraftId": str(EXAMPLE["DraftId"])}
    found = alibaba_get(http, alibaba, "GetContactFlow", **draft)
    assert found == {name: value for name, value in EXAMPLE.items() if name != "NumberList"}
    for wrong in ({"DraftId": "other"}, {"ContactFlowId": "other"}):
        answer = alibaba_call(http, alibaba, "GetContactFlow", **{**draft, **wrong})
        assert code(answer) == (404, "NotExists.ContactFlowId")


def number(text: str, **more: object) -> dict[str, object]:
    return {"Number": text, "InstanceId": "ccc-sandbox", "Active": True, **more}


def numbers(http: httpx.Client, alibaba: Alibaba, **params: str) -> list[str]:
    page = alibaba_get(http, alibaba, "ListPhoneNumbers", **{**PAGE, **params})
    assert page["TotalCount"] >= len(page["List"])
    return [row["Number"] for row in page["List"]]


def test_numbers_are_paged_and_counted(http: httpx.Client, alibaba: Alibaba) -> None:
    store = alibaba.phone_numbers["ccc-sandbox"]
    for n in range(25):
        store.add(number(f"01000000{n:02}"))
    pages = [
        alibaba_get(
            http,
            alibaba,
            "ListPhoneNumbers",
            InstanceId="ccc-sandbox",
            PageNumber=str(page),
            PageSize="10",
        )
        for page in (1, 2, 3, 4)
    ]
    assert [len(page["List"]) for page in pages] == [10, 10, 5, 0]
    assert {page["TotalCount"] for page in pages} == {25}
    assert [row["Number"] for page in pages for row in page["List"]] == store.keys()[::-1]
    alibaba.sorts_numbers = True
    assert numbers(http, alibaba) == sorted(store.keys())
    assert numbers(http, alibaba, InstanceId="ccc-sandbox-survey") == []
    for wrong, expected in (
        ({"InstanceId": "other"}, (404, "NotExists.InstanceId")),
        ({"InstanceId": ""}, (400, "MissingInstanceId")),
        ({"PageSize": "101"}, (400, "Parameter.Maximum")),
        ({"PageNumber": ""}, (400, "MissingPageNumber")),
    ):
        answer = alibaba_call(http, alibaba, "ListPhoneNumbers", **{**PAGE, **wrong})
        assert code(answer) == expected


def test_numbers_are_chosen_and_may_be_masked(http: httpx.Client, alibaba: Alibaba) -> None:
    store = alibaba.phone_numbers["ccc-sandbox"]
    store.add(number("0100000001", Usage="Inbound"))
    store.add(number("0100000002", Active=False, Usage="Bidirection"))
    assert numbers(http, alibaba, Active="true") == ["0100000001"]
    assert numbers(http, alibaba, Active="false") == ["0100000002"]
    assert numbers(http, alibaba, Usage="Inbound") == ["0100000001"]
    assert numbers(http, alibaba, SearchPattern="0002") == ["0100000002"]
    alibaba.masks_numbers = True
    assert numbers(http, alibaba) == ["010000****"] * 2
    store.update("0100000001", ContactFlowId="f1")
    assert store.get("0100000001") == number("0100000001", Usage="Inbound", ContactFlowId="f1")


def test_instances(http: httpx.Client, alibaba: Alibaba) -> None:
    instances = alibaba_get(http, alibaba, "ListInstances", PageNumber="1", PageSize="1")
    assert instances["TotalCount"] == 2
    assert [instance["Id"] for instance in instances["List"]] == ["ccc-sandbox"]


def test_a_change_is_stamped_in_shanghai_time(alibaba: Alibaba) -> None:
    alibaba.clock = Clock(frozen_at=1_615_217_689)  # 2021-03-08T15:34:49Z
    store = alibaba.flows["ccc-sandbox"]
    key = store.add(EXAMPLE)
    store.update_silently(key, Name="quiet")
    assert store.get(key)["UpdatedTime"] == EXAMPLE["UpdatedTime"]
    store.update(key, Name="loud")
    assert store.get(key) == {**EXAMPLE, "Name": "loud", "UpdatedTime": "2021-03-08 23:34:49.0"}


def test_error_answers_are_the_documents(alibaba: Alibaba) -> None:
    def shape(response: Response) -> tuple[int, str | None, str, str]:
        body = httpx.Response(response.status, content=response.body).json()
        wait = response.headers.get("x-acs-retry-after")
        return response.status, wait, body["Code"], body["Message"]

    denied = "Request was denied due to user flow control."
    assert shape(errors.throttled()) == (400, None, "Throttling.User", denied)
    assert shape(errors.throttled(429, retry_after_ms=250))[:2] == (429, "250")
    away = "The request has failed due to a temporary failure of the server."
    assert shape(errors.unavailable()) == (503, None, "ServiceUnavailable", away)
    assert shape(errors.not_ok()) == (200, None, "InternalError", "boom")


def test_generated_flows_are_what_the_list_returns(http: httpx.Client, alibaba: Alibaba) -> None:
    flows = [*alibaba_data.flows(Random(3), 40, "ccc-sandbox")]
    flows += alibaba_data.awkward_flows("ccc-sandbox")
    for each in flows:
        alibaba.flows["ccc-sandbox"].add(each)
    page = alibaba_get(http, alibaba, "ListContactFlows", **PAGE)

    def key(row: dict[str, str]) -> str:
        return row["ContactFlowId"]

    assert sorted(page["List"], key=key) == sorted(flows, key=key)
    rows = alibaba_data.numbers(Random(4), 30, "ccc-sandbox", flows[:40])
    rows += alibaba_data.awkward_numbers("ccc-sandbox")
    for row in rows:
        alibaba.phone_numbers["ccc-sandbox"].add(row)
    page = alibaba_get(http, alibaba, "ListPhoneNumbers", **PAGE)
    assert page["List"][::-1] == rows
    assert alibaba.records() == {"contact_flows": flows, "phone_numbers": rows}
