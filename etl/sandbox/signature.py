"""The two request signatures of Alibaba Cloud's gateway, as the receiver computes them.

It shares no code with the client's signer on purpose: no test would notice a mistake in both.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import quote

Pairs = Iterable[tuple[str, str]]


def percent(text: str) -> str:
    """Encode text as RFC 3986 says: all except `A-Za-z0-9-_.~`, in UTF-8, upper-case hex."""
    return quote(text, safe="-_.~")


def canonical_query(query: Pairs) -> str:
    """Sort decoded pairs by name and encode them again, whatever their form on the wire was."""
    return "&".join(f"{percent(name)}={percent(value)}" for name, value in sorted(query))


def v3_string_to_sign(
    method: str, query: Pairs, headers: Mapping[str, str], signed: Iterable[str], body: bytes
) -> str:
    """Return what ACS3-HMAC-SHA256 signs (Alibaba's docs, 'V3 request structure and signature').

    `headers` have lower-case names; `signed` are the names that the request lists as signed. The
    body's hash is computed here, not taken from the request.
    """
    names = sorted(signed)
    canonical = "\n".join(
        (
            method,
            "/",
            canonical_query(query),
            *(f"{name}:{headers[name].strip()}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        )
    )
    return f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def v3_signature(secret: str, string_to_sign: str) -> str:
    """Return the signature in lower-case hex."""
    return hmac.new(secret.encode(), string_to_sign.encode(), hashlib.sha256).hexdigest()


def v1_string_to_sign(method: str, parameters: Pairs) -> str:
    """Return what SignatureVersion 1.0 signs (Alibaba's docs, 'V2 RPC'): all except itself."""
    query = canonical_query(pair for pair in parameters if pair[0] != "Signature")
    return f"{method}&%2F&{percent(query)}"


def v1_signature(secret: str, string_to_sign: str) -> str:
    """Return the HMAC-SHA1 in Base64; its key is the secret and an ampersand."""
    code = hmac.new(f"{secret}&".encode(), string_to_sign.encode(), hashlib.sha1)
    return base64.b64encode(code.digest()).decode()
