"""JSON text → values: strict about what JSON is, lenient about what strings and numbers hold."""

import json
import math
from typing import Any, NoReturn

import msgspec


def decode(text: bytes | str) -> Any:
    """The value of a JSON text.

    Lone surrogates (`"\\ud800"`) are kept; a number beyond a double's range, or an integer longer
    than Python converts, is kept as its text; of a repeated member the last wins. Raises
    ValueError when `text` is not JSON (NaN and Infinity are not), is not UTF-8, or nests too
    deeply to be read.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        pass  # not JSON, or JSON that msgspec refuses: the slower parser tells them apart
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # json.loads would take UTF-16 and UTF-32 too
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_number, parse_int=_integer)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # more digits than sys.get_int_max_str_digits()
        return text
