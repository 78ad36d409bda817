"""The one seam to the network: every request to a provider passes through an `Http`.

It knows HTTP (deadlines, retries, pacing, size limits, redirects) and JSON, and no provider. What
an answer means is said by the `judge` that the extractor hands in; who asks, by its `sign`.
No message made here holds a header, a query or a body as it was: `excerpt` cleans what is quoted.
"""

import base64
import email.utils
import json
import logging
import re
import socket
import ssl
import time
import traceback
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpcore
import httpx
import tenacity

from etl.decode import TooMuchError, bounded, page
from etl.errors import (
    ContractError,
    CredentialsError,
    ProviderError,
    UnavailableError,
)
from etl.model import Params

MAX_BODY = 32 * 1024 * 1024
"""Bytes of one answer, after decompression."""
_MAX_REFUSAL = 1024 * 1024  # bytes of an answer that is not 2xx and read as JSON
_PIECE = 1024 * 1024
ATTEMPTS = 6
MAX_ASKED_WAIT = 60.0
"""Seconds that a provider may ask us to wait; beyond it the run ends and says so."""

log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines hold whole URLs

_JITTER = tenacity.wait_random_exponential(multiplier=0.5, max=30)
_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_PRIVATE = re.compile(
    r"\w+://[^\s\"'<>]+"  # URLs: the query may hold a token, the host a password
    r"|[^\s@\"'<>:,]+@[^\s@\"'<>,]+"  # mail addresses
    r"|[A-Za-z0-9_+/=%~.-]{24,}"  # tokens, signatures, keys
    r"|\+?\d[\d\s().*-]{5,}\d"  # phone numbers
)
_SECONDS = re.compile(r"[+-]?\d{1,12}(\.\d*)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer of a provider, for its judge.

    `body`   decoded JSON; None when it is not JSON (only where `status` is not 2xx).
    `said`   the provider's own words, cleaned and cut: fit for a message.
    `wait`   seconds that it asks to wait before the next request; None when it does not ask.
    `params` the query parameters of the request.
    `headers` by lower-case name.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    said: str
    wait: float | None
    params: Params


class Retry(Exception):  # noqa: N818 - it is a verdict, and never leaves this seam
    """Ask again: the verdict of a judge on an answer that may be better next time.

    `final`    is raised instead when the attempts are spent.
    `wait`     seconds to wait at least.
    `backoff`  False: ask again at once.
    `attempts` how many requests in all.
    """

    def __init__(
        self,
        final: ProviderError,
        *,
        wait: float = 0.0,
        backoff: bool = True,
        attempts: int = ATTEMPTS,
    ) -> None:
        super().__init__(final.what)
        self.final = final
        self.wait = wait
        self.backoff = backoff
        self.attempts = attempts


class MissingError(ContractError):
    """The provider's own definite answer that what was asked for does not exist."""


Judge = Callable[[Answer], None]
"""Returns for an answer that is good; raises `Retry` or a ProviderError for any other."""
Sign = Callable[[str, str, bytes], Mapping[str, str]]
"""(method, whole URL as it will be sent, body) → headers; called afresh for every attempt."""


def utc_now() -> datetime:
    """The wall clock, as an aware time in UTC."""
    return datetime.now(UTC)


class Http:
    """The requests of one run of one stream: one kept-alive connection to one origin.

    `base_url` is the only origin that this object ever talks to. `where` names the stream in
    messages. `timeout` is seconds for a whole request, from connecting to the last byte.
    `requests_per_second` spaces the requests evenly; 0 does not. Proxies, certificates and netrc
    of the environment are ignored, redirects are not followed.

    `requests`, `retries` count since the start; `throttled_seconds` is the time slept for pacing,
    back-off and waits that the provider asked for. Not for two threads at once.
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
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = utc_now,
        max_body: int = MAX_BODY,
    ) -> None:
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
        self._origin = _origin(httpx.URL(self.base_url))
        # Loading the authorities takes longer than a page; plain HTTP trusts nobody and needs none.
        tls = self.base_url.startswith("https:") or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.HTTPTransport(verify=tls, trust_env=False)
        # httpx has timeouts per read only, and one byte a second never meets them.
        transport._pool._network_backend = _DeadlineBackend(self._left)
        self._client = httpx.Client(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout,
            event_hooks={"response": [_refuse_redirect]},
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
        attempts with full-jitter back-off, after whatever wait the provider asks for.

        Raises what the judge raises; UnavailableError when the attempts are spent, or the provider
        asks for more than 60 s; CredentialsError for a certificate that cannot be verified;
        ContractError for a redirect, an answer that is too large or not a JSON object.
        """
        where = f"{self.where}, {at}" if at else self.where
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retry),
            stop=_spent,
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
            raise _given_up(last, where, retrying.statistics["attempt_number"]) from last.__cause__
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
        self.requests += 1
        started = self._clock()
        self._deadline = started + self._timeout
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
            _tracking(response.headers),
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
                f"the URL belongs to another host ({_named(request.url.host)})",
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
                    raise ContractError(
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
                problem = f"{len(data)} bytes"
        except TooMuchError as error:
            problem = str(error)
            if status < 300:
                raise ContractError(
                    f"the answer is too much to be read: {problem}",
                    advice="check that base_url is the API's address",
                ) from None
        except ValueError as error:
            problem = excerpt(data[:4000].decode(errors="replace")) or "nothing"
            if status < 300:
                raise Retry(
                    ContractError(
                        f"HTTP {status}, but the answer is not JSON: {problem} ({error})",
                        advice="check base_url, and whether a proxy or a login page answers",
                    ),
                    attempts=3,
                ) from None
        return Answer(
            status, headers, body, _said(body, problem), asked_wait(headers, self.now()), params
        )

    def _no_answer(self, error: httpx.TransportError, host: str) -> Exception:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return CredentialsError(
                    f"the certificate of {host} cannot be verified: {cause.verify_message}",
                    advice="check this machine's clock, and what intercepts TLS on the way",
                )
        advice = "check base_url and the network"
        if isinstance(error, httpx.TimeoutException):
            what = f"no complete answer from {host} within {self._timeout:g} s"
            advice = "try again later, or raise the source's timeout"
        elif any(isinstance(cause, socket.gaierror) for cause in causes):
            what = f"cannot resolve {host}"
        elif isinstance(error, httpx.ConnectError):
            reasons = [c.strerror for c in causes if isinstance(c, OSError) and c.strerror]
            what = f"cannot connect to {host}: {excerpt(reasons[-1] if reasons else 'refused')}"
        else:
            what = f"the answer of {host} broke off"
        return Retry(UnavailableError(what, advice=advice))

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


# --- verdicts that HTTP itself gives -------------------------------------------------------------
def judge_status(answer: Answer) -> None:
    """The verdict where the provider's own codes say nothing: by the HTTP status.

    408, 429 and 5xx → Retry; 401 and 403 → CredentialsError; all else but 2xx → ContractError.
    """
    if 200 <= answer.status < 300:
        return
    if answer.status in (408, 429) or answer.status >= 500:
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
    Date, else from `now`.
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
    """An HTTP date or an ISO 8601 time as an aware time; without a zone it is UTC."""
    for parse in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            when = parse(text)
        except (ValueError, TypeError, IndexError):
            continue
        return when if when.tzinfo else when.replace(tzinfo=UTC)
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


def same_origin(url: str, base_url: str, path: str) -> None:
    """Make sure that a URL taken from data leads to `path` under `base_url`, and nowhere else.

    It must be absolute, with the scheme, host and port of `base_url`, without user, password and
    fragment; only the query is free. Credentials go where a URL leads, so any doubt is a
    ContractError (CWE-918, server-side request forgery).
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
            f"the next page is on another host ({_named(host)})",
            advice="nothing was sent there; check base_url",
        )
    if parts.path != base.path.rstrip("/") + path:
        raise ContractError(
            "the next page is not on the path of the list",
            advice="nothing was sent there; check base_url",
        )


def excerpt(text: str, limit: int = 200) -> str:
    """`text` for a message: one line, no markup, at most `limit` characters.

    What may be personal or secret (mail addresses, phone numbers, long tokens) becomes "…".
    """
    text = _MARKUP.sub(" ", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(_PRIVATE.sub("…", text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


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
    return re.sub(r"[^a-zA-Z0-9._:-]", "?", host)[:100] or "which cannot be read"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _said(body: Any, problem: str) -> str:
    """The words of an error envelope: Zoom and Twilio say `message`, Alibaba `Message`."""
    if isinstance(body, dict):
        for name in ("message", "Message", "reason", "error"):
            if isinstance(words := body.get(name), str) and words.strip():
                return excerpt(words)
        return "no message"
    return problem or "no message"


def _refuse_redirect(response: httpx.Response) -> None:
    if not 300 <= response.status_code < 400:
        return
    try:
        host = response.request.url.join(response.headers.get("location", "")).host
    except httpx.InvalidURL:
        host = ""
    raise ContractError(
        f"HTTP {response.status_code}: unexpected redirect to {_named(host)}",
        advice="it was not followed; set base_url to the API's own address",
    )


def _bad_header() -> CredentialsError:
    return CredentialsError(
        "the credentials hold characters that no HTTP header may hold",
        advice="look for line breaks and characters outside of ASCII",
    )


def _tracking(headers: httpx.Headers) -> str:
    """The id under which the provider's support finds the request."""
    names = ("x-zm-trackingid", "twilio-request-id", "x-acs-request-id")
    return "".join(f", {name} {headers[name]}" for name in names if name in headers)


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


def _spent(state: tenacity.RetryCallState) -> bool:
    verdict = _verdict(state)
    return state.attempt_number >= verdict.attempts or verdict.wait > MAX_ASKED_WAIT


def _pause_before(state: tenacity.RetryCallState) -> float:
    verdict = _verdict(state)
    return verdict.wait + (_JITTER(state) if verdict.backoff else 0.0)


def _given_up(last: Retry, where: str, attempts: int) -> ProviderError:
    final = last.final
    if last.wait > MAX_ASKED_WAIT:
        return UnavailableError(
            f"{final.what}; it asks to wait {last.wait:.0f} s, so this run gives up",
            where=final.where or where,
            advice="run again after that time",
            wait=last.wait,
        )
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return type(final)(f"{final.what} ({tries})", where=final.where or where, advice=final.advice)


class _DeadlineStream(httpcore.NetworkStream):
    """A connection on which each wait ends at the deadline of the whole request."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._left())
        return _DeadlineStream(stream, self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _DeadlineBackend(httpcore.SyncBackend):
    def __init__(self, left: Callable[[], float]) -> None:
        self._left = left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, self._left(), local_address, socket_options)
        return _DeadlineStream(stream, self._left)


# --- webhooks ------------------------------------------------------------------------------------
def post_json(
    url: str,
    body: Any,
    *,
    timeout: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """POST `body` as JSON to `url`, once. Any 2xx is good; redirects are not followed.

    `timeout` is seconds for all of it. Proxies, certificates and netrc of the environment are
    ignored. Raises UnavailableError where it may work later: no answer in time, 408, 429 and 5xx;
    else ContractError. As `url` is a secret, they name its host only, and quote the answer only
    where it is one word ("no_service"): many servers repeat the path.
    """
    deadline = clock() + timeout

    def left() -> float:
        if (seconds := deadline - clock()) <= 0:
            raise httpcore.ReadTimeout
        return seconds

    try:
        target = httpx.URL(url)
    except httpx.InvalidURL:
        raise ContractError("the webhook's URL cannot be requested") from None
    host = _named(target.host)
    tls = target.scheme == "https" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.HTTPTransport(verify=tls, trust_env=False)
    transport._pool._network_backend = _DeadlineBackend(left)
    headers = {
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "callflow",
    }
    said = ""
    try:
        with (
            httpx.Client(transport=transport, trust_env=False, timeout=timeout) as client,
            client.stream(
                "POST", target, content=json.dumps(body).encode(), headers=headers
            ) as response,
        ):
            status = response.status_code
            if not response.is_success:
                said = next(response.iter_raw(), b"")[:100].decode(errors="replace").strip()
    except httpx.TransportError as error:
        raise UnavailableError(
            _unreached(error, host, timeout), advice="check the network, and the webhook's URL"
        ) from None
    if 200 <= status < 300:
        return
    word = f": {said}" if re.fullmatch("[a-z_]{3,40}", said) and said not in url else ""
    what = f"the webhook at {host} answered HTTP {status}{word}"
    if status in (408, 429) or status >= 500:
        raise UnavailableError(what, advice="nothing; it is sent again later")
    raise ContractError(what, advice="check the webhook's URL, and whether it is still there")


def _unreached(error: httpx.TransportError, host: str, timeout: float) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of {host} cannot be verified: {cause.verify_message}"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer of the webhook at {host} within {timeout:g} s"
    return f"the webhook at {host} cannot be reached"
