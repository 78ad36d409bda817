"""Two ways from the bytes of a page to its rows: whatever comes, both give the same rows."""

import json
from collections.abc import Iterator
from datetime import tzinfo
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import MetaData, Text

from etl.config import load as config
from etl.errors import TooMuchError
from etl.extract.decode import ReadList, page
from etl.extract.page import Page, ScanRequest
from etl.extract.paging import exactly
from etl.providers.catalog import STREAMS, TABLES
from etl.providers.declare import open_http, request
from etl.sandbox import alibaba_data, twilio_data, zoom_data
from etl.sandbox.data import Record, Sizes, random_of
from etl.sandbox.server import EMULATORS
from etl.sync.selection import select
from etl.transform.exact import exact_reader, exact_steps
from etl.transform.rows import Rows
from etl.transform.steps import Steps, as_documented, content, read_steps
from etl.transform.values import MAX_DEPTH, MAX_KEY_BYTES, items, reader
from etl.warehouse.tables import current, field, given
from tests.fuzz.raw import raw
from tests.fuzz.records import NUMBERS, ODD_TEXTS, TIMES, damaged

ZONES: dict[str, tzinfo | None] = {"alibaba.contact_flows": ZoneInfo("America/New_York")}
CHANNEL, FLOW, CONTACT_FLOW = "twilio.channels", "zoom.flows", "alibaba.contact_flows"
SCOPE = "ccc-sandbox"
ACCOUNT = "AC" + "5" * 32

CLEAN: dict[str, list[Record]] = {
    "zoom.flows": zoom_data.flows(random_of(1, "zoom"), 60),
    "twilio.flex_flows": twilio_data.flex_flows(random_of(1, "flex"), 60, ACCOUNT),
    "twilio.channels": [
        json.loads(text)
        for _, text, _ in twilio_data.channels(
            random_of(1, "channels"), 60, ACCOUNT, [{"sid": "FO1", "integration_type": "task"}]
        )
    ],
    "alibaba.contact_flows": alibaba_data.flows(random_of(1, "alibaba"), 60, SCOPE),
}
"""Generated records of the lists whose records are read exactly, none of them awkward."""


def path_of(stream: str) -> tuple[str, ...]:
    """Return the members of an answer that lead to the records: "Data.List[]"."""
    record: str = STREAMS[stream].tables[0].info["record"]
    return tuple(name.removesuffix("[]") for name in record.split("."))


def exact_of(stream: str) -> ReadList | None:
    ask = ScanRequest(exact=exact_reader(STREAMS[stream].tables[0]))
    return exactly(ask, ZONES.get(stream))


def answer(stream: str, records: list[bytes]) -> bytes:
    """Return an answer with these records, as if its provider had sent it."""
    *outer, name = path_of(stream)
    text = b'{"total":%d,"%b":[%b],"more":[1,null]}' % (
        len(records), name.encode(), b",".join(records))  # fmt: skip
    for each in outer:
        text = b'{"Code":"OK","%b":%b,"x":{}}' % (each.encode(), text)
    return text


def outcome(stream: str, data: bytes, exact: ReadList | None) -> tuple[bool, str]:
    """Return whether the records became structs, and the rows or the error, with their types."""
    try:
        envelope = page(bytearray(data), path_of(stream), exact)
    except ValueError as error:
        return False, f"{type(error)} {error}"
    *outer, name = path_of(stream)
    home = envelope
    for each in outer:
        home = home.get(each) if isinstance(home, dict) else None
    records = home.pop(name, None) if isinstance(home, dict) else None
    if not isinstance(records, list):
        return False, f"{envelope!r} {records!r}"
    of = Page(records, 1, SCOPE if "alibaba" in stream else "", zone=ZONES.get(stream))
    rows = STREAMS[stream].transform(of, 7)
    are_exact = bool(records) and all(isinstance(each, msgspec.Struct) for each in records)
    envelope = sorted(envelope.items(), key=repr) if isinstance(envelope, dict) else envelope
    return are_exact, f"{envelope!r} {rows!r}"


def both(stream: str, data: bytes) -> bool:
    """Assert that both ways give the same; return whether the exact one was taken."""
    is_exact, found = outcome(stream, data, exact_of(stream))
    assert found == outcome(stream, data, None)[1], data
    return is_exact


