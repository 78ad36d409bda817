"""Records as no provider should send them, made at random as bytes: `Maker(seed).page(stream)`."""

import json
import random
from collections.abc import Callable, Iterable

from sqlalchemy import Boolean, DateTime, Integer, Table

from etl.providers.catalog import TABLES

ODD_TEXTS = [
    "", " ", "\0", "\ud800", "a\0\udfff", "\\u0000", "true", "false", "True", "TRUE", "yes", "1",
    "0", "-1", "01", "+1", " 1", "1.0", "1e3", "2147483648", "١", "９", "null", "[]", "{}", "NaN",
    "[1]", '["a"]', '{"activities": []}', "[", "'; DROP TABLE x; --", "%s %(a)s {0}", "\x1b[31mred",
    "\u202eabc", "😀", "流程", "a\nb\r\tc\x07\x7f", "\ufeff", "\uffff", "\u2028", "=1+1",
    "infinity", "-infinity", "now",
]  # fmt: skip
TIMES = [
    "2016-08-01T22:10:40Z", "2021-03-08 15:34:49.0", "2016-08-01T22:10:40.123456+05:30",
    "2016-08-01t22:10:40z", "2016-08-01T22:10:40+0100", "2016-08-01T22:10:40",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00", "2016-08-01", "2016-08-01T24:00:00Z", "2016-06-30T23:59:60Z",
    "10000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "2016-W10-1T00:00:00Z",
    "2016-08-01T22:10:40,5Z", "2016-08-01T22:10:40.1234567Z", "2016-08-01T22:10:40+24:00",
    "2016-08-01T22:10:40Z ", "2016-08-01T22:10:40Zx", "２016-08-01T22:10:40Z",
    "2016-08-01T22:10:40\0", "2016-08-01T22:10:40\0Z", "2016-08-01T22:10:40Z\0", "1470089440",
    "2016-02-30T00:00:00Z", "2016-08-01T22:10:40+01", "-2016-08-01T22:10:40Z",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "1", "3.0", "1e3", "2147483647", "2147483648", "-2147483649", "9223372036854775808",
    "123456789012345678901234567890", "1.5", "-2.5e-3", "1e308", "1e400", "-1E+999", "1e-999",
    "1" + "0" * 400, "9" * 4999, "-" + "9" * 5000, "0.1" + "0" * 300 + "1",
]  # fmt: skip
NOT_JSON = [
    b"NaN", b"Infinity", b"-Infinity", b"nul", b"01", b"+1", b".5", b"1.", b"'a'", b"True",
    b'"a\nb"', b'"\\x"', b'"\\u12"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3"', b'{"a" 1}', b"[1 2]",
    b'{"a":1,}', b"[1,]", b"{1:2}", b"undefined", b'"\x00"', b"[" * 5000 + b"]" * 5000,
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
]  # fmt: skip
NAMES = ["", "extra", "source", "valid_from", "ord", "partial", "x\0", "x\ud800", "x\udc00", "x_",
         "x\\u0000", "new", "Name", "a.b", "流", '"', "integration", "sid"]  # fmt: skip
_KEYS = {"flow_id", "flow_version_id", "entry_id", "sid", "ContactFlowId", "id"}


