"""Any answer of a provider becomes rows, rejects or one clear error, in little memory and time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from etl.extract.decode import MAX_RECORDS, moment, page, unpack
from etl.extract.page import Page
from etl.load.runs import Run
from etl.providers.catalog import STREAMS, TABLES
from etl.sandbox.exchange import Response
from etl.transform.values import as_json, parse_time, reader
from etl.warehouse.embedded import find_binaries
from tests.fuzz.campaign import Campaign, campaign
from tests.fuzz.raw import LISTS, Raw, packed
from tests.postgres import Cluster, ask
from tests.transform.named import transformed

pytestmark = pytest.mark.slow

ZOOM, CHANNELS, ALIBABA = "zoom_raw.flows", "twilio_raw.channels", "alibaba_raw.contact_flows"

CHILD = """
import json, resource, sys
from pathlib import Path
from etl import api
def status():
    return dict(line.split(":", 1) for line in open("/proc/self/status"))
for line in sys.stdin:
    stream, *more = line.split()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    most = -1
    if more:
        most = (int(status()["VmSize"].split()[0]) << 10) + (int(more[0]) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, -1))
    (run,) = api.sync(stream, sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    peak = int(status()["VmHWM"].split()[0]) // 1024
    print(json.dumps(api.summary(run) | {"peak": peak}), flush=True)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")


class Child:
    """A process that runs streams, and reports each run with its peak of memory in MiB.

    "stream 20" runs it with at most 20 MiB more than the process has.
    """

    def __init__(self, config: Path) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def sync(self, stream: str) -> dict[str, Any]:
        assert self.popen.stdin and self.popen.stdout
        self.popen.stdin.write(stream + "\n")
        self.popen.stdin.flush()
        found: dict[str, Any] = json.loads(self.popen.stdout.readline())
        return found

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture(scope="module")
def fed(
    clusters: Callable[[Path], Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Raw, Campaign, Path, str]]:
    cluster = clusters(find_binaries(os.environ))
    folder = tmp_path_factory.mktemp("values")
    with cluster.database(template=cluster.migrated) as url, campaign(url, folder, 0) as playing:
        yield playing.provider, playing, folder / "callflow.toml", url


@pytest.fixture(scope="module")
def child(fed: tuple[Raw, Campaign, Path, str]) -> Iterator[Child]:
    with Child(fed[2]) as process:
        yield process


@pytest.fixture
def provider(fed: tuple[Raw, Campaign, Path, str]) -> Raw:
    """Return the provider that answers with raw bytes, with its warehouse emptied."""
    provider, playing, _, _ = fed
    provider.answers.clear()
    provider.handles.clear()
    playing.empty()
    return provider


@pytest.fixture
def synced(fed: tuple[Raw, Campaign, Path, str]) -> Callable[[str], Run]:
    return fed[1].run


@pytest.fixture
def warehouse(fed: tuple[Raw, Campaign, Path, str]) -> str:
    return fed[3]


def definition(activities: int) -> bytes:
    nodes = [
        {
            "type": "PLAY_SAY",
            "id": f"a{n:06d}",
            "name": f"n{n}",
            "properties": {},
            "nodeIndex": n,
            "events": [{"event": "0", "next": f"a{n + 1:06d}"}],
        }
        for n in range(activities)
    ]
    return json.dumps(json.dumps({"activities": nodes}, separators=(",", ":"))).encode()


def unlinked(activities: int) -> bytes:
    """The Definition with the most findings: a start, and activities that nothing leads to."""
    nodes = [{"id": f"{n}"} for n in range(activities)]
    start = {"id": "start", "type": "INCOMING_CALL"}
    return json.dumps(json.dumps({"activities": [*nodes, start]}, separators=(",", ":"))).encode()


# --- memory --------------------------------------------------------------------------------------
OTHER = b'{"flow_id":"other"}'
BOMBS: dict[str, tuple[str, Callable[[], list[bytes]], str | None]] = {
    "empty lists": (
        ZOOM,
        lambda: [b'{"flow_id":"a","x":[' + b"[]," * 10_000_000 + b"1]}", OTHER],
        "larger than 12 MiB",
    ),
    "empty lists in a smaller record": (
        ZOOM,
        lambda: [b'{"flow_id":"a","x":[' + b"[]," * 3_000_000 + b"1]}", OTHER],
        "holds too many values",
    ),
    "one string": (
        ZOOM,
        lambda: [b'{"flow_id":"a","flow_name":"' + b"x" * 30_000_000 + b'"}', OTHER],
        "larger than 12 MiB",
    ),
    "one string of wide characters": (
        ZOOM,
        lambda: [b'{"flow_id":"a","flow_name":"\xf0\x9f\x98\x80' + b"x" * 8_000_000 + b'"}', OTHER],
        "larger than 6 MiB",
    ),
    "many names": (
        ZOOM,
        lambda: [
            b'{"flow_id":"a",' + b",".join(b'"k%d":"v%d"' % (n, n) for n in range(550_000)) + b"}",
            OTHER,
        ],
        "holds too many values",
    ),
    "deep": (
        ZOOM,
        lambda: [b'{"flow_id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", OTHER],
        "nests too deeply",
    ),
    "a string that nearly is too large, with a NUL": (
        ZOOM,
        lambda: [b'{"flow_id":"a","flow_name":"' + b"x" * 11_000_000 + b'\\u0000"}', OTHER],
        None,
    ),
    "many records": (
        CHANNELS,
        lambda: [b'{"sid":"CH%d"}' % number for number in range(MAX_RECORDS)],
        None,
    ),
    "a Definition of 5 MB": (
        ALIBABA,
        lambda: [b'{"ContactFlowId":"f","Definition":%b}' % definition(38_000)],
        None,
    ),
    "a Definition of activities without events": (
        ALIBABA,
        lambda: [b'{"ContactFlowId":"f","Definition":%b}' % unlinked(170_000)],
        None,
    ),
    "unreadable numbers": (
        ALIBABA,
        lambda: [
            b'{"ContactFlowId":"f","NumberList":['
            + b",".join(b"%d" % number for number in range(20_000))
            + b"]}"
        ],
        "number is not text but int",
    ),
}


@pytest.mark.slow
@linux
@pytest.mark.fault(27, 36, 40, 57)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_record_s_reject_or_loads_in_little_memory(
    name: str, provider: Raw, child: Child, warehouse: str
) -> None:
    stream, records, reason = BOMBS[name]
    provider.list(stream, records())
    run = child.sync(stream)
    assert run["peak"] < 256
    if reason is None:
        assert (run["status"], run["rejected"]) == ("complete", 0), run["error"]
        return
    assert (run["status"], run["error_kind"]) == ("incomplete", "rejected_rows")
    assert reason in run["error"]
    assert reason in ask(warehouse, "SELECT reason FROM etl.rejects LIMIT 1")[0][0]
    assert run["inserted"] == 1
    if stream == ZOOM:
        assert ask(warehouse, "SELECT flow_id FROM zoom.flows") == [("other",)]


LISTS_ = b"[]," * 10_000_000
ANSWERS: dict[str, tuple[Callable[[], Response], str]] = {
    "beside the records": (
        lambda: packed(b'{"flows":[],"x":[' + LISTS_ + b"1]}"),
        "too much to be read",
    ),
    "records": (
        lambda: packed(b'{"flows":[' + LISTS_ + b"1]}"),
        f"more than {MAX_RECORDS} records",
    ),
    "an error": (lambda: packed(b'{"code":1,"message":[' + LISTS_ + b"1]}", 400), "HTTP 400"),
    "a long error": (
        lambda: packed(b'{"code":1,"message":"' + b"a b" * 9_000_000 + b'"}', 400),
        "HTTP 400",
    ),
    "white space": (lambda: packed(b" " * (33 << 20)), "larger than 32 MiB"),
}


@linux
@pytest.mark.fault(26, 27)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_bomb_that_is_no_record_s_is_one_error_in_little_memory(
    name: str, provider: Raw, child: Child
) -> None:
    answer, what = ANSWERS[name]
    provider.answers[LISTS[ZOOM][0]] = answer()
    run = child.sync(ZOOM)
    assert (run["status"], run["error_kind"]) == ("failed", "contract")
    assert what in run["error"]
    assert run["peak"] < 256


@linux
@pytest.mark.fault(57)
def test_pages_that_wait_for_each_other_stay_within_memory_too(provider: Raw, child: Child) -> None:
    """Twenty pages, each just small enough to be read at once."""
    lists = b"[]," * 23_000

    def answer(number: int) -> Response:
        following = b"null"
        if number < 20:
            following = f'"{provider.url}/v1/Channels?PageToken={number + 1}"'.encode()
        return packed(
            b'{"flex_chat_channels":[{"sid":"CH%d","x":[%b1]}],"meta":{"next_page_url":%b}}'
            % (number, lists, following)
        )

    provider.handles["/v1/Channels"] = lambda request: answer(
        int(request.params.get("PageToken", "0"))
    )
    run = child.sync(CHANNELS)
    assert (run["status"], run["inserted"]) == ("complete", 21)
    assert run["peak"] < 256


@pytest.mark.slow
@linux
@pytest.mark.fault(63)
@pytest.mark.parametrize("more", [5, 30])
def test_a_memory_cap_ends_in_a_message(
    more: int, provider: Raw, fed: tuple[Raw, Campaign, Path, str]
) -> None:
    large = b'{"flow_id":"a","flow_name":"' + b"x" * 11_000_000 + b'\\u0000"}'
    with Child(fed[2]) as capped:
        provider.list(ZOOM, [OTHER])
        assert capped.sync(ZOOM)["status"] == "complete"
        provider.list(ZOOM, [large])
        run = capped.sync(f"{ZOOM} {more}")
        assert (run["status"], run["error_kind"]) == ("failed", "memory")
        assert "out of memory" in run["error"]
        assert "raise" in run["error"]
        provider.list(ZOOM, [OTHER])
        assert capped.sync(ZOOM)["status"] == "complete"  # nothing was left behind


# --- time ----------------------------------------------------------------------------------------
def names(count: int) -> Any:
    return {chr(0xD800 + n % 0x800) + "\0" * (n // 0x800): n for n in range(count)}


def flow(**members: Any) -> Page:
    return Page([{"flow_id": "a", **members}], 1)


def numbers(count: int) -> Page:
    texts = [str(number) for number in range(count)]
    return Page([{"ContactFlowId": "f", "NumberList": texts}], 1, "i")


def read_page(body: bytes) -> None:
    try:
        for record in page(bytearray(body), ("flows",))["flows"]:
            unpack(record)
    except ValueError:
        pass


def read_flows(of: Page) -> None:
    STREAMS["zoom.flows"].transform(of, 0)


def read_contact_flows(of: Page) -> None:
    STREAMS["alibaba.contact_flows"].transform(replace(of, zone=UTC), 0)


def read_properties(names: Any) -> None:
    reader(TABLES["alibaba.contact_flow_activities"])({"id": "a", "properties": names}, ("i", "f"))


def colliding(count: int) -> Any:
    there = {f"\\u0000_{number}": number for number in range(count)}
    return {"\0": 0, **there, "\\u0000": 1, **names(count)}


LINEAR: dict[str, tuple[Callable[[int], Any], Callable[[Any], object]]] = {
    "names that become equal": (names, read_properties),
    "names that become others": (colliding, as_json),
    "children of one key": (lambda n: flow(entry_points=[{"entry_id": "e"}] * n), read_flows),
    "children without a key": (lambda n: flow(entry_points=[{"entry_id": 1}] * n), read_flows),
    "numbers": (numbers, read_contact_flows),
    "text that is no list": (lambda n: flow(entry_points="[" * n), read_flows),
    "escapes": (lambda n: b'{"flows":[NaN,"' + b'\\"' * n + b'"]}', read_page),
    "strings": (lambda n: b'{"flows":[NaN' + b',"a"' * n + b"]}", read_page),
    "a string that is not closed": (lambda n: b'{"flows":[NaN,{"a":"' + b"a\\\\" * n, read_page),
    "brackets that are not closed": (lambda n: b'{"flows":[NaN,' + b'{"a":[' * n, read_page),
    "nested objects": (
        lambda n: b'{"flows":[NaN,' + b'{"a":' * n + b"1" + b"}" * n + b"]}",
        read_page,
    ),
    "digits": (lambda n: b'{"flows":[NaN,1' + b"0" * n + b"]}", read_page),
    "a fraction": (lambda n: b'{"flows":[NaN,1.' + b"3" * n + b"]}", read_page),
    "a time": (lambda n: "2016-08-01T22:10:40." + "1" * n, moment),
}


@pytest.mark.parametrize("name", LINEAR)
def test_no_value_takes_more_than_linear_time(name: str) -> None:
    """Eight times the size may take eight times as long; quadratic time would be 64 times."""
    make, do = LINEAR[name]
    size = 500
    while (small := _time(do, make(size))) < 0.002 and size < 200_000:
        size *= 2
    assert _time(do, make(8 * size)) < 24 * small + 0.02


def _time(do: Callable[[Any], object], value: Any) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        do(value)
        times.append(time.process_time() - started)
    return min(times)


# --- damage --------------------------------------------------------------------------------------
DAMAGED = {
    b'{"flow_id":"a","x":NaN}': "it holds NaN",
    b'{"flow_id":"a","x":-Infinity}': "it holds -Infinity",
    b'{"flow_id":"a\xff"}': "it is not UTF-8",
    b'{"flow_id":"a","x":' + b"[" * 2000 + b"]" * 2000 + b"}": "it nests too deeply",
    b'{"flow_id":"a","x":01}': "byte 20",
    b'{"flow_id":"a" "x":1}': "byte 15",
    b'{"flow_id":"a","x":"\n"}': "byte 20",
}


@pytest.mark.fault(34, 36)
def test_damage_costs_only_its_record_and_the_reason_is_reported(
    provider: Raw, synced: Callable[[str], Run], warehouse: str
) -> None:
    good = [b'{"flow_id":"g%d"}' % number for number in range(len(DAMAGED))]
    provider.list(ZOOM, [record for pair in zip(DAMAGED, good, strict=True) for record in pair])
    run = synced(ZOOM)
    assert (run.status, run.error_kind) == ("incomplete", "rejected_rows")
    assert (run.records, run.inserted, run.rejected) == (14, 7, 7)
    assert "it holds NaN" in str(run.error)
    kept = dict(ask(warehouse, "SELECT payload, reason FROM etl.rejects"))
    assert set(kept) == {record.decode(errors="backslashreplace") for record in DAMAGED}
    for record, why in DAMAGED.items():
        assert why in kept[record.decode(errors="backslashreplace")]


@pytest.mark.fault(24, 34)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"flows":[{"flow_id":"a"},{"flow_id":"b"', "byte 26"),
        (b'{"flows":[{"flow_id":"a"},', "byte 26: it breaks off"),
        (b'{"flows":[{"flow_id":"a"}]', "byte 26"),
        (b'{"flows":[{"flow_id":"a"}],"total_records":NaN}', "NaN"),
        (b'{"flows":[{"flow_id":"a}]}', "byte 21"),
        (b'{"flows":[1,,2]}', "byte 12"),
        (b'{"flows":[NaN],"flows":[1]}', "twice"),
        (b'{"flows":[NaN]} x', "byte 16"),
        (b"<html>", "byte 0"),
    ],
)
def test_an_answer_without_separable_records_is_refused_with_the_place(
    body: bytes, why: str, provider: Raw, synced: Callable[[str], Run]
) -> None:
    provider.answers[LISTS[ZOOM][0]] = packed(body)
    run = synced(ZOOM)
    assert (run.status, run.error_kind, run.records) == ("failed", "contract", 0)
    assert why in str(run.error)


# --- text for numbers ----------------------------------------------------------------------------
FLOW = {"ContactFlowId": "cf1", "UpdatedTime": "2021-03-08 15:34:49.0", "Published": "true"}


def contact_flows(**envelope: Any) -> Response:
    data = {"List": [FLOW], "TotalCount": "1", "PageSize": "100", "PageNumber": "1", **envelope}
    return packed(json.dumps({"Code": "OK", "HttpStatusCode": "200", "Data": data}).encode())


@pytest.mark.fault(16, 19)
def test_counts_and_booleans_as_text_are_read(
    provider: Raw, synced: Callable[[str], Run], warehouse: str
) -> None:
    provider.answers["/"] = contact_flows()
    run = synced(ALIBABA)
    assert (run.status, run.inserted) == ("complete", 1)
    assert ask(warehouse, "SELECT published, extra FROM alibaba.contact_flows") == [(True, None)]
    provider.answers["/"] = contact_flows(PageNumber="2")
    assert synced(ALIBABA).error_kind == "contract"  # the echo is checked, text or not


@pytest.mark.fault(16)
def test_children_as_json_text_are_read_and_others_keep_what_was_there(
    provider: Raw, synced: Callable[[str], Run], warehouse: str
) -> None:
    numbers = "SELECT number FROM alibaba.contact_flow_numbers ORDER BY 1"
    for sent, status, there in (
        (["1", "2"], "complete", ["1", "2"]),
        ('["2", "3"]', "complete", ["2", "3"]),
        ("4", "incomplete", ["2", "3"]),
        ({"Number": ["4"]}, "incomplete", ["2", "3"]),
        ("", "incomplete", ["2", "3"]),
        ("[]", "complete", []),
    ):
        provider.answers["/"] = contact_flows(List=[{**FLOW, "NumberList": sent}])
        run = synced(ALIBABA)
        assert run.status == status, sent
        assert [row[0] for row in ask(warehouse, numbers)] == there
        if status == "incomplete":
            assert "NumberList of contact flow cf1" in str(run.error)


# --- times ---------------------------------------------------------------------------------------
@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "sent",
    ["", " ", "2016-08-01", "2016-08", "2016", "20160801T221040Z", "2016-08-01T22Z",
     "2016-08-01T22:10Z", "2016-08-01T24:00:00Z", "2016-08-01T25:10:40Z", "2016-08-01T22:60:40Z",
     "2016-06-30T23:59:60Z", "2016-08-01T22:10:61Z", "2016-02-30T00:00:00Z",
     "2015-02-29T00:00:00Z", "2016-13-01T00:00:00Z", "2016-00-01T00:00:00Z",
     "2016-01-00T00:00:00Z", "10000-01-01T00:00:00Z",
     "0000-01-01T00:00:00Z", "-2016-08-01T22:10:40Z", "+2016-08-01T22:10:40Z", "infinity",
     "-infinity", "now", "epoch", "null", "2016-W10-1T00:00:00Z", "2016-214T00:00:00Z",
     "2016-08-01T22:10:40,5Z", "2016-08-01T22:10:40.Z", "2016-08-01T22:10:40+24:00",
     "2016-08-01T22:10:40+01:60", "2016-08-01T22:10:40+01", "2016-08-01T22:10:40+1:00",
     "2016-08-01T22:10:40+01:00:30", "2016-08-01T22:10:40Z+01:00", "2016-08-01T22:10:40 Z",
     "2016-08-01T22:10:40Z ", " 2016-08-01T22:10:40Z", "2016-08-01T22:10:40Zx",
     "2016-08-01T22:10:40Z\n", "2016-08-01_22:10:40Z", "2016-8-1T22:10:40Z",
     "2016/08/01 22:10:40", "01.08.2016 22:10:40", "Mon, 01 Aug 2016 22:10:40 +0000",
     "２016-08-01T22:10:40Z", "٢٠١٦-08-01T22:10:40Z", "2016-08-01T22:10:40\u221201:00",
     "2016-08-01T22:10:40\0", "2016-08-01T22:10:40\0Z", "2016-08-01T22:10:40Z\0",
     "2016-08-01T22:10:40.5\0", "2016-08-01T22:10:40+01:00\0", "\0", "2016-08-01T22:10:40Z\ud800",
     "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "1470089440", "1470089440000",
     1470089440, 1470089440.5, 0, -1, 1e18, True, [], {}, ["2016-08-01T22:10:40Z"]],
)  # fmt: skip
def test_text_that_is_not_a_time_is_kept_as_sent(sent: Any) -> None:
    assert parse_time(sent, None) is parse_time(sent, UTC) is None
    rows = transformed("zoom.flows", [{"flow_id": "a", "last_modified_time": sent}])
    row = rows.tables["zoom.flows"][0]
    assert row[-2] is None
    assert rows.warnings == 1
    assert "last_modified_time" in json.loads(row[-1])


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("sent", "utc"),
    [
        ("2016-08-01T22:10:40Z", "2016-08-01T22:10:40"),
        ("2016-08-01t22:10:40z", "2016-08-01T22:10:40"),
        ("2016-08-01 22:10:40+00:00", "2016-08-01T22:10:40"),
        ("2016-08-01T22:10:40-00:00", "2016-08-01T22:10:40"),
        ("2016-08-01T22:10:40+05:30", "2016-08-01T16:40:40"),
        ("2016-08-01T22:10:40-2359", "2016-08-02T22:09:40"),
        ("2016-08-01T22:10:40.5Z", "2016-08-01T22:10:40.500000"),
        ("2016-08-01T22:10:40.1234567Z", "2016-08-01T22:10:40.123457"),
        ("2016-08-01T22:10:40.9999999Z", "2016-08-01T22:10:41"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59"),
    ],
)
def test_what_is_a_time_is_read(sent: str, utc: str) -> None:
    time_read = parse_time(sent, None)
    assert time_read is not None
    offset = time_read.utcoffset()
    assert offset is not None
    assert (time_read.replace(tzinfo=None) - offset).isoformat() == utc


def test_a_page_without_damage_is_read_at_once_and_with_it_record_by_record() -> None:
    assert page(bytearray(b'{"flows":[1,{"a":2}]}'), ("flows",)) == {"flows": [1, {"a": 2}]}
    found = page(bytearray(b'{"n":1,"flows":[ NaN , {"a":"\\ud800"} ]}'), ("flows",))
    assert found["n"] == 1
    assert unpack(found["flows"][1]) == {"a": "\ud800"}
    with pytest.raises(ValueError, match="NaN"):
        unpack(found["flows"][0])
