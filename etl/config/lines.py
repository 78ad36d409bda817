"""The line of each key of a TOML text, which `tomllib` does not keep."""

import re
import tomllib
from collections.abc import Iterator
from itertools import takewhile

Key = tuple[str, ...]
"""A key's path from the root, such as ("sources", "zoom_eu", "timeout")."""

# Each kind of string ends at the end of the text at the latest, so that no character is read twice.
_PIECE = re.compile(
    r'''
      """ (?:\\.|[^\\])*? (?:"{3,5}|\Z)
    | \'\'\' .*? (?:'{3,5}|\Z)
    | " (?:\\.|[^"\\\n])* "?
    | ' [^'\n]* '?
    | \# [^\n]*
    | [\n\[\]{}=,.]
    | [^\s\[\]{}=,.\#"']+
    ''',
    re.DOTALL | re.VERBOSE,
)


def key_lines(text: str) -> dict[Key, int]:
    """Return the line, from 1, of each key and table of `text`, which is valid TOML.

    A key has the line on which it is first written; a table that only longer keys imply has the
    line of the first of them. Keys inside an array have the array's path.
    """
    written: dict[Key, int] = {}
    implied: dict[Key, int] = {}
    for key, line in _keys(text):
        written.setdefault(key, line)
        for length in range(1, len(key)):
            implied.setdefault(key[:length], line)
    return {**implied, **written}


def _keys(text: str) -> Iterator[tuple[Key, int]]:
    """Yield each key and table header with its line, in the order of the text."""
    header: Key = ()
    around: list[tuple[str, Key]] = []  # the open brackets, each with the key it belongs to
    key, words, in_value = header, list[str](), False
    pieces = _pieces(text)
    for line, piece in pieces:
        if piece == "[" and not in_value:
            rest = takewhile(lambda each: each[1] != "\n", pieces)
            key = header = tuple(_word(each) for _, each in rest if each not in ("[", "]", "."))
            yield header, line
        elif piece == "\n":
            if not around:
                key, words, in_value = header, [], False
        elif piece in ("[", "{"):
            around.append((piece, key))
            words, in_value = [], piece == "["
        elif piece in ("]", "}"):
            key, in_value = around.pop()[1], True
        elif piece == ",":
            bracket, key = around[-1]
            words, in_value = [], bracket == "["
        elif piece == "=":
            key, in_value = (*key, *words), True
            yield key, line
        elif not in_value and piece != ".":
            words.append(_word(piece))


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield each piece that is no comment, with the line on which it starts."""
    line = 1
    for match in _PIECE.finditer(text):
        if not match[0].startswith("#"):
            yield line, match[0]
        line += match[0].count("\n")


def _word(piece: str) -> str:
    """Return what a bare or quoted part of a key stands for."""
    return str(tomllib.loads(f"key = {piece}")["key"]) if piece[0] in "\"'" else piece
