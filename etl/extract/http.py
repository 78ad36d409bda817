"""The only way to the network: every request to a provider passes through an `Http`.

It knows HTTP (deadlines, retries, pacing, size limits, redirects) and JSON, and no provider. The
extractor hands in the `judge` that says what an answer means, and the `sign` that authenticates
requests. No message made here shows a header, a query or a body as it was: all pass the `Redactor`.
"""

import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpcore
import httpx

from etl.config.redact import Redactor
from etl.errors import ContractError, CredentialsError, ProviderError, Retry, UnavailableError
from etl.extract.budget import Budget
from etl.extract.clock import utc_now
from etl.extract.decode import NO_RECORDS, RecordsAt
from etl.extract.failure import causes, no_answer
from etl.extract.page import Params
from etl.extract.receive import read_answer, read_body
from etl.extract.route import DIRECT, Route, Way
from etl.extract.url import encode, printable
from etl.extract.verdict import Judge

MAX_BODY = 32 * 1024 * 1024
"""Bytes of one answer, after decompression."""

log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines hold whole URLs

_ID = re.compile(r"[A-Za-z0-9_.;:=,/+-]{1,100}")

Sign = Callable[[str, str, bytes], Mapping[str, str]]
"""(method, whole URL as it will be sent, body) → headers; called again for every attempt."""


@dataclass(frozen=True, slots=True)
class Seam:
    """What every connection of one run is made with.

    `where`   names the run in messages: "source.stream".
    `timeout` seconds for a whole request, from connecting to the last byte.
    `redact`  cleans what messages quote; it learns the tokens that a provider issues.
    `clock`   monotonic seconds; `now` the wall clock, aware, in UTC.
    `budget`  what all requests of the run are paid from; None: each connection has its own.
    `request_id` the header of an answer by which the provider's support finds the request.
    `setting` the key of the source's settings that holds the address; messages name it.
    """

    where: str
    timeout: float = 30.0
    redact: Redactor = field(default_factory=Redactor)
    route: Route = DIRECT
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = utc_now
    request_id: str = "x-request-id"
    setting: str = "base_url"
    budget: Budget | None = None


