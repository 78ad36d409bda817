"""Requests to a webhook: one POST, one deadline, and errors that do not give its URL away."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpcore
import httpx

from etl.config.redact import Redactor
from etl.errors import ContractError, UnavailableError
from etl.extract.failure import no_answer
from etl.extract.route import DIRECT, Route, Way

_HEADERS = {
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "callflow",
}
_WORD = re.compile("[a-z_]{3,40}")


def post_json(
    url: str,
    body: Any,
    *,
    route: Route = DIRECT,
    timeout: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    redact: Redactor | None = None,
) -> None:
    """POST `body` as JSON to `url`, once, by `route`. Any 2xx is good; no redirect is followed.

    The whole request may take `timeout` seconds. Proxies, certificates and netrc of the environment
    are ignored.

    Raises UnavailableError where it may work later: no answer in time, 408, 429 and 5xx; otherwise
    ContractError. `url` is a secret, so they name only its host, and quote the answer only if it is
    one word ("no_service"), because many servers repeat the path.
    """
    redact = redact or Redactor()
    deadline = clock() + timeout

    def left() -> float:
        if (seconds := deadline - clock()) <= 0:
            raise httpcore.ReadTimeout
        return seconds

    try:
        target = httpx.URL(url)
    except httpx.InvalidURL:
        raise ContractError("the webhook's URL cannot be requested") from None
    host = redact.name(target.host) or "a name that cannot be read"
    way = Way(target, route, left)
    try:
        status, said = _post(way, target, json.dumps(body).encode(), timeout)
    except httpx.TransportError as error:
        raise _unreached(error, host, way, timeout, redact) from None
    if 200 <= status < 300:
        return
    word = f": {redact(said)}" if _WORD.fullmatch(said) and said not in url else ""
    what = f"the webhook at {host} answered HTTP {status}{word}"
    if status in (408, 429) or status >= 500:
        raise UnavailableError(what, advice="nothing; it is sent again later")
    raise ContractError(what, advice="check the webhook's URL, and whether it is still there")


def _post(way: Way, target: httpx.URL, content: bytes, timeout: float) -> tuple[int, str]:
    """Return the status, and the first characters of an answer that is not 2xx."""
    with (
        httpx.Client(transport=way.transport, trust_env=False, timeout=timeout) as client,
        client.stream("POST", target, content=content, headers=_HEADERS) as response,
    ):
        if response.is_success:
            return response.status_code, ""
        said = next(response.iter_raw(), b"")[:100].decode(errors="replace").strip()
        return response.status_code, said


def _unreached(
    error: httpx.TransportError, host: str, way: Way, timeout: float, redact: Redactor
) -> UnavailableError:
    found = no_answer(error, host, way, timeout, redact)
    what = f"the webhook at {host} cannot be reached"
    if isinstance(error, httpx.TimeoutException):
        what = f"no answer of the webhook at {host} within {timeout:g} s"
    elif way.proxy or not isinstance(found, UnavailableError):
        what += f": {found.what}"
    advice = found.advice.replace("base_url", "the webhook's URL")
    return UnavailableError(what, advice=advice.replace("or raise the source's timeout; ", ""))
