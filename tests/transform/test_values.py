"""One record and its row: what fits, what does not, what Postgres cannot hold."""

import json
import random
from typing import Any

import pytest

from etl.errors import UnkeyedError
from etl.providers.catalog import TABLES
from etl.transform.values import (
    MAX_DEPTH,
    as_json,
    escaped,
    items,
    key,
    last_of_each,
    reader,
    replaced,
    storable,
)

version = reader(TABLES["zoom.flow_versions"])


def read_version(**members: Any) -> tuple[Any, Any, int]:
    """Return the cell of flow_version, extra, and the number of warnings."""
    row, warnings = version({"flow_version_id": "v", **members}, ("f",))
    assert row[:2] == ("f", "v")
    return row[2], json.loads(row[-1]) if row[-1] else None, warnings


@pytest.mark.parametrize("fits", [0, -0.0, 3, 3.0, 1e3, -(2**31), 2**31 - 1, float(2**31 - 1)])
def test_whole_numbers_of_four_bytes_fit_an_integer(fits: Any) -> None:
    cell, extra, warnings = read_version(flow_version=fits)
    assert cell == fits
    assert type(cell) is int
    assert (extra, warnings) == (None, 0)


@pytest.mark.fault(35)
@pytest.mark.parametrize(
    "sent",
    [
        2**31,
        -(2**31) - 1,
        2**63,
        10**400,
        3.5,
        1e300,
        True,
        False,
        "",
        [],
        {},
        [3],
        "03",
        "+3",
        " 3",
        "3 ",
        "3.0",
        "3e0",
        "-0",
        "٣",
        "３",
        "2147483648",
        "9" * 5000,
    ],
)
def test_a_number_that_does_not_fit_four_bytes_is_kept_as_sent(sent: Any) -> None:
    cell, extra, warnings = read_version(flow_version=sent)
    assert cell is None
    assert extra == {"flow_version": sent}
    assert type(extra["flow_version"]) is type(sent)
    assert warnings == 1


@pytest.mark.fault(32, 33)
@pytest.mark.parametrize(
    ("text", "clean", "original"),
    [
        ("a\0b", "a�b", "a\\u0000b"),
        ("\ud800", "�", "\\ud800"),
        ("\udfff\udc00", "��", "\\udfff\\udc00"),
        ('q"\\\n\0', 'q"\\\n�', 'q\\"\\\\\\n\\u0000'),
        ("😀\0", "😀�", "😀\\u0000"),
    ],
)
def test_unstorable_text_is_replaced_in_the_column_and_readable_in_extra(
    text: str, clean: str, original: str
) -> None:
    assert not storable(text)
    assert replaced(text) == clean
    assert escaped(text) == original
    assert json.loads(f'"{original}"') == text
    row, warnings = version({"flow_version_id": "v", "flow_version_description": text}, ("f",))
    assert row[3] == clean
    assert json.loads(row[-1]) == {"flow_version_description": original}
    assert warnings == 1


@pytest.mark.parametrize(
    "text", ["", "plain", "é", "流程", "😀", "\x01\x7f\u2028\ufffe", "\\u0000"]
)
def test_all_other_text_stays_as_it_is(text: str) -> None:
    assert storable(text)
    row, warnings = version({"flow_version_id": "v", "flow_version_description": text}, ("f",))
    assert (row[3], row[-1], warnings) == (text, None, 0)


def test_unstorable_text_in_unknown_members_is_escaped_names_included() -> None:
    _, extra, warnings = read_version(**{"a\0": {"\ud800": ["x\0", 1]}})
    assert extra == {"a\\u0000": {"\\ud800": ["x\\u0000", 1]}}
    assert warnings == 0


