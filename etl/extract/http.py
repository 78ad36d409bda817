"""The one seam to the network: every request to a provider passes through an `Http`.

It knows HTTP (deadlines, retries, pacing, size limits, redirects) and JSON, and no provider. What
an answer means is said by the `judge` that the extractor hands in; who asks, by its `sign`.
No message made here holds a header, a query or a body as it was: all passes the `Redactor`.
"""

import base64
import email.utils
import logging
import math
import re
import socket
import ssl
import time
import traceback
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpcore
import httpx
import tenacity

from etl.config.redact import Redactor
from etl.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    Retry,
    TooLargeError,
    TooMuchError,
    UnavailableError,
)
from etl.extract.decode import bounded, page
from etl.extract.page import Params
from etl.extract.route import DIRECT, Route, Way, out_of_files, proxy_refusal

MAX_BODY = 32 * 1024 * 1024
"""Bytes of one answer, after decompression."""
_MAX_REFUSAL = 1024 * 1024  # bytes of an answer that is not 2xx and read as JSON
_PIECE = 1024 * 1024
_QUOTED = 64 * 1024
"""Of what a provider says, so much is looked at for a message."""
ATTEMPTS = 6
RETRIES, RETRY_SHARE = 10, 0.1
"""Of the requests of one run so many may be repeated ones, and that share of them besides."""
MAX_ASKED_WAIT = 60.0
"""Seconds that a provider may ask us to wait; beyond it the run ends and says so."""

log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines hold whole URLs

