"""A request and its answer, as the emulators see them: values, without sockets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

JSON = {"Content-Type": "application/json;charset=UTF-8"}


@dataclass(slots=True, eq=False)
class Request:
    """One request as it arrived; an emulator keeps it for tests to examine.

    `path`    percent-decoded, without the query; `target` is the raw text of the request line.
    `query`   decoded pairs in the order sent (`+` is a space); `params` is the same as a dict.
    `headers` names in lower case, `authorization` included.
    `at`      the emulator's clock on arrival, seconds since 1970 UTC.
    `status`  of the answer that the emulator meant to give; 0 until there is one.
    """

    method: str
    target: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes
    at: float
    status: int = 0

    @property
    def params(self) -> dict[str, str]:
        """The query as a dict; of a repeated name the last one counts."""
        return dict(self.query)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: `body` as it goes over the wire, `headers` without those of the transport."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer with a JSON body; `headers` are added to the content type."""
    return Response(status, msgspec.json.encode(body), {**JSON, **(headers or {})})


def whole_number(text: str) -> int | None:
    """Read a query parameter that must consist of decimal digits; None for anything else."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None