def test_names_that_become_the_same_by_escaping_both_stay() -> None:
    sent = {"x\0": 1, "x\\u0000": 2, "x\\u0000_": 3}
    assert json.loads(as_json(sent)) == {"x\\u0000": 2, "x\\u0000_": 3, "x\\u0000__": 1}
    activity = reader(TABLES["alibaba.contact_flow_activities"])
    row, _ = activity({"id": "a", "properties": {"\0": 1, chr(0xDC00): 2, "�": 3}}, ("i", "f"))
    assert json.loads(row[-2]) == {"�_": 1, "�__": 2, "�": 3}
    assert json.loads(row[-1]) == {"properties": {"\\u0000": 1, "\\udc00": 2, "�": 3}}


@pytest.mark.fault(36)
@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 900, 50_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_a_value_of_any_depth_is_kept_as_json_or_as_its_text(
    depth: int, begin: str, end: str
) -> None:
    value: Any = "\0"
    for _ in range(depth):
        value = [value] if begin == "[" else {"a": value}
    found = json.loads(as_json(value))
    for _ in range(min(depth, MAX_DEPTH)):
        found = found[0] if begin == "[" else found["a"]
    deeper = depth - MAX_DEPTH
    if deeper <= 0:
        assert found == "\\u0000"
    else:
        assert found == begin * deeper + '"\\u0000"' + end * deeper


def test_the_text_of_a_deep_value_is_json_of_all_that_is_in_it() -> None:
    inner = [{"a": [], "b": {}, '"': "é\ud800"}, [1, -2.5, True, None], 10**50, ""]
    value: Any = inner
    for _ in range(MAX_DEPTH):
        value = [value]
    found = json.loads(as_json(value))
    for _ in range(MAX_DEPTH):
        (found,) = found
    assert json.loads(found) == inner


def test_deep_properties_are_kept_too() -> None:
    deep: Any = "core"
    for _ in range(900):
        deep = [deep]
    activity = reader(TABLES["alibaba.contact_flow_activities"])
    row, warnings = activity({"id": "a", "properties": deep}, ("i", "f"))
    assert "core" in row[-2]
    assert "core" in row[-1]
    assert warnings == 1


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "id is missing"),
        (5, "id is not text but int"),
        (True, "id is not text but bool"),
        (["a"], "id is not text but list"),
        ("", "id is empty"),
        ("a\0", "id holds a NUL or a lone surrogate"),
        ("\udc00", "id holds a NUL or a lone surrogate"),
        ("流" * 267, "id is longer than 800 bytes"),
    ],
)
def test_a_key_is_never_cast_or_mended(value: Any, why: str) -> None:
    with pytest.raises(UnkeyedError, match=f"^{why}$"):
        key(value, "id")


@pytest.mark.parametrize("value", ["a", " ", "-", "'; DROP", "流" * 266, "x" * 800, "\n", "😀"])
def test_any_other_text_is_a_key(value: str) -> None:
    assert key(value, "id") == value


def test_children_are_a_list_null_missing_or_unknown() -> None:
    assert items({"a": [1]}, "a") == [1]
    assert items({"a": None}, "a") == items({}, "a") == items({"a": []}, "a") == []
    assert items({"a": {}}, "a") is items({"a": "x"}, "a") is items({"a": 0}, "a") is None


def test_the_last_of_rows_with_one_key_is_kept() -> None:
    rows = [("a", 1, "x"), ("a", 2, "y"), ("a", 1, "z")]
    assert sorted(last_of_each(rows, 2)) == [("a", 1, "z"), ("a", 2, "y")]


def test_text_of_any_bytes_is_storable_or_made_so(seed: int) -> None:
    rng = random.Random(seed)
    pool = [*range(0x100), *range(0xD7F0, 0xE010), 0xFFFD, 0xFFFF, 0x1F600, 0x10FFFF]
    for _ in range(2000):
        text = "".join(chr(rng.choice(pool)) for _ in range(rng.randrange(6)))
        text = json.loads(json.dumps(text))  # a pair of surrogates in JSON is one character
        assert storable(text) == (not set(text) & {"\0", *map(chr, range(0xD800, 0xE000))})
        assert storable(replaced(text))
        assert storable(escaped(text))
        assert json.loads(f'"{escaped(text)}"') == text