class Maker:
    """Makes records of any stream. `wild` is the share of values that are not as documented."""

    def __init__(self, rng: random.Random, wild: float = 0.15) -> None:
        self.rng = rng
        self.wild = wild

    def page(self, stream: str, count: int) -> list[bytes]:
        """Return `count` records of the list `stream`, each as JSON or as almost JSON."""
        return [self._record(_RECORDS[stream], number) for number in range(count)]

    def text(self) -> str:
        """Return any text."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(ODD_TEXTS)
        if kind < 0.7:
            return rng.choice(TIMES)
        if kind < 0.72:
            return rng.choice(["x", "é", "😀", "\0", '"', ",[{"]) * rng.choice([1000, 10_000])
        pool = [*range(0x100), *range(0xD7F0, 0xE010), 0xFFFD, 0x1F600]
        text = "".join(chr(rng.choice(pool)) for _ in range(rng.randrange(8)))
        return str(json.loads(json.dumps(text)))  # a pair of surrogates in JSON is one character

    def value(self, depth: int = 0) -> bytes:
        """Return any value, and sometimes bytes that are not JSON."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.004:
            return rng.choice(NOT_JSON)
        if kind < 0.01:
            levels = rng.choice([50, 99, 100, 101, 102, 400])
            begin, end = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
            return begin * levels + _json(self.text()) + end * levels
        if kind < 0.45:
            return _json(self.text())
        if kind < 0.65:
            return rng.choice(NUMBERS).encode()
        if kind < 0.8 or depth > 2:
            return rng.choice([b"null", b"true", b"false", b"[]", b"{}"])
        inner = [self.value(depth + 1) for _ in range(rng.randrange(4))]
        if kind < 0.9:
            return b"[" + b",".join(inner) + b"]"
        return _object((self.name(), one) for one in inner)

    def name(self) -> str:
        """Return the name of a member."""
        return self.rng.choice(NAMES) if self.rng.random() < 0.7 else self.text()

    def _record(self, table: Table, number: int) -> bytes:
        rng = self.rng
        if rng.random() < 0.01:
            return self.value() or b"null"
        members: list[tuple[str, bytes]] = []
        inner: dict[str, list[tuple[str, bytes]]] = {}
        for column in table.columns:
            path = column.info.get("json")
            if path is None or rng.random() < 0.05:
                continue
            home = members if len(path) == 1 else inner.setdefault(path[0], [])
            home.append((path[-1], self._cell(path[-1], column.type, number)))
        members += [(name, _object(fields)) for name, fields in inner.items()]
        members += [(name, self._children(name, child)) for name, child in _CHILDREN.get(table, [])]
        if table is TABLES["alibaba.contact_flows"]:
            members.append(("NumberList", self._numbers()))
        if rng.random() < self.wild:
            members += [(self.name(), self.value()) for _ in range(rng.randrange(4))]
        return _object(members)

    def _cell(self, name: str, kind: object, number: int) -> bytes:
        rng = self.rng
        if name in _KEYS:
            if rng.random() < self.wild / 10:
                return self.value()
            return _json(f"{name}-{rng.randrange(number + 1) if rng.random() < 0.02 else number}")
        if rng.random() < self.wild:
            return self.value()
        if name == "Definition":
            return _json(self._definition())
        if isinstance(kind, DateTime):
            return _json(rng.choice(TIMES[:8]))
        if isinstance(kind, Integer):
            return rng.choice([b"1", b"3.0", b'"7"', b"null", b"-5"])
        if isinstance(kind, Boolean):
            return rng.choice([b"true", b"false", b'"true"', b'"false"', b"null"])
        return rng.choice([b'"text"', b'"\\u6d41"', b'""', b"null"])

    def _children(self, name: str, table: Table) -> bytes:
        if self.rng.random() < self.wild / 5:
            return self.value()
        children = [self._record(table, number) for number in range(self.rng.randrange(4))]
        text = b"[" + b",".join(children) + b"]"
        if self.rng.random() < 0.1 and all(byte < 128 for byte in text):
            return _json(text.decode())
        return text

    def _numbers(self) -> bytes:
        if self.rng.random() < self.wild / 5:
            return self.value()
        numbers = [f'"+1{self.rng.randrange(30)}"' for _ in range(self.rng.randrange(4))]
        text = f"[{', '.join(numbers)}]"
        return _json(text) if self.rng.random() < 0.1 else text.encode()

    def _definition(self) -> str:
        activities = self._children("activities", TABLES["alibaba.contact_flow_activities"])
        return f'{{"activities": {activities.decode(errors="replace")}}}'


def _json(text: str) -> bytes:
    return json.dumps(text).encode()


def _object(members: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{" + b",".join(_json(name) + b":" + value for name, value in members) + b"}"


def damaged(rng: random.Random, text: bytes) -> bytes:
    """Return `text` with some bytes changed, removed, doubled, or cut off at the end."""
    data = bytearray(text)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(data) or 1)
        change: Callable[[], object] = rng.choice(
            [
                lambda place=place: data.__setitem__(slice(place, place + 1), rng.randbytes(1)),
                lambda place=place: data.__delitem__(slice(place, place + rng.randrange(9))),
                lambda place=place: data.__setitem__(
                    slice(place, place), data[place : place + rng.randrange(30)]
                ),
                lambda place=place: data.__setitem__(
                    slice(place, place), rng.choice([b'"', b"[", b"]", b"{", b"}", b",", b"\\"])
                ),
            ]
        )
        change()
    if rng.random() < 0.1:
        del data[rng.randrange(len(data) or 1) :]
    return bytes(data)


_RECORDS = {
    "zoom_raw.flows": TABLES["zoom.flows"],
    "twilio_raw.flex_flows": TABLES["twilio.flex_flows"],
    "twilio_raw.channels": TABLES["twilio.channels"],
    "alibaba_raw.contact_flows": TABLES["alibaba.contact_flows"],
}
_CHILDREN = {
    TABLES["zoom.flows"]: [
        ("flow_versions", TABLES["zoom.flow_versions"]),
        ("entry_points", TABLES["zoom.entry_points"]),
    ],
    TABLES["alibaba.contact_flow_activities"]: [
        ("events", TABLES["alibaba.contact_flow_transitions"])
    ],
}  # fmt: skip
