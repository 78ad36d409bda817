"""Alibaba's contact flows, read from the sandbox over a socket."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from etl.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    UnavailableError,
    UnreachableRowsError,
)
from etl.extract import alibaba
from etl.extract.alibaba import contact_flows, probe_contact_flows
from etl.http import MissingError
from etl.model import Page
from etl.sandbox import alibaba as emulated
from etl.sandbox.alibaba import AccessKey, Alibaba
from etl.sandbox.wire import Clock, Fault, Response, empty, html, json_response, serving
from tests.extract.scripted import Script, Time
from tests.extract.sources import alibaba_flows, alibaba_source

START = datetime(2021, 3, 8, 15, 34, 49)  # noqa: DTZ001 - Alibaba's times bear no zone


def filled(rows: int, apart: float = 60.0, start: datetime = START) -> Alibaba:
    """An instance with `rows` flows, each updated `apart` seconds after the one before."""
    fake = Alibaba(("ccc-sandbox",))
    for number in range(rows):
        updated = start + timedelta(seconds=apart * number)
        fake.flows["ccc-sandbox"].add(flow(f"f{number:05}", f"{updated}.0"))
    return fake


def flow(key: str, updated: Any) -> dict[str, Any]:
    return {"ContactFlowId": key, "UpdatedTime": updated, "Name": key}


def ids(pages: list[Page]) -> list[str]:
    return [row["ContactFlowId"] for page in pages for row in page.records]


def scanned(fake: Any, **changes: Any) -> list[Page]:
    with alibaba_flows(fake, **changes) as (http, settings):
        return list(contact_flows(http, settings))


def refused(fake: Any, kind: type[ProviderError], **changes: Any) -> ProviderError:
    with (
        alibaba_flows(fake, **changes) as (http, settings),
        pytest.raises(ProviderError) as caught,
    ):
        list(contact_flows(http, settings))
    assert type(caught.value) is kind, caught.value
    assert caught.value.where.startswith("alibaba_sh.contact_flows")
    assert "sandbox-alibaba" not in str(caught.value)
    return caught.value


def envelope(rows: Any, total: Any, **data: Any) -> dict[str, Any]:
    return {"Code": "OK", "Data": {"List": rows, "TotalCount": total, **data}}


# --- pages ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rows", "requests"),
    [(0, 1), (1, 1), (100, 1), (101, 2), (150, 2), (250, 3), (1000, 12), (3000, 35)],
)
@pytest.mark.parametrize("apart", [1.0, 3600.0])
def test_a_quiet_list_is_read_whole_and_anchored(rows: int, requests: int, apart: float) -> None:
    fake = filled(rows, apart)
    pages = scanned(fake)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert all(page.anchored for page in pages)
    assert all((page.scope, page.total) == ("ccc-sandbox", rows) for page in pages)
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    assert len(fake.requests) == len(pages) <= requests


def test_what_is_asked_for() -> None:
    scanned(fake := filled(101))
    first, second = fake.requests
    assert (first.method, first.path, first.body) == ("POST", "/", b"")
    assert first.params == {
        "InstanceId": "ccc-sandbox",
        "PageNumber": "1",
        "PageSize": "100",
        "OrderByField": "updatedTime",
        "SortOrder": "ASC",
    }
    assert first.headers["x-acs-version"] == "2020-07-01"
    start = (int(second.params["PageNumber"]) - 1) * int(second.params["PageSize"])
    assert start < 100  # it shows the last row but one again


def test_each_instance_is_a_scope_of_its_own() -> None:
    fake = filled(150)
    fake.add_instance("ccc-other").add(flow("other", f"{START}.0"))
    fake.add_instance("ccc-empty")
    names = ("ccc-sandbox", "ccc-empty", "ccc-other")
    pages = scanned(fake, instance_ids=names)
    assert [(p.scope, p.number, p.total) for p in pages] == [
        ("ccc-sandbox", 1, 150),
        ("ccc-sandbox", 2, 150),
        ("ccc-empty", 1, 0),
        ("ccc-other", 1, 1),
    ]


def test_the_scan_may_be_left_early() -> None:
    with alibaba_flows(fake := filled(500)) as (http, settings):
        scan = contact_flows(http, settings)
        next(scan)
        scan.close()  # type: ignore[attr-defined]
        assert len(fake.requests) == 1


@pytest.mark.parametrize("rows", [101, 150, 350])
def test_a_tie_larger_than_a_page_ends_without_a_proof(rows: int) -> None:
    fake = filled(rows, apart=0.0)
    fake.ties = None
    pages = scanned(fake)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert [page.anchored for page in pages] == [True] + [False] * (len(pages) - 1)
    assert len(fake.requests) == -(-rows // 100)


def test_ties_smaller_than_a_page_keep_the_proof() -> None:
    fake = filled(0)
    for number in range(400):  # forty rows of one second each, shuffled anew for every request
        updated = START + timedelta(hours=number // 40)
        fake.flows["ccc-sandbox"].add(flow(f"f{number}", f"{updated}.0"))
    pages = scanned(fake)
    assert set(ids(pages)) == set(fake.flows["ccc-sandbox"].keys())
    assert all(page.anchored for page in pages)


def test_rows_of_these_minutes_are_no_anchors() -> None:
    """A row may show up ten minutes after the time that it bears, so recent rows prove nothing."""
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0) + timedelta(hours=8)
    for apart, anchored in ((1.0, False), (60.0, True)):
        pages = scanned(filled(150, apart, now - timedelta(seconds=150 * apart)))
        assert len(set(ids(pages))) == 150
        assert pages[-1].anchored == anchored


@pytest.mark.parametrize(
    "times",
    [
        ["2021-03-08 15:34:49.123456789", "2021-03-08 15:34:49.5", "2021-03-08 15:34:50"],
        ["2021-03-08T15:34:49Z", "2021-03-08T23:34:50+08:00", "2021-03-08T15:34:51.000Z"],
    ],
)
def test_times_are_compared_as_times(times: list[str]) -> None:
    rows = [flow(f"f{n}", times[0]) for n in range(99)] + [flow("x", times[1]), flow("y", times[2])]
    pages = scanned(Script(envelope(rows[:100], 101), envelope(rows[98:], 101)))
    assert [page.anchored for page in pages] == [True, True]


@pytest.mark.parametrize("order", ["descending", "shuffled"])
def test_an_order_that_is_not_kept_ends_the_proof(order: str) -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(150)]
    if order == "descending":
        rows.reverse()
    else:
        rows[50:60] = reversed(rows[50:60])
    pages = scanned(Script(envelope(rows[:100], 150), envelope(rows[100:], 150)))
    assert [page.anchored for page in pages] == [True, False]
    assert len(ids(pages)) == 150


def test_the_order_of_the_last_window_counts_too() -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(150)]
    rows[140:143] = reversed(rows[140:143])
    pages = scanned(Script(envelope(rows[:100], 150), envelope(rows[98:], 150)))
    assert [page.anchored for page in pages] == [True, False]


@pytest.mark.parametrize("updated", [None, "", "yesterday", 5, [], "0001-01-01T00:00:00+14:00"])
def test_rows_without_a_time_are_read_but_prove_nothing(updated: Any) -> None:
    rows = [flow(f"f{n}", updated) for n in range(150)]
    pages = scanned(Script(envelope(rows[:100], 150), envelope(rows[100:], 150)))
    assert len(ids(pages)) == 150
    assert [page.anchored for page in pages] == [True, False]


def test_records_are_passed_on_as_they_are() -> None:
    rows: list[Any] = [None, 1, "x", [], {}, {"ContactFlowId": None}]
    (page,) = scanned(Script(envelope(rows, 6)))
    assert (page.records, page.anchored) == (rows, True)


@pytest.mark.parametrize("total", [None, -1, "150", 1.5, True, 99])
def test_without_a_usable_count_the_short_page_is_the_end(total: Any) -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(150)]
    script = Script(envelope(rows[:100], total), envelope(rows[100:], None))
    pages = scanned(script)
    assert len(ids(pages)) == 150
    assert [(page.total, page.anchored) for page in pages] == [(None, True), (None, False)]
    assert len(script.requests) == 2


def test_an_empty_page_before_the_end_is_not_the_end() -> None:
    rows = [flow(f"f{n}", f"{START + timedelta(hours=n)}.0") for n in range(100)]
    last = [flow("last", f"{START}.0")]
    script = Script(envelope(rows, 201), envelope([], 201), envelope([], 201), envelope(last, 201))
    pages = scanned(script)
    assert ids(pages)[-1] == "last"
    assert not pages[-1].anchored
    assert [int(r.params["PageNumber"]) for r in script.requests][-1] == 3


def test_pages_that_stay_empty_break_the_contract() -> None:
    rows: list[Any] = [flow(f"f{n}", f"{START}.0") for n in range(100)]
    script = Script(envelope(rows, 9000), envelope([], 9000))
    assert "21 pages in a row are empty" in refused(script, ContractError).what
    assert len(script.requests) == 22


def test_a_first_page_that_tells_a_smaller_size_is_read() -> None:
    """The documents' own example: 10 rows a page are told, whatever was asked for."""
    script = Script(envelope([flow("a", f"{START}.0")], 1, PageSize=10))
    assert [page.total for page in scanned(script)] == [1]