# --- what is as documented -----------------------------------------------------------------------
def dumped(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


@pytest.mark.parametrize("stream", CLEAN)
def test_a_page_of_generated_records_takes_the_exact_way(stream: str) -> None:
    records = [dumped(record) for record in CLEAN[stream]]
    assert both(stream, answer(stream, records))
    for record in records:
        assert both(stream, answer(stream, [record]))
    assert not both(stream, answer(stream, []))


@pytest.mark.parametrize("stream", CLEAN)
def test_escapes_of_characters_that_can_be_stored_are_no_doubt(stream: str) -> None:
    for record in CLEAN[stream][:20]:
        text = json.dumps(record)
        assert both(stream, answer(stream, [text.encode()]))
        assert both(stream, answer(stream, [text.replace("/", "\\/").encode()]))


@pytest.mark.parametrize("stream", CLEAN)
def test_a_run_reads_such_a_page_exactly(stream: str, tmp_path: Path) -> None:
    provider, _, name = stream.partition(".")
    with raw() as answering:
        answering.list(f"{provider}_raw.{name}", [dumped(record) for record in CLEAN[stream]])
        (tmp_path / "callflow.toml").write_text(answering.toml())
        (tmp_path / "callflow.toml").chmod(0o600)
        loaded = config.load(tmp_path / "callflow.toml", {})
        ((source, of),) = select(loaded, [f"{provider}_raw.{name}"])
        with open_http(source, of) as http:
            (found,) = of.pages(http, request(source, of))
    assert len(found.records) == len(CLEAN[stream])
    assert all(isinstance(record, msgspec.Struct) for record in found.records)


@pytest.mark.parametrize(
    ("stream", "outer", "inner", "fit"),
    [
        (CHANNEL, b"[%b]", b'{"sid":"%d"}', 12_600),
        (FLOW, b'[{"flow_id":"f","entry_points":[%b]}]', b'{"entry_id":"%d"}', 12_400),
        (CONTACT_FLOW, b'[{"ContactFlowId":"f","NumberList":[%b]}]', b'"%d"', 40_000),
    ],
)
def test_records_that_take_much_in_a_short_text_do_not_become_structs(
    stream: str, outer: bytes, inner: bytes, fit: int
) -> None:
    read = exact_of(stream)
    assert read
    for count, is_held in ((fit, True), (fit + 2000, False)):
        text = outer % b",".join(inner % number for number in range(count))
        assert (read(text) is not None) == is_held


@pytest.mark.parametrize(
    "name", ["twilio.phone_numbers", "alibaba.phone_numbers", "twilio.addresses"]
)
def test_columns_that_are_more_than_a_value_are_not_read_exactly(name: str) -> None:
    assert exact_reader(TABLES[name]) is None


def test_children_of_children_are_not_read_exactly() -> None:
    own, key = MetaData(), Text()
    menu, dish = given("menu", key, ""), given("dish", key, "")
    menus = current("toy.menus", "", field("menu", key, ""), keys=1, record="m[]", metadata=own)
    dishes = current("toy.dishes", "", menu, field("dish", key, ""), keys=2,
                     record="m[].dishes[]", parent=menus, metadata=own)  # fmt: skip
    current("toy.parts", "", given("menu", key, ""), dish, field("part", key, ""), keys=3,
            record="m[].dishes[].parts[]", parent=dishes, metadata=own)  # fmt: skip
    read = exact_reader(menus)
    assert read
    assert read(b'[{"menu":"m","dishes":null}]', zone=None)
    assert read(b'[{"menu":"m","dishes":[{"dish":"d"}]}]', zone=None) is None


# --- what is not -------------------------------------------------------------------------------
class Changer:
    """Changes records at random; `values` are what no document says, as raw JSON."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def record(self, stream: str) -> bytes:
        """Return a record of the sandbox, often changed, as text that is mostly JSON."""
        random = self.random
        record = json.loads(random.choice(_pool(stream)))
        if isinstance(text := record.get("Definition"), str) and random.random() < 0.5:
            record["Definition"] = self.definition(text)
        for _ in range(random.choice((0, 0, 1, 1, 2))):
            self.change(record)
        return self.text(record)

    def definition(self, text: str) -> str:
        random = self.random
        try:
            inside = json.loads(text)
        except ValueError:
            return text
        for _ in range(random.choice((0, 1, 1, 2))):
            self.change(inside)
        return self.text(inside).decode(errors="replace")

    def text(self, value: Any) -> bytes:
        """Write JSON in one of the ways in which servers do; markers become raw numbers."""
        random = self.random
        text = json.dumps(
            value,
            ensure_ascii=random.random() < 0.5,
            separators=random.choice(((",", ":"), (", ", ": "))),
        ).encode(errors="surrogatepass")
        for number, digits in enumerate(NUMBERS):
            text = text.replace(b'"\x7fraw %d"' % number, digits.encode())
        if random.random() < 0.1:
            text = text.replace(b"/", rb"\/")
        if text[:2] == b'{"' and random.random() < 0.1:  # a member that comes twice
            name = text[1 : text.index(b":")]
            text = b"{%b:%b,%b" % (name, random.choice((b"5", b'"twin"', b"[]")), text[1:])
        return text

    def change(self, value: Any) -> None:
        """Change one place in an object, or in what it holds."""
        random = self.random
        places = list(_places(value))
        home, name = random.choice(places) if places else (value, None)
        kind = random.random()
        if name is None or kind < 0.1:
            if isinstance(home, dict):
                home[random.choice(("x", "", "ord", "extra", "sid\0", "id"))] = self.value()
        elif kind < 0.2:
            del home[name]
        elif kind < 0.3 and isinstance(home, list):
            home.append(json.loads(json.dumps(random.choice(home))))
        elif kind < 0.4 and isinstance(home[name], str):
            home[name] = json.dumps(home[name])
        else:
            home[name] = self.value()

    def value(self) -> Any:
        random = self.random
        return random.choice(
            (
                None,
                True,
                "",
                [],
                {},
                "x" * random.choice((200, 201, 801)),
                random.choice(ODD_TEXTS),
                random.choice(TIMES),
                f"\x7fraw {random.randrange(len(NUMBERS))}",
                {"a": {"b": [1, random.choice(ODD_TEXTS)]}},
                nested(random.choice((MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1))),
            )
        )


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (object or list, name or index) inside `value`."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, name
        if isinstance(inner, dict | list):
            yield from _places(inner)


LONGEST = "x" * (MAX_KEY_BYTES // 4)
VERSION = {"flow_version_id": "v", "flow_version": 1}


@pytest.mark.parametrize(
    ("stream", "record"),
    [
        (CHANNEL, f'{{"sid":"{LONGEST}"}}'),
        (CHANNEL, '{"sid":"x","sid":"CH1","url":"a","url":null}'),
        (CHANNEL, '{"sid":"CH1","date_created":"2016-08-01t22:10:40.1234567+0530"}'),
        (CHANNEL, '{"sid":"CH1","date_created":"0002-01-01T00:00:00+14:00"}'),
        (CHANNEL, '{"sid":"CH1","date_created":"9998-12-31T23:59:59-12:00"}'),
        (CHANNEL, '{"sid":"CH1","url":"\\u00e9\\n\\/\\"\u2028\x7f"}'),
        (CHANNEL, '{"sid":"CH1","url":"\\u005cu0000\\ud83d\\ude00"}'),
        ("twilio.flex_flows", '{"sid":"FO1","integration":{},"enabled":null}'),
        ("twilio.flex_flows", '{"sid":"FO1","integration":null}'),
        (FLOW, '{"flow_id":"f","entry_points":null,"flow_versions":[]}'),
        (FLOW, f'{{"flow_id":"f","flow_versions":[{json.dumps(VERSION)},{json.dumps(VERSION)}]}}'),
        (FLOW, '{"flow_id":"f","entry_points":[{"entry_id":"a","entry_name":"1"},'
         '{"entry_id":"b"},{"entry_id":"a","entry_name":"2"}]}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","NumberList":["","1","","1"]}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","InstanceId":"another"}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","InstanceId":null,"Definition":""}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","UpdatedTime":"2021-03-14 02:30:00.0"}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","UpdatedTime":"2021-03-08T15:34:49+01:00"}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","Definition":"not JSON"}'),
    ],
)  # fmt: skip
def test_these_records_are_read_exactly(stream: str, record: str) -> None:
    assert both(stream, answer(stream, [record.encode()] * 2))


@pytest.mark.parametrize(
    ("stream", "record"),
    [
        *((CHANNEL, f'{{"sid":{sid}}}') for sid in ('""', "null", f'"{LONGEST}x"', "5", "[]")),
        *((CHANNEL, f'{{"sid":"CH1",{more}}}') for more in (
            '"new":1', '"new":null', '"url":5', '"url":"\\u0000"', '"url":"\\udfff"',
            '"\\ud800":1', '"date_created":"2020-01-01T00:00:00"',
            '"date_created":"0001-01-01T00:00:00+01:00"', '"date_created":5', '"date_created":""',
            '"date_created":"\\u0030001-01-01T00:00:00+01:00"', '"date_created":"\\ud800"',
            '"date_updated":"9999-12-31T23:59:59-01:00"',
        )),
        *((CHANNEL, record) for record in ("1", "null", '"x"', "[]", "{}", '{"sid":5,"sid":"a"}')),
        ("twilio.flex_flows", '{"sid":"FO1","integration":{"new":1}}'),
        ("twilio.flex_flows", '{"sid":"FO1","enabled":"true"}'),
        ("twilio.flex_flows", '{"sid":"FO1","integration":"studio"}'),
        (FLOW, '{"flow_id":"f","flow_versions":[{"flow_version_id":"v","flow_version":"1"}]}'),
        (FLOW, '{"flow_id":"f","flow_versions":[{"flow_version_id":"v",'
         '"flow_version":2147483648}]}'),
        (FLOW, '{"flow_id":"f","flow_versions":[{"flow_version_id":""}]}'),
        (FLOW, '{"flow_id":"f","flow_versions":[null]}'),
        (FLOW, '{"flow_id":"f","flow_versions":"[]"}'),
        (FLOW, '{"flow_id":"f","entry_points":[{"entry_id":"a","new":[]}]}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","NumberList":[1]}'),
        (CONTACT_FLOW, '{"ContactFlowId":"f","InstanceId":5}'),
    ],
)  # fmt: skip
def test_a_page_with_one_of_these_records_is_not(stream: str, record: str) -> None:
    clean = dumped(CLEAN[stream][0])
    assert not both(stream, answer(stream, [clean, record.encode(), clean]))


@pytest.mark.parametrize(
    "change",
    [
        (b'"total"', b'"twilio.channels":[],"total"'),
        (b'"more":[1,null]', b'"flex_chat_channels":[]'),
        (b'"flex_chat_channels"', b'"other"'),
        (b'"more":[1,null]', b'"more":"\\ud800"'),
        (b'"more":[1,null]', b'"more":"\xff"'),
        (b'"more":[1,null]', b'"more":[1,]'),
        (b'"more":[1,null]', b'"more":nul'),
        (b'"more":[1,null]', b'"more":1e400'),
        (b'{"total"', b'\xef\xbb\xbf{"total"'),
        (b"null]}", b"null]} x"),
        (b"null]}", b"null]"),
    ],
)
def test_whatever_stands_around_the_records_both_ways_give_the_same(
    change: tuple[bytes, bytes],
) -> None:
    data = answer(CHANNEL, [dumped(CLEAN[CHANNEL][0])])
    assert data.count(change[0]) == 1
    both(CHANNEL, data.replace(*change))


@cache
def _pool(stream: str) -> list[str]:
    """Return the sandbox's records of a list, also its awkward ones, as JSON."""
    provider, name = stream.split(".")
    (emulator,) = (each() for each in EMULATORS if each.name == provider)
    emulator.fill(partial(random_of, 1), Sizes(20, 20))
    found = emulator.records()[name]
    return [json.dumps(record) for record in [*found, *CLEAN.get(stream, ())]]


@pytest.mark.parametrize("stream", STREAMS)
def test_whatever_a_page_holds_both_ways_give_the_same_rows(stream: str, seed: int) -> None:
    rounds, exact = 300 if stream in CLEAN else 40, 0
    for number in range(rounds):
        random = Random(f"{seed} {stream} {number}")
        changer = Changer(random)
        records = [changer.record(stream) for _ in range(random.choice((1, 1, 2, 5)))]
        data = answer(stream, records)
        if random.random() < 0.2:
            data = damaged(random, data)
        exact += both(stream, data)
    if stream in CLEAN:
        assert rounds / 8 < exact < rounds  # neither way is tried by chance only


# --- what is inside a Definition -----------------------------------------------------------------
ACTIVITIES = TABLES["alibaba.contact_flow_activities"]
KEY = (SCOPE, "flow")
documented = exact_steps("activities", ACTIVITIES)
activity = reader(ACTIVITIES, apart=("events",))
transition = reader(TABLES["alibaba.contact_flow_transitions"])


def generally(text: str) -> tuple[Steps | None, int]:
    """Return the activities of a Definition as they are read one by one, and the warnings."""
    rows, sent = Rows({}), content(text)
    listed = items(sent, "activities") if isinstance(sent, dict) else None
    if listed is None:
        return None, 1
    return read_steps(listed, "events", activity, transition, KEY, rows), rows.warnings


def is_exact(text: str) -> bool:
    """Assert that both ways give the same; return whether the exact one was taken."""
    found = as_documented(documented, text, KEY)
    assert found is None or repr((found, 0)) == repr(generally(text)), text
    return found is not None


def test_generated_definitions_take_the_exact_way_in_every_spelling() -> None:
    for number in range(60):
        text = alibaba_data.definition(Random(number))
        assert is_exact(text)
        assert is_exact(json.dumps(json.loads(text)))
        assert is_exact(json.dumps(json.loads(text), indent=1).replace("/", "\\/"))


def test_whatever_a_definition_holds_both_ways_give_the_same_activities(seed: int) -> None:
    rounds, exact = 1000, 0
    for number in range(rounds):
        random = Random(f"{seed} definition {number}")
        text = Changer(random).definition(alibaba_data.definition(random))
        if random.random() < 0.1:
            text = damaged(random, text.encode()).decode(errors="surrogateescape")
        exact += is_exact(text)
    assert rounds / 8 < exact < rounds


def inside(properties: str) -> str:
    return f'{{"activities":[{{"id":"a","properties":{properties}}}]}}'


@pytest.mark.parametrize(
    "properties",
    ["null", "1.0", "-0.0", "-0", "1e16", "1E-7", "1.50", "9007199254740993", "true", '"\u2028"',
     "18446744073709551616", "1" + "0" * 400, '{"b":1,"a":[],"b":2}', "[[1], [2]]",
     '"x/\\u4e2d\\ud83d\\ude00\\u0001\\u007f\\t\\/"', "[" * MAX_DEPTH + "]" * MAX_DEPTH,
     "[" + "[]," * 200 + "1]"],
)  # fmt: skip
def test_settings_that_are_stored_as_sent_take_the_exact_way(properties: str) -> None:
    assert is_exact(inside(properties))


@pytest.mark.parametrize(
    "properties",
    ["1e400", "9" * 5000, '"\\u0000"', '"\\ud800"', '"\\ude00\\ud83d"',
     '"\\udfff"', '"\\u005cu0000"', '"\\\\u0000"', "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
     "nan", "01", '"\\q"'],
)  # fmt: skip
def test_settings_that_may_be_stored_otherwise_do_not(properties: str) -> None:
    assert not is_exact(inside(properties))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"activities":null}', '{"activities":"[]"}', '{"activities":{}}',
     '{"activities":[{"id":"a"},{"id":"a"}]}', '{"activities":[{"id":""}]}',
     '{"activities":[{"id":"a","nodeIndex":"3"}]}', '{"activities":[{"id":"a","added":null}]}',
     '{"activities":[{"id":"a","events":[{"event":1}]}]}', '{"activities":[{}]}',
     '{"activities":[],"x":"\\q"}', '{"activities":[],"x":1e}', '{"activities":[]} x',
     '{"activities":[{"id":"a","events":"[]"}]}', '{"activities":[],"x":"\ud800"}'],
)  # fmt: skip
def test_a_definition_with_any_oddity_does_not(text: str) -> None:
    assert not is_exact(text)


def test_a_definition_that_is_too_large_is_refused_the_exact_way_too() -> None:
    text = '{"activities":[' + "{}," * 300_000 + "{}]}"
    with pytest.raises(TooMuchError):
        content(text)
    with pytest.raises(TooMuchError):
        as_documented(documented, text, KEY)