_JITTER = tenacity.wait_random_exponential(multiplier=0.5, max=30)
_SECONDS = re.compile(r"[+-]?[0-9]{1,12}(\.[0-9]{0,9})?")
_ID = re.compile(r"[A-Za-z0-9_.;:=,/+-]{1,100}")
_SLOW_DOWN = re.compile(
    r"rate limit|limit rate|throttl|flow control|too many (?:concurrent |api )?(?:api )?requests"
    r"|maximum number of .{0,40}requests|(?:requests|calls|queries) per (?:second|minute|day)"
    r"|\bqps\b|request (?:limit|frequency) |concurrent api requests|(?:requests|api) quota"
    r"|流控|限流|请求过于频繁"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer of a provider, for its judge.

    `body`   decoded JSON; None when it is not JSON (only where `status` is not 2xx).
    `said`   the provider's own words, cleaned and cut: fit for a message.
    `wait`   seconds that it asks to wait before the next request; None when it does not ask.
    `params` the query parameters of the request.
    `headers` by lower-case name.
    `redact` makes what else of it is quoted fit for a message.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    said: str
    wait: float | None
    params: Params
    redact: Redactor

    @property
    def slow_down(self) -> bool:
        """Whether it refuses because too much was asked for, in whatever code or status it says so.

        Zoom does so in HTTP 403 (zoom/api-v1, issue 19), Alibaba in 400 ("Throttling.User").
        """
        return 400 <= self.status < 500 and _is_slow_down(words(self.body) or self.said)


Judge = Callable[[Answer], None]
"""Returns for an answer that is good; raises `Retry` or a ProviderError for any other."""
Sign = Callable[[str, str, bytes], Mapping[str, str]]
"""(method, whole URL as it will be sent, body) → headers; called afresh for every attempt."""


def utc_now() -> datetime:
    """Return the wall clock's time, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Seam:
    """What every connection of one run is made with.

    `where`   names the run in messages: "source.stream".
    `timeout` seconds for one request, at most.
    `redact`  makes what is quoted fit for a message; it learns the tokens that a provider gives.
    """

    where: str
    timeout: float
    redact: Redactor
    route: Route = DIRECT
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = utc_now


class Http:
    """The requests of one run of one stream: one kept-alive connection to one origin.

    `base_url` is the only origin that this object ever talks to, by `route`: over its proxy, where
    it has one. `where` names the stream in messages. `timeout` is seconds for a whole request, from
    connecting to the last byte. `requests_per_second` spaces the requests evenly; 0 does not.
    Proxies, certificates and netrc of the environment are ignored, redirects are not followed. What
    is quoted passes `redact`.

    Retries are paid from a budget: RETRIES, and a tenth of the requests. `allow` bounds the time of
    all that follows. `requests`, `retries` count since the start; `throttled_seconds` is the time
    slept for pacing, back-off and waits that the provider asked for. Not for two threads at once.
    """

    def __init__(
        self,
        base_url: str,
        *,
        sign: Sign,
        judge: Judge,
        where: str,
        timeout: float = 30.0,
        requests_per_second: float = 0.0,
        route: Route = DIRECT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = utc_now,
        max_body: int = MAX_BODY,
        redact: Redactor | None = None,
    ) -> None:
        self.redact = redact or Redactor()
        self.base_url = base_url.rstrip("/")
        self.sign = sign
        self.where = where
        self.now = now
        self.requests = 0
        self.retries = 0
        self.throttled_seconds = 0.0
        self._judge = judge
        self._timeout = timeout
        self._spacing = 1 / requests_per_second if requests_per_second else 0.0
        self._clock = clock
        self._sleep = sleep
        self._max_body = max_body
        self._next_start = clock()
        self._deadline = clock()
        self._allowed = self._until = math.inf
        self._origin = _origin(httpx.URL(self.base_url))
        self._way = Way(httpx.URL(self.base_url), route, self._left)
        self._client = httpx.Client(
            transport=self._way.transport,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout,
            event_hooks={"response": [self._refuse_redirect]},
            headers={
                "accept": "application/json",
                "accept-encoding": "gzip",
                "user-agent": "callflow",
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def allow(self, seconds: float) -> None:
        """Give the requests from now on `seconds` in all, pauses included; then none is made."""
        self._allowed, self._until = seconds, self._clock() + seconds

    def call(
        self,
        method: str,
        target: str,
        params: Params | None = None,
        form: Params | None = None,
        *,
        at: str = "",
        records: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The JSON object of a good answer.

        `target` is a path under `base_url`, or an absolute URL of the same origin, which is sent
        as it is. `form` goes into the body, URL-encoded. `at` says in messages what was asked for
        ("page 3"). `records` are the members that lead to the list of records, each of which may be
        `decode.Packed`: see `decode.page`. Retries are made here and nowhere else: at most 6
        attempts with full-jitter back-off, after whatever wait the provider asks for, out of the
        budget of the whole run.

        Raises what the judge raises; UnavailableError when the attempts, the budget or the time are
        spent, or the provider asks for more than 60 s; CredentialsError for a certificate that
        cannot be verified; ContractError for a redirect, an answer that is too large or not a JSON
        object.
        """
        where = f"{self.where}, {at}" if at else self.where
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retry),
            stop=self._spent,
            wait=_pause_before,
            before_sleep=self._count_retry,
            sleep=self._pause,
            reraise=True,
        )
        try:
            url = self._url(target, params)
            body = encode(form).encode() if form is not None else b""
            answer = retrying(self._attempt, method, url, body, params or {}, records)
        except Retry as last:
            _let_go(last)
            attempts = retrying.statistics["attempt_number"]
            raise self._given_up(last, where, attempts) from last.__cause__
        except ProviderError as error:
            _let_go(error)
            error.where = error.where or where
            raise
        if not isinstance(answer, dict):
            raise ContractError(
                f"the answer is a JSON {_json_type(answer)}, not an object",
                where=where,
                advice="check that base_url is the API's address",
            )
        return answer

    def _url(self, target: str, params: Params | None) -> str:
        url = self.base_url + target if target[:1] in ("", "/") else target
        try:
            return f"{url}?{encode(params)}" if params else url
        except UnicodeError:
            raise ContractError("a query parameter holds half a surrogate pair") from None

    def _attempt(
        self, method: str, url: str, body: bytes, params: Params, records: Sequence[str]
    ) -> Any:
        request = self._request(method, url, body)
        started = self._clock()
        if started >= self._until:
            raise self._too_late()
        self.requests += 1
        self._deadline = min(started + self._timeout, self._until)
        try:
            response = self._client.send(request, stream=True)
            try:
                data = self._body(response)
            finally:
                response.close()
        except httpx.LocalProtocolError:
            # from None: the text of this one quotes the header, which may be the secret
            raise _bad_header() from None
        except httpx.TransportError as error:
            raise self._no_answer(error, request.url.host) from error
        log.debug(
            "%s: %s %s → HTTP %d, %d bytes in %.3f s%s",
            self.where,
            method,
            request.url.path,
            response.status_code,
            len(data),
            self._clock() - started,
            self._tracking(response.headers),
        )
        answer = self._answer(response, data, params, records)
        self._judge(answer)
        return answer.body

    def _request(self, method: str, url: str, body: bytes) -> httpx.Request:
        pause = self._next_start - self._clock()
        if self._spacing and pause > 0:
            self._pause(pause)
        headers = dict(self.sign(method, url, body))
        if body:
            headers["content-type"] = "application/x-www-form-urlencoded"
        self._next_start = max(self._clock(), self._next_start) + self._spacing
        try:
            request = self._client.build_request(method, url, headers=headers, content=body)
        except httpx.InvalidURL:
            raise ContractError("the URL cannot be requested") from None
        except UnicodeError:
            raise _bad_header() from None
        if _origin(request.url) != self._origin:
            raise ContractError(
                f"the URL belongs to another host ({self._named(request.url.host)})",
                advice="nothing was sent there; check base_url",
            )
        return request

    def _body(self, response: httpx.Response) -> bytearray:
        """The body, unpacked; no more of it is held than `max_body`, and a piece."""
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
                if len(body) > self._max_body:
                    raise TooLargeError(
                        f"the answer is larger than {self._max_body // 2**20} MiB",
                        advice="check that base_url is the API's address",
                    )
        except zlib.error as error:
            raise Retry(UnavailableError("the answer's compression is damaged")) from error
        return body

    def _answer(
        self, response: httpx.Response, data: bytearray, params: Params, records: Sequence[str]
    ) -> Answer:
        headers = {name.lower(): value for name, value in response.headers.items()}
        status = response.status_code
        body, problem = None, ""
        try:
            if status < 300:
                body = page(data, records)
            elif len(data) <= _MAX_REFUSAL:
                body = bounded(data)
            else:
                problem = (
                    f"{self.redact(data[:_QUOTED].decode(errors='replace'))} ({len(data)} bytes)"
                )
        except TooMuchError as error:
            problem = str(error)
            if status < 300:
                raise TooLargeError(
                    f"the answer is too much to be read: {problem}",
                    advice="check that base_url is the API's address",
                ) from None
        except ValueError as error:
            problem = self.redact(data[:_QUOTED].decode(errors="replace")) or "nothing"
            if status < 300:
                raise Retry(
                    ContractError(
                        f"HTTP {status}, but the answer is not JSON: {problem} ({error})",
                        advice="check base_url, and whether a proxy or a login page answers",
                    ),
                    attempts=3,
                ) from None
        said = self.redact(words(body)) or problem or "no message"
        wait = asked_wait(headers, self.now())
        return Answer(status, headers, body, said, wait, params, self.redact)

    def _refuse_redirect(self, response: httpx.Response) -> None:
        if not 300 <= response.status_code < 400:
            return
        try:
            host = response.request.url.join(response.headers.get("location", "")).host
        except (httpx.InvalidURL, ValueError):
            host = ""
        raise ContractError(
            f"HTTP {response.status_code}: unexpected redirect to {self._named(host)}",
            advice="it was not followed; set base_url to the API's own address",
        )

    def _tracking(self, headers: httpx.Headers) -> str:
        """The id under which the provider's support finds the request."""
        names = ("x-zm-trackingid", "twilio-request-id", "x-acs-request-id")
        ids = [(name, headers[name]) for name in names if _ID.fullmatch(headers.get(name, ""))]
        return "".join(f", {name} {self.redact.name(each)}" for name, each in ids)

    def _named(self, host: str) -> str:
        return _named(self.redact.name(host))

    def _no_answer(self, error: httpx.TransportError, host: str) -> Exception:
        final = no_answer(error, host, self._way, self._timeout, self.redact)
        return Retry(final) if isinstance(final, UnavailableError) else final

    def _spent(self, state: tenacity.RetryCallState) -> bool:
        verdict = _verdict(state)
        return (
            state.attempt_number >= (verdict.attempts or ATTEMPTS)
            or verdict.wait > MAX_ASKED_WAIT
            or self._clock() + verdict.wait >= self._until
            or self.retries >= RETRIES + self.requests * RETRY_SHARE
        )

    def _given_up(self, last: Retry, where: str, attempts: int) -> ProviderError:
        final = last.final
        where = final.where or where
        if last.wait > MAX_ASKED_WAIT:
            days = last.wait / 86400  # so long a number of seconds would be taken for a phone's
            asked = f"{last.wait:.0f} s" if days < 10 else f"{days:.0f} days"
            return UnavailableError(
                f"{final.what}; it asks to wait {asked}, so this run gives up",
                where=where,
                advice="run again after that time",
                wait=last.wait,
            )
        if self._clock() + last.wait >= self._until:
            late = self._too_late()
            return UnavailableError(f"{late.what}; {final.what}", where=where, advice=late.advice)
        if attempts < (last.attempts or ATTEMPTS):
            return UnavailableError(
                f"{final.what}; {self.retries} of the {self.requests} requests of this run were"
                " repeated ones, so it gives up",
                where=where,
                advice="try again later; when it throttles, lower the source's requests_per_second",
            )
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return type(final)(f"{final.what} ({tries})", where=where, advice=final.advice)

    def _too_late(self) -> UnavailableError:
        return UnavailableError(
            f"not done within {self._allowed:g} s",
            advice="nothing was removed; if the list is that long, raise the source's scan_deadline"
            " or requests_per_second; if not, the provider gives pages without end",
        )

    def _left(self) -> float:
        """Seconds until the deadline of the request under way."""
        left = self._deadline - self._clock()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left

    def _pause(self, seconds: float) -> None:
        self.throttled_seconds += seconds
        self._sleep(seconds)

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        self.retries += 1
        log.info("%s: %s; asking again", self.where, _verdict(state))


