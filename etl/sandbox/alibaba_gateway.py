"""Alibaba's gateway: who sent a request, and whether its signature, clock and nonce are in order.

What a signature is computed from is in `signature.py`.
"""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from etl.sandbox import signature
from etl.sandbox.exchange import Request

MUST_BE_SIGNED = frozenset(
    {
        "host",
        "x-acs-action",
        "x-acs-content-sha256",
        "x-acs-date",
        "x-acs-signature-nonce",
        "x-acs-version",
    }
)
"""Headers that a V3 signature must cover to prove anything."""

_AUTHORIZATION = re.compile(
    r"ACS3-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key pair; with `security_token` a temporary one (STS), valid until `expires_at`.

    `expires_at` is in seconds since 1970 UTC.
    """

    secret: str
    security_token: str | None = None
    expires_at: float = float("inf")
    active: bool = True


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request claims about itself, in either signature version."""

    version: str
    action: str
    access_key_id: str
    nonce: str
    date: str
    max_age: timedelta
    security_token: str | None
    signature: str
    string_to_sign: str
    sign: Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request was refused: HTTP status, code and message of the error body."""

    status: int
    code: str
    message: str


def missing(name: str) -> Refused:
    """Refuse a request without a mandatory parameter."""
    return Refused(400, f"Missing{name}", f"{name} is mandatory for this action.")


def parameters_of(request: Request) -> list[tuple[str, str]]:
    """Return the parameters of the query and of a form, in the order sent."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form: list[tuple[str, str]] = []
    if kind == "application/x-www-form-urlencoded":
        form = parse_qsl(request.body.decode("latin-1"), keep_blank_values=True)
    return request.query + form


def read(request: Request, given: list[tuple[str, str]]) -> Signed | Refused:
    """Read what the request claims; a request without `authorization` is signed as V1."""
    return _read_v3(request) or _read_v1(request, given)


_NOT_SIGNED = Refused(
    400, "IncompleteSignature", "The request signature does not conform to Aliyun standards."
)


def _read_v3(request: Request) -> Signed | Refused | None:
    headers = request.headers
    authorization = headers.get("authorization")
    if authorization is None:
        return None
    parts = _AUTHORIZATION.fullmatch(authorization)
    names = frozenset(parts[2].split(";")) if parts else frozenset()
    if parts is None or not MUST_BE_SIGNED <= names <= headers.keys():
        return _NOT_SIGNED
    token = headers.get("x-acs-security-token")
    if token is not None and "x-acs-security-token" not in names:
        return _NOT_SIGNED
    return Signed(
        version=headers["x-acs-version"],
        action=headers["x-acs-action"],
        access_key_id=parts[1],
        nonce=headers["x-acs-signature-nonce"],
        date=headers["x-acs-date"],
        max_age=timedelta(minutes=15),
        security_token=token,
        signature=parts[3],
        string_to_sign=signature.v3_string_to_sign(
            request.method, request.query, headers, names, request.body
        ),
        sign=signature.v3_signature,
    )


def _read_v1(request: Request, given: list[tuple[str, str]]) -> Signed | Refused:
    named = dict(given)
    for name in (
        "AccessKeyId",
        "Action",
        "Version",
        "Timestamp",
        "SignatureNonce",
        "SignatureMethod",
        "SignatureVersion",
        "Signature",
    ):
        if not named.get(name):
            return missing(name)
    if (named["SignatureMethod"], named["SignatureVersion"]) != ("HMAC-SHA1", "1.0"):
        return _NOT_SIGNED
    if named.get("Format", "XML").upper() != "JSON":
        text = "The sandbox answers in JSON only: send Format=JSON (the service's default is XML)."
        return Refused(400, "InvalidParameter.Format", text)
    return Signed(
        version=named["Version"],
        action=named["Action"],
        access_key_id=named["AccessKeyId"],
        nonce=named["SignatureNonce"],
        date=named["Timestamp"],
        max_age=timedelta(minutes=31),
        security_token=named.get("SecurityToken"),
        signature=named["Signature"],
        string_to_sign=signature.v1_string_to_sign(request.method, given),
        sign=signature.v1_signature,
    )


def refusal(signed: Signed, keys: Mapping[str, AccessKey], now: float) -> Refused | None:
    """Check the date, the key and the signature; return None if all are in order.

    `now` is in seconds since 1970 UTC.
    """
    try:
        date = datetime.strptime(signed.date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        text = "Specified time stamp or date value is not well formatted."
        return Refused(400, "InvalidTimeStamp.Format", text)
    if abs(now - date.timestamp()) > signed.max_age.total_seconds():
        text = "Specified time stamp or date value is expired."
        return Refused(400, "InvalidTimeStamp.Expired", text)
    key = keys.get(signed.access_key_id)
    if key is None:
        text = "Specified access key is not found."
        return Refused(404, "InvalidAccessKeyId.NotFound", text)
    if not key.active:
        text = "Specified access key is disabled."
        return Refused(400, "InvalidAccessKeyId.Inactive", text)
    if key.security_token != signed.security_token:
        text = "Specified SecurityToken is not valid."
        return Refused(400, "InvalidSecurityToken.MismatchWithAccessKey", text)
    if key.expires_at <= now:
        text = "Specified SecurityToken is expired."
        return Refused(400, "InvalidSecurityToken.Expired", text)
    expected = signed.sign(key.secret, signed.string_to_sign)
    if not hmac.compare_digest(expected.encode(), signed.signature.encode()):
        text = (
            "Specified signature is not matched with our calculation. "
            f"server string to sign is:{signed.string_to_sign}"
        )
        return Refused(400, "SignatureDoesNotMatch", text)
    return None


class Nonces:
    """The nonces that each access key has used; beyond 10,000 only those of the last hour."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], float] = {}

    def use(self, signed: Signed, now: float) -> Refused | None:
        """Note the request's nonce; refuse one that was used before."""
        if len(self._used) > 10_000:
            self._used = {nonce: at for nonce, at in self._used.items() if now - at < 3600}
        nonce = (signed.access_key_id, signed.nonce)
        if nonce in self._used:
            text = "Specified signature nonce was used already."
            return Refused(400, "SignatureNonceUsed", text)
        self._used[nonce] = now
        return None
