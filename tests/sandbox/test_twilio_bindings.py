"""Addresses and telephone numbers of the Twilio emulator; the rights and ends of its lists."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from etl.sandbox import twilio_bindings_data, twilio_data, twilio_numbers, twilio_studio_data
from etl.sandbox.data import random_of
from etl.sandbox.faults import Fault, html
from etl.sandbox.server import Sandbox
from etl.sandbox.store import Paging
from etl.sandbox.twilio import Ending, Twilio
from etl.sandbox.twilio_lists import Product
from etl.sandbox.wire import Clock

AT = "Thu, 30 Jul 2015 23:19:04 +0000"
LISTS: dict[Product, tuple[str, ...]] = {
    "flex": ("/v1/FlexFlows", "/v1/Channels"),
    "studio": ("/v2/Flows",),
    "conversations": ("/v1/Configuration/Addresses",),
    "api": (twilio_numbers.path("AC" + "5" * 32) + ".json",),
}


@pytest.fixture
def twilio(sandbox: Sandbox) -> Twilio:
    emulator: Twilio = sandbox.twilio
    return emulator


def ask(http: httpx.Client, twilio: Twilio, target: str, *, key: bool = False) -> httpx.Response:
    account, token = twilio.account_sid, twilio.auth_token
    auth = (twilio.api_key_sid, twilio.api_key_secret) if key else (account, token)
    return http.get(f"{twilio.url}{target}", auth=auth)


def got(http: httpx.Client, twilio: Twilio, target: str) -> Any:
    answer = ask(http, twilio, target)
    assert answer.status_code == 200, answer.text
    return answer.json()


def code(answer: httpx.Response) -> tuple[int, int]:
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["code"]


def add_numbers(twilio: Twilio, count: int) -> list[str]:
    return [
        twilio.phone_numbers.add(
            twilio_numbers.number(
                f"PN{n}", twilio.account_sid, f"+1212555010{n}", AT, friendly_name=f"n{n}"
            )
        )
        for n in range(count)
    ]


# -- the API of 2010 ------------------------------------------------------------------------------


def test_an_empty_list_of_numbers(http: httpx.Client, twilio: Twilio) -> None:
    path = LISTS["api"][0]
    first = f"{path}?PageSize=50&Page=0"
    assert got(http, twilio, path) == {
        "first_page_uri": first,
        "previous_page_uri": None,
        "uri": first,
        "next_page_uri": None,
        "page": 0,
        "page_size": 50,
        "start": 0,
        "end": 0,
        "incoming_phone_numbers": [],
    }


@pytest.mark.parametrize("paging", ["offset/updated", "offset/created", "keyset", "snapshot"])
def test_pages_of_numbers_are_linked_by_paths(
    http: httpx.Client, twilio: Twilio, paging: Paging
) -> None:
    sids = add_numbers(twilio, 5)
    twilio.paging = paging
    path = LISTS["api"][0]
    pages = [got(http, twilio, f"{path}?PageSize=2")]
    while pages[-1]["next_page_uri"]:
        assert pages[-1]["next_page_uri"].startswith(f"{path}?PageSize=2&Page={len(pages)}&PageTo")
        token = parse_qs(urlsplit(pages[-1]["next_page_uri"]).query)["PageToken"][0]
        assert token.startswith("PA")
        pages.append(got(http, twilio, pages[-1]["next_page_uri"]))
    assert [(page["page"], page["start"], page["end"]) for page in pages] == [
        (0, 0, 1),
        (1, 2, 3),
        (2, 4, 4),
    ]
    assert all("meta" not in page for page in pages)
    assert pages[2]["previous_page_uri"] == pages[1]["uri"] == pages[0]["next_page_uri"]
    assert [r["sid"] for page in pages for r in page["incoming_phone_numbers"]] == sids[::-1]
    twilio.next_base = "http://127.0.0.1:9"
    page = got(http, twilio, f"{path}?PageSize=2")
    assert page["next_page_uri"].startswith(f"http://127.0.0.1:9{path}?")
    assert page["uri"].startswith(path)


def test_numbers_are_filtered(http: httpx.Client, twilio: Twilio) -> None:
    add_numbers(twilio, 3)
    twilio.phone_numbers.update_silently("PN1", beta=True, origin="hosted")
    path = LISTS["api"][0]

    def found(query: str) -> list[str]:
        page = got(http, twilio, f"{path}?{query}")
        assert query.split("=")[0] in page["uri"]
        return [row["sid"] for row in page["incoming_phone_numbers"]]

    assert found("PhoneNumber=%2B12125550102") == ["PN2"]
    assert found("PhoneNumber=%2B1212555010*") == ["PN2", "PN1", "PN0"]
    assert found("PhoneNumber=5550102") == []
    assert found("FriendlyName=n1") == ["PN1"]
    assert found("Origin=hosted") == ["PN1"]
    assert found("Beta=false") == ["PN2", "PN0"]
    assert found("Beta=true") == ["PN2", "PN1", "PN0"]


def test_times_are_of_2010_and_sort_as_times(http: httpx.Client, twilio: Twilio) -> None:
    add_numbers(twilio, 3)
    twilio.paging = "offset/updated"
    for sid, at in (("PN0", 1_700_000_000), ("PN2", 1_700_200_000), ("PN1", 1_700_100_000)):
        twilio.clock = Clock(frozen_at=at)
        twilio.phone_numbers.update(sid)
    page = got(http, twilio, LISTS["api"][0])
    assert [(row["sid"], row["date_updated"]) for row in page["incoming_phone_numbers"]] == [
        ("PN2", "Fri, 17 Nov 2023 05:46:40 +0000"),
        ("PN1", "Thu, 16 Nov 2023 02:00:00 +0000"),
        ("PN0", "Tue, 14 Nov 2023 22:13:20 +0000"),
    ]
    assert twilio_numbers.sortable("no time") == "no time"


def test_one_number_and_other_accounts(http: httpx.Client, twilio: Twilio) -> None:
    (sid,) = add_numbers(twilio, 1)
    path = twilio_numbers.path(twilio.account_sid)
    assert got(http, twilio, f"{path}/{sid}.json") == twilio.phone_numbers.get(sid)
    other = twilio_numbers.path("AC" + "6" * 32)
    for wrong in (f"{path}/{sid}", path, f"{path}/PNgone.json", f"{other}.json", f"{path}x.json"):
        answer = ask(http, twilio, wrong)
        assert code(answer) == (404, 20404)
        assert answer.json()["message"] == f"The requested resource {wrong} was not found"


# -- addresses ------------------------------------------------------------------------------------


def test_an_address_is_found_by_sid_and_by_address(http: httpx.Client, twilio: Twilio) -> None:
    path = LISTS["conversations"][0]
    number = "whatsapp:+12125550100"
    old, new = (
        twilio_numbers.address(f"IG{n}", "AC1", "whatsapp", AT, address=number) for n in (1, 2)
    )
    twilio.addresses.add(old)
    assert got(http, twilio, f"{path}/IG1") == got(http, twilio, f"{path}/{number}") == old
    twilio.addresses.delete("IG1")
    assert code(ask(http, twilio, f"{path}/{number}")) == (404, 20404)
    twilio.addresses.add(new)
    twilio.addresses.add(None)
    assert code(ask(http, twilio, f"{path}/IG1")) == (404, 20404)
    assert got(http, twilio, f"{path}/{number}") == new
    assert code(ask(http, twilio, f"{path}/IG2/x")) == (404, 20404)


def test_addresses_come_fifty_at_most(http: httpx.Client, twilio: Twilio) -> None:
    for n in range(60):
        kind = "sms" if n % 3 else "whatsapp"
        twilio.addresses.add(twilio_numbers.address(f"IG{n}", "AC1", kind, AT))
    path = LISTS["conversations"][0]
    page = got(http, twilio, f"{path}?PageSize=100")
    assert (page["meta"]["page_size"], len(page["address_configurations"])) == (50, 50)
    assert page["meta"]["key"] == "address_configurations"
    page = got(http, twilio, f"{path}?Type=whatsapp")
    assert len(page["address_configurations"]) == 20
    assert "Type=whatsapp" in page["meta"]["url"]
    twilio.refuses_large_pages = True
    assert code(ask(http, twilio, f"{path}?PageSize=51")) == (400, 20001)
    for other in (LISTS["studio"][0], LISTS["api"][0]):
        assert ask(http, twilio, f"{other}?PageSize=1000").status_code == 200
        assert code(ask(http, twilio, f"{other}?PageSize=1001")) == (400, 20001)


# -- rights, products, ends -----------------------------------------------------------------------


@pytest.mark.parametrize("product", LISTS)
def test_each_product_has_its_rights(http: httpx.Client, twilio: Twilio, product: Product) -> None:
    twilio.api_key_may_read = {product}
    for other, paths in LISTS.items():
        for path in paths:
            assert ask(http, twilio, path).status_code == 200
            answer = ask(http, twilio, path, key=True)
            assert answer.status_code == 200 if other == product else code(answer) == (403, 70051)
            assert code(http.get(twilio.url + path, auth=("AC", "x"))) == (401, 20003)
    twilio.absent = {product}
    for other, paths in LISTS.items():
        for path in paths:
            answer = ask(http, twilio, path)
            assert code(answer) == (404, 20404) if other == product else answer.status_code == 200
    twilio.suspended = True
    assert code(ask(http, twilio, LISTS[product][0])) == (403, 20403)


@pytest.mark.parametrize("ending", ["empty", 403, 404, 410, 503])
def test_a_list_may_have_ended(http: httpx.Client, twilio: Twilio, ending: Ending) -> None:
    twilio.flex_flows.add({"sid": "FO1"})
    twilio.channels.add({"sid": "CH1"})
    twilio.ended["flex_flows"] = ending
    answer = ask(http, twilio, "/v1/FlexFlows")
    if ending == "empty":
        assert answer.json()["flex_flows"] == []
        assert code(ask(http, twilio, "/v1/FlexFlows/FO1")) == (404, 20404)
    else:
        assert code(answer) == (ending, 20000 + ending)
        assert ask(http, twilio, "/v1/FlexFlows/FO1").status_code == ending
    assert got(http, twilio, "/v1/Channels/CH1") == {"sid": "CH1"}


def test_faults_and_the_record_of_requests_hold_for_all_lists(
    http: httpx.Client, twilio: Twilio
) -> None:
    for paths in LISTS.values():
        for path in paths:
            twilio.faults = [Fault(path=path, response=html(502))]
            assert ask(http, twilio, path).status_code == 502
            assert ask(http, twilio, path).status_code == 200
            assert [request.path for request in twilio.requests][-2:] == [path, path]


def test_generated_and_awkward_rows_are_what_the_lists_return(
    http: httpx.Client, twilio: Twilio
) -> None:
    account = twilio.account_sid
    flows = twilio_studio_data.studio_flows(random_of(1, "s"), 16, account)
    legacy = twilio_data.flex_flows(random_of(1, "f"), 16, account)
    addresses = twilio_bindings_data.addresses(random_of(1, "a"), 20, account, flows, legacy)
    numbers = twilio_bindings_data.phone_numbers(random_of(1, "n"), 20, account, flows)
    addresses += twilio_bindings_data.awkward_addresses()
    numbers += twilio_bindings_data.awkward_numbers()
    for row in addresses:
        twilio.addresses.add(row)
    for row in numbers:
        twilio.phone_numbers.add(row)
    page = got(http, twilio, LISTS["conversations"][0])
    assert page["address_configurations"][::-1] == addresses == twilio.records()["addresses"]
    page = got(http, twilio, LISTS["api"][0])
    assert page["incoming_phone_numbers"][::-1] == numbers == twilio.records()["phone_numbers"]


def test_nothing_is_bound_to_flows_that_are_not_there() -> None:
    addresses = twilio_bindings_data.addresses(random_of(1, "a"), 9, "AC1", [], [])
    numbers = twilio_bindings_data.phone_numbers(random_of(1, "n"), 9, "AC1", [])
    assert len(addresses) == len(numbers) == 9
    assert not any("studio_flow_sid" in row["auto_creation"] for row in addresses)
    assert not any("/Flows/" in row["voice_url"] for row in numbers if row["voice_url"])