class Http:
    """The requests of one run of one stream: one kept-alive connection to one origin.

    `base_url` is the only origin that this object ever sends anything to. `requests_per_second`
    spaces the requests evenly; 0 does not space them. Proxies, certificates and netrc of the
    environment are ignored, redirects are not followed.

    All requests are paid from one `budget`, which also bounds their time; those for access tokens
    too. An Http must not be used by two threads at once.
    """

    def __init__(
        self,
        base_url: str,
        seam: Seam,
        *,
        sign: Sign,
        judge: Judge,
        requests_per_second: float = 0.0,
        max_body: int = MAX_BODY,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.where = seam.where
        self.setting = seam.setting
        self.redact = seam.redact
        self.now = seam.now
        self.sign = sign
        self.budget = seam.budget or Budget(seam.clock, seam.sleep)
        self._judge = judge
        self._timeout = seam.timeout
        self._spacing = 1 / requests_per_second if requests_per_second else 0.0
        self._clock = seam.clock
        self._id_header = seam.request_id
        self._max_body = max_body
        self._closed = False
        self._under_way = threading.Lock()
        self._next_start = self._deadline = seam.clock()
        self._origin = _origin(httpx.URL(self.base_url))
        self._way = Way(httpx.URL(self.base_url), seam.route, self._left)
        self._client = httpx.Client(
            transport=self._way.transport,
            trust_env=False,
            follow_redirects=False,
            timeout=seam.timeout,
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
        """Close the connection; of a request that is under way in another thread, when it ends."""
        self._closed = True
        # A connection that is being made is nowhere to be found until it is there.
        if self._under_way.acquire(blocking=False):
            try:
                self._client.close()
            finally:
                self._under_way.release()

    def call(
        self,
        method: str,
        target: str,
        params: Params | None = None,
        form: Params | None = None,
        *,
        at: str = "",
        records: RecordsAt = NO_RECORDS,
    ) -> dict[str, Any]:
        """Send a request until a good answer comes, and return its JSON object.

        `target` is a path under `base_url`, or an absolute URL of the same origin, which is sent
        as it is. `form` goes into the body, URL-encoded. `at` says in messages what was asked for
        ("page 3"). `records` says where the records are; each of them may be a `decode.Packed`: see
        `decode.page`. Retries are made here and nowhere else: at most 6
        attempts with full-jitter back-off, after whatever wait the provider asks for, out of the
        budget of the whole run.

        Raise what the judge raises; UnavailableError if the attempts, the budget or the time are
        spent, or the provider asks for more than 60 s; CredentialsError for a certificate that
        cannot be verified; ContractError for a redirect, an answer that is too large, or one that
        is not a JSON object.
        """
        where = f"{self.where}, {at}" if at else self.where
        retrying = self.budget.retrying(where)
        try:
            url = self._url(target, params)
            body = encode(form).encode() if form is not None else b""
            answer = retrying(self._attempt, method, url, body, params or {}, records)
        except Retry as last:
            _let_go(last)
            attempts = retrying.statistics["attempt_number"]
            final = self.with_setting(self.budget.given_up(last, where, attempts))
            raise final from last.__cause__
        except ProviderError as error:
            _let_go(error)
            error.where = error.where or where
            self.with_setting(error)
            raise
        if not isinstance(answer, dict):
            raise ContractError(
                f"the answer is a JSON {_json_type(answer)}, not an object",
                where=where,
                advice=f"check that {self.setting} is the API's address",
            )
        return answer

    def with_setting(self, error: ProviderError) -> ProviderError:
        """Let the advice of `error`, which says base_url, name the setting of this address."""
        error.advice = error.advice.replace("base_url", self.setting)
        return error

    def _url(self, target: str, params: Params | None) -> str:
        url = self.base_url + target if target[:1] in ("", "/") else target
        try:
            return f"{url}?{encode(params)}" if params else url
        except UnicodeError:
            raise ContractError("a query parameter holds half a surrogate pair") from None

    def _attempt(
        self, method: str, url: str, body: bytes, params: Params, records: RecordsAt
    ) -> Any:
        request = self._request(method, url, body)
        started = self._clock()
        if started >= self.budget.until:
            raise self.budget.too_late()
        self.budget.requests += 1
        self._deadline = min(started + self._timeout, self.budget.until)
        try:
            with self._under_way:
                response = self._client.send(request, stream=True)
                try:
                    data = read_body(response, self._max_body)
                finally:
                    response.close()
            self.budget.received += len(data)
        except httpx.LocalProtocolError:
            # from None: the text of this one quotes the header, which may be the secret
            raise _bad_header() from None
        except httpx.TransportError as error:
            raise self._no_answer(error, request.url.netloc.decode()) from error
        finally:
            if self._closed:  # meanwhile, which left it to this thread
                self._client.close()
        log.debug(
            "%s: %s %s → HTTP %d, %d bytes in %.3f s%s",
            self.where,
            method,
            request.url.path,
            response.status_code,
            len(data),
            self._clock() - started,
            self._request_id(response.headers),
        )
        answer = read_answer(response, data, params, records, self.redact, self.now())
        self._judge(answer)
        return answer.body

    def _request(self, method: str, url: str, body: bytes) -> httpx.Request:
        pause = self._next_start - self._clock()
        if self._spacing and pause > 0:
            self.budget.pause(pause)
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

    def _request_id(self, headers: httpx.Headers) -> str:
        """Return the id by which the provider's support finds the request, for the log."""
        name = self._id_header
        found = headers.get(name, "")
        return f", {name} {self.redact.name(found)}" if _ID.fullmatch(found) else ""

    def _named(self, host: str) -> str:
        return printable(self.redact.name(host))

    def _no_answer(self, error: httpx.TransportError, host: str) -> Exception:
        final = no_answer(error, host, self._way, self._timeout, self.redact)
        return Retry(final) if isinstance(final, UnavailableError) else final

    def _left(self) -> float:
        """Return the seconds until the deadline of the request under way."""
        left = self._deadline - self._clock()
        if left <= 0 or self._closed:
            raise httpcore.ReadTimeout
        return left


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _bad_header() -> CredentialsError:
    return CredentialsError(
        "the credentials hold characters that no HTTP header may hold",
        advice="look for line breaks and characters outside of ASCII",
    )


def _let_go(error: BaseException) -> None:
    """Free what the frames that `error` passed through hold: the answer, which may be large."""
    for each in causes(error):
        traceback.clear_frames(each.__traceback__)


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