@pytest.mark.parametrize("data", [{"PageNumber": 2}, {"PageSize": 101}])
def test_an_echo_that_differs_breaks_the_contract(data: dict[str, int]) -> None:
    error = refused(Script(envelope([], 0, **data)), ContractError)
    assert "was asked for" in error.what
    assert "instance ccc-sandbox, page 1 of 100 rows" in error.where


@pytest.mark.parametrize("data", [{"PageNumber": 1, "PageSize": 100}, {"PageSize": None}, {}])
def test_an_echo_that_agrees_or_is_missing_is_fine(data: dict[str, Any]) -> None:
    assert len(scanned(Script(envelope([], 0, **data)))) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"Code": "OK"},
        {"Code": "OK", "Data": None},
        {"Code": "OK", "Data": []},
        envelope(None, 5),
        envelope(None, None),
        envelope({}, 0),
        envelope("x", 0),
        envelope([1] * 101, 101),
        {"Code": "ok", "Data": {"List": [], "TotalCount": 0}},
        {"Code": "Ok", "Data": {"List": [], "TotalCount": 0}},
        {"Code": "", "Data": {"List": [], "TotalCount": 0}},
        {"Code": 200, "Data": {"List": [], "TotalCount": 0}},
        {"Data": {"List": [], "TotalCount": 0}},
        {"Code": None, "Data": {"List": [], "TotalCount": 0}},
        {"Code": "SomethingNew", "HttpStatusCode": 400, "Message": "no"},
    ],
)
def test_an_answer_that_is_not_a_list_is_never_an_empty_one(body: Any) -> None:
    refused(Script(body), ContractError)


