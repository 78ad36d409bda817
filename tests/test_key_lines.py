"""The line of each key of a TOML text: documents are written with their lines known."""

import json
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from etl.config.lines import Key, key_lines

LOOKS = ["a = 1", "[t9]", "# x", "{", "]", ",", "=", "é", "\n"]
"""What a text may hold that looks like keys, tables and comments; others are added below."""
BASIC = st.lists(
    st.sampled_from([*LOOKS, r"\\", r"\"", r'\"""', "'", "'''", '"', '""', "\\\n"]), max_size=6
)
LITERAL = st.lists(st.sampled_from([*LOOKS, "\\", "'", "''", '"', '"""']), max_size=6)


@st.composite
def values(draw: st.DrawFn, key: Key) -> tuple[str, list[Key]]:
    """Return a value as TOML, and the keys in it, which are all on its first line."""
    kind = draw(st.sampled_from(["plain", "basic", "literal", "array", "inline"]))
    if kind == "inline":
        inner: list[Key] = [(*key, "in"), (*key, "q q", "x"), (*key, "q q", "x", "y")]
        return '{ in = [ 1, "}" ], "q q".x = { y = 1 } }', inner
    if kind == "array":
        items = draw(st.lists(st.sampled_from(["1", '"]"', "{ z = 1 }", "[ 2 ]"]), max_size=3))
        return "[ # =\n" + "".join(f"  {item}, # [t9]\n" for item in items) + "]", []
    if kind == "basic":
        return f'"""{" ".join(draw(BASIC))} z"""', []
    if kind == "literal":
        return f"'''{' '.join(draw(LITERAL))} z'''", []
    return json.dumps(" ".join(draw(LITERAL)), ensure_ascii=False), []


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Key, int]]:
    """Return a TOML document, and the line of each key and header that is written in it."""
    text, lines = "", dict[Key, int]()
    for table in range(draw(st.integers(1, 4))):
        at: Key = ()
        if table:
            at = (f"t{table}", *draw(st.sampled_from([(), ("b",), ("c.d", "e")])))
            opened, closed = draw(st.sampled_from([("[", "]"), ("[[", "]]")]))
            text += "\n"
            lines[at] = text.count("\n") + 1
            header = " . ".join(word if word.isalnum() else f'"{word}"' for word in at)
            text += f"{opened} {header}{closed} # [x]\n"
        for number in range(draw(st.integers(0, 3))):
            words = (f"k{number}", *draw(st.sampled_from([(), ("l",), ("m n", "o")])))
            value, inner = draw(values((*at, *words)))
            lines |= dict.fromkeys([(*at, *words), *inner], text.count("\n") + 1)
            quote = draw(st.sampled_from(["'", '"']))
            left = ".".join(word if word.isalnum() else quote + word + quote for word in words)
            text += f"{left} = {value} # =\n"
    return text, lines


@settings(max_examples=300, deadline=None)
@given(document=documents(), ending=st.sampled_from(["\n", "\r\n"]))
def test_every_key_has_the_line_where_it_is_written(
    document: tuple[str, dict[Key, int]], ending: str
) -> None:
    text, expected = document
    text = text.replace("\n", ending)
    tomllib.loads(text)
    found = key_lines(text)
    assert {key: found.get(key) for key in expected} == expected