def _is_slow_down(said: str) -> bool:
    return _SLOW_DOWN.search(said.lower()) is not None


# --- verdicts that HTTP itself gives -------------------------------------------------------------
def judge_status(answer: Answer) -> None:
    """The verdict where the provider's own codes say nothing: by the HTTP status.

    408, 429, 5xx and what says that too much was asked for → Retry; 401 and 403 → CredentialsError;
    all else but 2xx → ContractError.
    """
    if 200 <= answer.status < 300:
        return
    if answer.status in (408, 429) or answer.status >= 500 or answer.slow_down:
        raise busy(answer)
    what = f"HTTP {answer.status}: {answer.said}"
    if answer.status in (401, 403):
        raise CredentialsError(what, advice="check the source's credentials and their permissions")
    raise ContractError(what, advice="check base_url and the source's settings")


def busy(answer: Answer) -> Retry:
    """The verdict on a throttled request (it waits a second at least) or a failing server."""
    if answer.wait is not None:
        wait = max(0.0, answer.wait)
    else:
        wait = 0.0 if answer.status >= 500 else 1.0
    return Retry(
        UnavailableError(
            f"HTTP {answer.status}: {answer.said}",
            advice="try again later; when it throttles, lower the source's requests_per_second",
        ),
        wait=wait,
    )


