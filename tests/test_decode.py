"""JSON text → values: strict about what JSON is, lenient about what strings and numbers hold."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.extract.decode import decode


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": [1, -2.5, true, null, "\xc3\xa9"]}', {"a": [1, -2.5, True, None, "é"]}),
        (" 3 ", 3),
        ('"x"', "x"),
        ('"\\ud83d\\ude00"', "😀"),
        (b"\xef\xbb\xbf{}", {}),
        ('"\\u0000"', "\0"),
        ('"\\ud800"', "\ud800"),
        ('["\\udfff\\ud800", 1]', ["\udfff\ud800", 1]),
        ('{"\\ud800": 1}', {"\ud800": 1}),
        ('["\ud800"]', ["\ud800"]),  # the text itself holds it
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('{"a": 1, "b": "\\ud800", "a": 2}', {"a": 2, "b": "\ud800"}),
        ("1e400", "1e400"),
        ('{"a": [-1E+999]}', {"a": ["-1E+999"]}),
        ("1e308", 1e308),
        ("1e-999", 0.0),
        ("9223372036854775808", 2**63),
        ("1" + "0" * 400, 10**400),
        ("[" + "9" * 5000 + ", 1]", ["9" * 5000, 1]),
        ("-" + "9" * 5000, "-" + "9" * 5000),
    ],
)  # fmt: skip
def test_json_is_decoded_and_nothing_of_it_is_lost(text: str | bytes, value: Any) -> None:
    found = decode(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", '{"a": 1', '{"a": 1,}', "[1 2]", "{'a': 1}", "nul", "NaN", "[Infinity]",
     "-Infinity", "01", "+1", "1.", ".5", '"\n"', '"\\x"', "<html>", "1 2", b"\xff", b'"\xc3"',
     b'"\xed\xa0\x80"', '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32-le"),
     "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000,
     '["\\ud800", ' + "[" * 100_000],
)  # fmt: skip
def test_text_that_is_not_json_is_refused_with_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        decode(text)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


@settings(max_examples=100, deadline=None)
@given(values.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_output_of_json_dumps_is_read_back(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode()):
        assert decode(text) == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=20) | st.text(max_size=20))
def test_anything_else_raises_only_value_errors(text: bytes | str) -> None:
    try:
        decode(text)
    except ValueError:
        return
    json.loads(text)