def test_an_empty_list_may_be_null() -> None:
    assert ids(scanned(Script(envelope(None, 0)))) == []


# --- more than can be reached --------------------------------------------------------------------
def test_more_than_ten_thousand_rows_are_read_from_both_ends_and_reported() -> None:
    fake = filled(10_150, apart=3600.0)
    fake.add_instance("ccc-other").add(flow("other", f"{START}.0"))
    pages: list[Page] = []
    names = ("ccc-sandbox", "ccc-other")
    with (
        alibaba_flows(fake, instance_ids=names) as (http, settings),
        pytest.raises(UnreachableRowsError, match="ccc-sandbox has 10150 contact flows"),
    ):
        for page in contact_flows(http, settings):
            pages.append(page)  # noqa: PERF402 - what came before the error must be kept
    assert len(set(ids(pages))) == 10_151
    assert not pages[-2].anchored
    assert pages[-1].scope == "ccc-other"
    assert max(int(r.params["PageNumber"]) for r in fake.requests) == 100


def test_ten_thousand_rows_exactly_are_reachable() -> None:
    fake = filled(10_000, apart=3600.0)
    pages = scanned(fake)
    assert len(set(ids(pages))) == 10_000
    assert len(fake.requests) < 120


def test_without_a_count_a_full_last_page_may_hide_rows() -> None:
    rows = [flow(f"f{n}", f"{START}.0") for n in range(100)]
    refused(script := Script(envelope(rows, None)), UnreachableRowsError)
    assert max(int(r.params["PageNumber"]) for r in script.requests) == 100


# --- a list that changes while it is read --------------------------------------------------------
def test_a_deletion_between_two_windows_hides_nothing() -> None:
    fake = filled(250, apart=3600.0)
    store = fake.flows["ccc-sandbox"]

    def delete_five(emulator: Alibaba, request: Any) -> None:
        for number in range(5):
            store.delete(f"f{number:05}")

    fake.faults.append(Fault(nth=2, before_request=delete_five))
    pages = scanned(fake)
    assert set(store.keys()) <= set(ids(pages))
    assert all(page.anchored for page in pages)
    assert len(fake.requests) == 5  # a window was stepped back, and the list is read from there