def asked_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that an answer asks to wait, None when it does not ask; never negative.

    `x-acs-retry-after` is milliseconds (as Alibaba's own SDK reads it). `retry-after` is seconds,
    an HTTP date, or an ISO 8601 instant (Zoom's daily limit); instants count from the answer's own
    Date, else from `now`. A number of more than twelve digits asks for nothing.
    """
    milliseconds = headers.get("x-acs-retry-after", "").strip()
    if _SECONDS.fullmatch(milliseconds):
        return max(0.0, float(milliseconds) / 1000)
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return max(0.0, float(text))
    until = instant(text)
    if until is None:
        return None
    return max(0.0, (until - (instant(headers.get("date", "")) or now)).total_seconds())


def instant(text: str) -> datetime | None:
    """An HTTP date or an ISO 8601 time in UTC, whatever zone it came in; without one it is UTC.

    None when it is neither, or lies outside of the years 1 to 9999 in UTC.
    """
    for parse in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            when = parse(text[:100])
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    return None


# --- URLs and headers ----------------------------------------------------------------------------
def encode(params: Params) -> str:
    """`params` as a query or form, percent-encoded after RFC 3986: a blank is %20, never +."""
    quote = urllib.parse.quote
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in params.items()
    )


def basic(user: str, password: str) -> str:
    """The Authorization header of HTTP Basic."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def same_origin(url: str, base_url: str, path: str, redact: Redactor | None = None) -> None:
    """Make sure that a URL taken from data leads to `path` under `base_url`, and nowhere else.

    It must be absolute, with the scheme, host and port of `base_url`, without user, password and
    fragment; only the query is free. Credentials go where a URL leads, so any doubt is a
    ContractError (CWE-918, server-side request forgery). `redact` is for the host in its message.
    """
    base = urllib.parse.urlsplit(base_url)
    try:
        # str.lower() maps some letters outside of ASCII into it, and urlsplit drops line breaks.
        plain = url.isascii() and not re.search(r"[\x00-\x20\x7f\\#]", url)
        parts = urllib.parse.urlsplit(url if plain else "")
        same = _place(parts) == _place(base) and "@" not in parts.netloc
        host = parts.hostname or ""
    except ValueError:
        same, host, parts = False, "", base
    if not same:
        raise ContractError(
            f"the next page is on another host ({_named((redact or Redactor()).name(host))})",
            advice="nothing was sent there; check base_url",
        )
    if parts.path != base.path.rstrip("/") + path:
        raise ContractError(
            "the next page is not on the path of the list",
            advice="nothing was sent there; check base_url",
        )


def _inflated(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """Unpack gzip in pieces of a mebibyte, as one chunk may unfold to a thousand times its size."""
    inflate = zlib.decompressobj(wbits=31)
    begun = False
    for chunk in chunks:
        begun, rest = True, chunk
        while rest:
            yield inflate.decompress(rest, _PIECE)
            rest = inflate.unconsumed_tail
            if inflate.eof and inflate.unused_data:  # gzip allows several members in a row
                rest, inflate = inflate.unused_data, zlib.decompressobj(wbits=31)
    if begun and not inflate.eof:
        raise Retry(UnavailableError("the answer broke off"))


def _place(parts: urllib.parse.SplitResult) -> tuple[str, str | None, int | None]:
    port = {"http": 80, "https": 443}.get(parts.scheme) if parts.port is None else parts.port
    return parts.scheme, parts.hostname, port


def _named(host: str) -> str:
    return re.sub(r"[^a-zA-Z0-9._:…-]", "?", host)[:100] or "a name that cannot be read"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def words(body: Any) -> str:
    """The words of an error envelope, as they came; "" where there are none.

    Zoom and Twilio say `message`, Alibaba `Message`, OAuth `reason` and `error`. No more of them is
    given than is looked at.
    """
    if isinstance(body, dict):
        for name in ("message", "Message", "reason", "error"):
            if isinstance(said := body.get(name), str) and (said := said[:_QUOTED]).strip():
                return said
    return ""


def no_answer(
    error: httpx.TransportError, host: str, way: Way, timeout: float, redact: Redactor
) -> UnavailableError | ProviderError:
    """What it means that `host` gave no whole answer: UnavailableError where it may do so later."""
    causes = list(_causes(error))
    target = f"the proxy {way.proxy}" if way.proxy else host
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CredentialsError(
                f"the certificate of {way.peer or host} cannot be verified: "
                f"{redact.name(cause.verify_message)}",
                advice="check this machine's clock; if TLS is inspected on the way, set"
                " network.ca_file to the certificate of the authority that does it",
            )
    if isinstance(error, httpx.ProxyError):
        return proxy_refusal(error, way.proxy, host)
    reached = not isinstance(error, httpx.ConnectError)
    advice = "check base_url and the network"
    if way.proxy:
        advice = "check network.proxy, and whether the proxy runs"
    elif not reached or isinstance(error, httpx.TimeoutException):
        advice += "; if this machine reaches the internet only through a proxy, set network.proxy"
    errors = [cause for cause in causes if isinstance(cause, OSError)]
    if isinstance(error, httpx.TimeoutException):
        what = f"no complete answer from {host} within {timeout:g} s"
        advice = f"try again later, or raise the source's timeout; {advice}"
    elif any(isinstance(cause, socket.gaierror) for cause in causes):
        what = f"cannot resolve {target}"
    elif any(isinstance(cause, ssl.SSLError) for cause in errors):
        what = f"no TLS connection to {way.peer or host}: {redact(_reason(errors))}"
    elif not reached:
        what = f"cannot connect to {target}: {redact(_reason(errors))}"
    else:
        what = f"the answer of {host} broke off"
    advice = next(filter(None, map(out_of_files, errors)), advice)
    return UnavailableError(what, advice=advice)


def _reason(errors: Sequence[OSError]) -> str:
    reasons = [each.strerror for each in errors if each.strerror]
    return reasons[-1] if reasons else "refused"


def _bad_header() -> CredentialsError:
    return CredentialsError(
        "the credentials hold characters that no HTTP header may hold",
        advice="look for line breaks and characters outside of ASCII",
    )


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _let_go(error: BaseException) -> None:
    """Free what the frames held that `error` came through: the answer, which may be large."""
    for each in _causes(error):
        traceback.clear_frames(each.__traceback__)


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


# --- retries -------------------------------------------------------------------------------------
def _verdict(state: tenacity.RetryCallState) -> Retry:
    verdict = state.outcome.exception() if state.outcome else None
    assert isinstance(verdict, Retry)
    return verdict


def _pause_before(state: tenacity.RetryCallState) -> float:
    verdict = _verdict(state)
    return verdict.wait + (_JITTER(state) if verdict.backoff else 0.0)
