"""URLs and the text that goes into them: encoding, origins, and which URLs may be followed."""

import base64
import re
import urllib.parse

from etl.config.redact import Redactor
from etl.errors import ContractError
from etl.extract.page import Params


def encode(params: Params) -> str:
    """Encode `params` as a query or form by RFC 3986: a blank becomes %20, never +."""
    quote = urllib.parse.quote
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in params.items()
    )


def basic(user: str, password: str) -> str:
    """Return the Authorization header of HTTP Basic."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def printable(host: str) -> str:
    """Return `host` as a message may show it: cut, and without odd characters."""
    return re.sub(r"[^a-zA-Z0-9._:…-]", "?", host)[:100] or "a name that cannot be read"


def same_origin(url: str, base_url: str, path: str, redact: Redactor | None = None) -> None:
    """Check that a URL taken from an answer leads to `path` under `base_url`, and nowhere else.

    It must be absolute, with the scheme, host and port of `base_url`, without user, password and
    fragment; only the query is free. The credentials are sent to wherever the URL leads, so any
    doubt is a ContractError (CWE-918, server-side request forgery). `redact` cleans the host that
    its message names.
    """
    base = urllib.parse.urlsplit(base_url)
    try:
        # str.lower() maps some letters outside of ASCII into it, and urlsplit drops line breaks.
        plain = url.isascii() and not re.search(r"[\x00-\x20\x7f\\#]", url)
        parts = urllib.parse.urlsplit(url if plain else "")
        same = _origin(parts) == _origin(base) and "@" not in parts.netloc
        host = parts.hostname or ""
    except ValueError:
        same, host, parts = False, "", base
    if not same:
        raise ContractError(
            f"the next page is on another host ({printable((redact or Redactor()).name(host))})",
            advice="nothing was sent there; check base_url",
        )
    if parts.path != base.path.rstrip("/") + path:
        raise ContractError(
            "the next page is not on the path of the list",
            advice="nothing was sent there; check base_url",
        )


def _origin(parts: urllib.parse.SplitResult) -> tuple[str, str | None, int | None]:
    port = {"http": 80, "https": 443}.get(parts.scheme) if parts.port is None else parts.port
    return parts.scheme, parts.hostname, port