def history(rng: random.Random) -> Iterator[bool]:
    """One list, read four times while it changes; yields whether each scan was anchored.

    Asserts what an anchored scan promises: every row that is there at its last answer was read,
    in its version of then (but for silent changes, which move nothing).
    """
    fake = Alibaba(("ccc-sandbox",), clock=Clock(frozen_at=1_700_000_000.0))
    fake.ties = random.Random(rng.random())
    store = fake.flows["ccc-sandbox"]
    rate = rng.choice([0.0, 0.2, 0.5, 1.0, 3.0])

    def stamp() -> str:
        late = rng.choice([0, 0, 0, 0, rng.uniform(0, 590)])  # it shows up after the time it bears
        local = datetime.fromtimestamp(fake.clock() - late, UTC) + timedelta(hours=8)
        return local.strftime("%Y-%m-%d %H:%M:%S.0")

    def change() -> None:
        fake.clock.advance(rng.choice([0, 0, 1, 30, rng.uniform(0, 400)]))
        kind, keys = rng.random(), store.keys()
        if kind < 0.3 or len(keys) < 20:
            store.add(flow(f"f{rng.getrandbits(60)}", stamp()))
            return
        key = rng.choice(keys)
        if kind < 0.7:
            # An update never makes a row older than it was.
            store.update(key, UpdatedTime=max(stamp(), store.get(key)["UpdatedTime"]))
        else:
            store.delete(key)

    gaps = rng.choice([[0, 1, 5, 8], [0, 1, 20, 200, 2000]])  # a busy hour, or a few days
    for _ in range(rng.randint(101, 420)):
        store.add(flow(f"f{rng.getrandbits(60)}", stamp()))
        fake.clock.advance(rng.choice(gaps))
    alive: dict[str, str] = {}

    def churn(emulator: Alibaba, request: Any) -> None:
        began = fake.clock()  # the signature's date must not be overtaken by 15 minutes
        while rng.random() < rate / (1 + rate) and fake.clock() - began < 450:
            change()
        alive.clear()
        alive.update({row["ContactFlowId"]: row["UpdatedTime"] for row in store.records()})

    fake.faults.append(Fault(times=None, before_request=churn))
    time = Time()
    with serving(fake):
        settings = alibaba_source(fake)
        with alibaba.connect(
            settings,
            "contact_flows",
            clock=time,
            sleep=time.sleep,
            now=lambda: datetime.fromtimestamp(fake.clock(), UTC),
        ) as http:
            for _ in range(4):
                pages = list(contact_flows(http, settings))
                seen = {r["ContactFlowId"]: r["UpdatedTime"] for p in pages for r in p.records}
                anchored = all(page.anchored for page in pages)
                if anchored:
                    assert alive.items() <= seen.items()
                yield anchored
                fake.clock.advance(rng.choice([60, 3600, 200_000]))


def test_an_anchored_scan_of_a_changing_list_misses_nothing(seed: int) -> None:
    scans = [anchored for n in range(25) for anchored in history(random.Random(f"{seed} {n}"))]
    assert sum(scans) > len(scans) / 4  # so the promise above was put to the test


# --- access and failures -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (emulated.throttled(), 1.0),
        (emulated.throttled(429), 1.0),
        (emulated.throttled(429, retry_after_ms=250), 0.25),
        (emulated.throttled(400, retry_after_ms=2500, code="Throttling.Api"), 2.5),
        (emulated.throttled(400, code="Throttling"), 1.0),
        (emulated.unavailable(), 0.0),
        (emulated.not_ok(), 0.0),
        (emulated.not_ok("InternalService.DB"), 0.0),
        (emulated.not_ok("SomethingNew", status=503), 0.0),
        (emulated.error(500, "SomethingNew", "x"), 0.0),
        (html(502), 0.0),
        (empty(500), 0.0),
    ],
)
def test_throttling_and_failures_pass_and_each_attempt_is_signed_anew(
    answer: Response, least: float
) -> None:
    fake, time = filled(250), Time()
    requests = iter((True, True, False, True))
    fake.faults.append(Fault(times=3, when=lambda _: next(requests, False), response=answer))
    with alibaba_flows(fake, time) as (http, settings):
        assert len(set(ids(list(contact_flows(http, settings))))) == 250
    assert http.retries == 3
    assert min(time.slept) >= least
    nonces = [r.headers["x-acs-signature-nonce"] for r in fake.requests]
    assert len(set(nonces)) == len(nonces) == 6


