"""Alibaba Cloud's request signature, version 3: ACS3-HMAC-SHA256.

The rules are those of Alibaba Cloud's docs, "V3 request structure and signature".
"""

import hashlib
import hmac
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from etl.extract.clock import utc_now
from etl.extract.page import Params
from etl.extract.url import encode

_ALGORITHM = "ACS3-HMAC-SHA256"
_VERSION = "2020-07-01"


def canonical_query(params: Params) -> str:
    """Encode `params` sorted by name, names and values percent-encoded by RFC 3986."""
    return encode(dict(sorted(params.items())))


def signature(
    method: str, params: Params, headers: Mapping[str, str], body_hash: str, secret: str
) -> tuple[str, str]:
    """Return the names of the signed headers (joined by ";") and the signature (lower-case hex).

    `host`, `content-type` and `x-acs-*` of `headers` are signed; their names are in lower case.
    `body_hash` is the lower-case hex SHA-256 of the body. The path is "/", as for every RPC API.
    """
    signed = {
        name: headers[name].strip()
        for name in sorted(headers)
        if name in ("host", "content-type") or name.startswith("x-acs-")
    }
    names = ";".join(signed)
    canonical = "\n".join(
        [
            method,
            "/",
            canonical_query(params),
            "".join(f"{name}:{value}\n" for name, value in signed.items()),
            names,
            body_hash,
        ]
    )
    to_sign = f"{_ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return names, hmac.new(secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()


class Signer:
    """Signs requests: each call makes headers with a new nonce and the current time (UTC).

    `action` is the API's name of the request. `security_token` belongs to temporary (STS) keys.
    """

    def __init__(
        self,
        access_key_id: str,
        access_key_secret: str,
        security_token: str | None,
        action: str,
        *,
        now: Callable[[], datetime] = utc_now,
        nonce: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._access_key_id = access_key_id
        self._access_key_secret = access_key_secret
        self._security_token = security_token
        self._action = action
        self._now = now
        self._nonce = nonce

    def __call__(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers for `url`, whose query must be encoded as `url.encode` does it."""
        parts = urllib.parse.urlsplit(url)
        pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
        unquote = urllib.parse.unquote
        params = {unquote(name): unquote(value) for name, _, value in pairs}
        body_hash = hashlib.sha256(body).hexdigest()
        headers = {
            "host": parts.netloc,
            "x-acs-action": self._action,
            "x-acs-content-sha256": body_hash,
            "x-acs-date": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": self._nonce(),
            "x-acs-version": _VERSION,
        }
        if self._security_token:
            headers["x-acs-security-token"] = self._security_token
        names, digest = signature(method, params, headers, body_hash, self._access_key_secret)
        return headers | {
            "authorization": f"{_ALGORITHM} Credential={self._access_key_id},"
            f"SignedHeaders={names},Signature={digest}"
        }
