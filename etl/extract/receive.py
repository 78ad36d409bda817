"""From a response to an `Answer`: the body within bounds, unpacked and decoded."""

import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import httpx

from etl.config.redact import Redactor
from etl.errors import ContractError, Retry, TooLargeError, TooMuchError, UnavailableError
from etl.extract.answer import QUOTED, Answer, asked_wait, words
from etl.extract.decode import RecordsAt, bounded, page
from etl.extract.page import Params

_MAX_REFUSAL = 1024 * 1024  # bytes of an answer that is not 2xx and is still read as JSON
_PIECE = 1024 * 1024
_LATER = "try again later; check the network, and any proxy on the way"


def read_body(response: httpx.Response, most: int) -> bytearray:
    """Read and unpack the body; never hold more of it than `most` bytes and a piece of 1 MiB.

    Raise TooLargeError if it is larger, ContractError if it is compressed with anything but gzip,
    Retry if its compression is damaged or incomplete.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise ContractError(
            "the answer is compressed with a method other than gzip",
            advice="ask whoever runs a proxy on the way to leave Accept-Encoding alone",
        )
    chunks = response.iter_raw()
    body = bytearray()
    try:
        for piece in _inflated(chunks) if encoding.endswith("gzip") else chunks:
            body += piece
            if len(body) > most:
                raise TooLargeError(
                    f"the answer is larger than {most // 2**20} MiB",
                    advice="check that base_url is the API's address",
                )
    except zlib.error as error:
        raise Retry(
            UnavailableError("the answer's compression is damaged", advice=_LATER)
        ) from error
    return body


def _inflated(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """Unpack gzip in pieces of 1 MiB, because a chunk can unpack to a thousand times its size."""
    inflate = zlib.decompressobj(wbits=31)
    started = False
    for chunk in chunks:
        started, rest = True, chunk
        while rest:
            yield inflate.decompress(rest, _PIECE)
            rest = inflate.unconsumed_tail
            if inflate.eof and inflate.unused_data:  # gzip allows several members in a row
                rest, inflate = inflate.unused_data, zlib.decompressobj(wbits=31)
    if started and not inflate.eof:
        raise Retry(UnavailableError("the answer broke off", advice=_LATER))


def read_answer(
    response: httpx.Response,
    data: bytearray,
    params: Params,
    records: RecordsAt,
    redact: Redactor,
    now: datetime,
) -> Answer:
    """Decode `data`, the body of `response`, which has records at `records`; see `decode.page`.

    Raise TooLargeError if a 2xx answer holds more values than callflow reads, Retry if it is not
    JSON. Any other answer may be anything.
    """
    if response.status_code < 300:
        body, problem = _decoded(data, records, response.status_code, redact), ""
    else:
        body, problem = _refusal(data, redact)
    headers = {name.lower(): value for name, value in response.headers.items()}
    said = redact(words(body)) or problem or "no message"
    wait = asked_wait(headers, now)
    return Answer(response.status_code, headers, body, said, wait, params, redact)


def _decoded(data: bytearray, records: RecordsAt, status: int, redact: Redactor) -> Any:
    try:
        return page(data, records.path, records.exact)
    except TooMuchError as error:
        raise TooLargeError(
            f"the answer is too much to be read: {error}",
            advice="check that base_url is the API's address",
        ) from None
    except ValueError as error:
        raise Retry(
            ContractError(
                f"HTTP {status}, but the answer is not JSON: {_excerpt(data, redact)} ({error})",
                advice="check base_url, and whether a proxy or a login page answers",
            ),
            attempts=3,
        ) from None


def _refusal(data: bytearray, redact: Redactor) -> tuple[Any, str]:
    """Return the body of an answer that is not 2xx, or None and what a message can say of it."""
    if len(data) > _MAX_REFUSAL:
        return None, f"{redact(_text(data))} ({len(data)} bytes)"
    try:
        return bounded(data), ""
    except TooMuchError as error:
        return None, str(error)
    except ValueError:
        return None, _excerpt(data, redact)


def _excerpt(data: bytearray, redact: Redactor) -> str:
    return redact(_text(data)) or "nothing"


def _text(data: bytearray) -> str:
    return data[:QUOTED].decode(errors="replace")