def test_lasting_throttling_ends_the_run() -> None:
    fake = filled(1)
    fake.faults.append(Fault(times=None, response=emulated.throttled()))
    assert "flow control" in refused(fake, UnavailableError).what
    assert len(fake.requests) == 6


def test_wrong_keys() -> None:
    error = refused(fake := filled(1), CredentialsError, access_key_id="wrong")
    assert "InvalidAccessKeyId.NotFound" in error.what
    assert len(fake.requests) == 1
    error = refused(filled(1), CredentialsError, access_key_secret=SecretStr("wrong-canary"))
    assert "SignatureDoesNotMatch" in error.what
    assert "string to sign" not in str(error)
    assert "canary" not in str(error)


def test_a_temporary_key() -> None:
    fake = filled(1)
    fake.keys["sandbox-alibaba-key"] = AccessKey("sandbox-alibaba-secret", "sts-token")
    token = {"security_token": SecretStr("sts-token")}
    assert len(scanned(fake, **token)) == 1
    refused(fake, CredentialsError)
    fake.keys["sandbox-alibaba-key"] = AccessKey("sandbox-alibaba-secret", "sts-token", 0.0)
    error = refused(fake, CredentialsError, **token)
    assert "InvalidSecurityToken.Expired" in error.what
    assert "security_token" in error.advice


@pytest.mark.parametrize(
    ("off", "told"), [(1380, "23 min behind its"), (-1380, "23 min ahead of its")]
)
def test_a_wrong_clock_is_measured(off: int, told: str) -> None:
    fake = filled(1)
    fake.clock.advance(off)
    error = refused(fake, CredentialsError)
    assert told in error.what
    assert "NTP" in error.advice
    assert len(fake.requests) == 1


def test_a_wrong_clock_without_a_date_is_told_all_the_same() -> None:
    body = {"Code": "InvalidTimeStamp.Expired", "Message": "x"}
    answer = json_response(400, body, {"Date": "yesterday"})
    assert "InvalidTimeStamp.Expired" in refused(Script(answer), CredentialsError).what


def test_an_unknown_instance_is_named() -> None:
    error = refused(fake := filled(1), MissingError, instance_ids=("ccc-nowhere",))
    assert "ccc-nowhere" in error.what
    assert "instance_ids" in error.advice
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (emulated.error(403, "Forbidden.RAM", "no"), CredentialsError),
        (emulated.error(400, "NoPermission", "no"), CredentialsError),
        (emulated.error(403, "SomethingNew", "no"), CredentialsError),
        (emulated.error(400, "IncompleteSignature", "no"), CredentialsError),
        (emulated.error(400, "SignatureNonceUsed", "no"), CredentialsError),
        (emulated.error(400, "Parameter.Maximum", "no"), ContractError),
        (emulated.error(404, "InvalidAction.NotFound", "no"), ContractError),
        (emulated.not_ok("Parameter.Blank", status=400), ContractError),
        (json_response(404, {}), ContractError),
        (html(200), ContractError),
        (html(403), CredentialsError),
    ],
)
def test_what_is_not_retried(answer: Response, kind: type[ProviderError]) -> None:
    refused(Script(answer), kind)


# --- check ---------------------------------------------------------------------------------------
def test_the_probe_counts_each_instance() -> None:
    fake = filled(150)
    fake.add_instance("ccc-other")
    names = ("ccc-sandbox", "ccc-other")
    with alibaba_flows(fake, instance_ids=names) as (http, settings):
        assert probe_contact_flows(http, settings) == (
            "ccc-sandbox: 150 contact flows; ccc-other: 0 contact flows"
        )
        assert len(fake.requests) == 2
    with (
        alibaba_flows(fake, instance_ids=("ccc-nowhere",)) as (http, settings),
        pytest.raises(MissingError),
    ):
        probe_contact_flows(http, settings)


def test_an_instance_that_does_not_exist_does_not_hide_the_others() -> None:
    seen: list[Page] = []
    names = ("nowhere", "ccc-sandbox")
    with alibaba_flows(filled(3), instance_ids=names) as (http, settings):
        pages = contact_flows(http, settings)
        seen.append(next(pages))
        with pytest.raises(MissingError) as caught:
            next(pages)
    assert (seen[0].scope, len(seen[0].records)) == ("ccc-sandbox", 3)
    assert "nowhere" in caught.value.what
