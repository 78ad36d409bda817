"""What it means that a provider, or a proxy on the way to it, gave no whole answer."""

import re
import socket
import ssl
from collections.abc import Iterable, Sequence

import httpx

from etl.config.redact import Redactor
from etl.errors import ContractError, CredentialsError, ProviderError, UnavailableError
from etl.extract.route import Way, out_of_files


def no_answer(
    error: httpx.TransportError, host: str, way: Way, timeout: float, redact: Redactor
) -> ProviderError:
    """Explain why `host` gave no whole answer: UnavailableError if it may give one later."""
    errors = list(causes(error))
    for cause in errors:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CredentialsError(
                f"the certificate of {way.peer or host} cannot be verified: "
                f"{redact.name(cause.verify_message)}",
                advice="check this machine's clock; if TLS is inspected on the way, set"
                " network.ca_file to the certificate of the authority that does it",
            )
    if isinstance(error, httpx.ProxyError):
        return _proxy_refusal(error, way.proxy, host)
    of_system = [cause for cause in errors if isinstance(cause, OSError)]
    advice = next(filter(None, map(out_of_files, of_system)), _advice(error, way))
    return UnavailableError(_what(error, of_system, host, way, timeout, redact), advice=advice)


def _what(
    error: httpx.TransportError,
    errors: Sequence[OSError],
    host: str,
    way: Way,
    timeout: float,
    redact: Redactor,
) -> str:
    target = f"the proxy {way.proxy}" if way.proxy else host
    if isinstance(error, httpx.TimeoutException):
        return f"no complete answer from {host} within {timeout:g} s"
    if any(isinstance(cause, socket.gaierror) for cause in errors):
        return f"cannot resolve {target}"
    if any(isinstance(cause, ssl.SSLError) for cause in errors):
        return f"no TLS connection to {way.peer or host}: {redact(_reason(errors))}"
    if isinstance(error, httpx.ConnectError):
        return f"cannot connect to {target}: {redact(_reason(errors))}"
    return f"the answer of {host} broke off"


def _advice(error: httpx.TransportError, way: Way) -> str:
    late = isinstance(error, httpx.TimeoutException)
    advice = "check base_url and the network"
    if way.proxy:
        advice = "check network.proxy, and whether the proxy runs"
    elif late or isinstance(error, httpx.ConnectError):
        advice += "; if this machine reaches the internet only through a proxy, set network.proxy"
    return f"try again later, or raise the source's timeout; {advice}" if late else advice


def _reason(errors: Sequence[OSError]) -> str:
    reasons = [each.strerror for each in errors if each.strerror]
    return reasons[-1] if reasons else "refused"


def causes(error: BaseException | None) -> Iterable[BaseException]:
    """Yield `error` and what it came from, one after the other."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _proxy_refusal(error: httpx.ProxyError, proxy: str, host: str) -> ProviderError:
    """Explain why `proxy` answered CONNECT with anything but 2xx; its own text is not quoted."""
    number = re.match(r"\d{3}", str(error))
    status = int(number[0]) if number else 0
    said = f"the proxy {proxy} answered HTTP {status}" if status else f"the proxy {proxy} failed"
    if status == 407:
        return CredentialsError(
            f"{said}: it wants a user and a password, or others",
            advice="put them into network.proxy: http://user:password@host:port",
        )
    if status in (401, 403, 451):
        return CredentialsError(
            f"{said}: it does not let callflow reach {host}",
            advice=f"ask whoever runs the proxy to permit CONNECT to {host}",
        )
    if status in (408, 429) or status >= 500:
        return UnavailableError(
            f"{said}: it cannot reach {host}",
            advice="try again later; if it stays, ask whoever runs the proxy",
        )
    return ContractError(
        f"{said} where a proxy connects to {host}",
        advice="check that network.proxy is the address of an HTTP proxy that permits CONNECT",
    )
