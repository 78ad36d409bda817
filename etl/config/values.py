"""The types of the settings: how a value of callflow.toml is read, checked and described."""

import difflib
import json
import re
import zoneinfo
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from etl.config.hosts import is_loopback, is_odd_address, network

_SPANS = "([0-9]{1,6}[smhdw])+"
_PERCENT = r"(100|[0-9]{1,2}(\.[0-9]+)?)%"
_VISIBLE = "^[!-~]+$"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_URL = re.compile(
    r"(https?)://([a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(\d{1,5}))?"
    r"((?:/[\w.~%!$&'()*+,;=:/-]*)?)(\?[!-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_PROXY = re.compile(
    r"https?://(?:(?:[!$&'()*+,;=\w.~-]|%[0-9a-f]{2})+(?::(?:[!$&'()*+,;=\w.~-]|%[0-9a-f]{2})*)?@)?"
    r"(?:[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?|\[[0-9a-f:.]+\]):(?P<port>\d{1,5})/?",
    re.ASCII | re.IGNORECASE,
)
_DSN = re.compile(
    r"(?!.*%(?:00|(?![0-9a-f]{2})))"  # a NUL, or a percent sign that escapes nothing
    r"(?:[^\x00-\x20\x7f@:/?#\[\]]*(?::[^\x00-\x20\x7f@:/?#\[\]]*)?@)?[^\x00-\x20\x7f@#]*",
    re.IGNORECASE | re.DOTALL,
)
PLAIN_DSN = re.compile(r"(?:[\w.-]+(?::[\w.-]+)?@)?[\w.-]+(?::[1-9][0-9]{0,3})?/[\w.-]+", re.ASCII)
"""What most URLs have after postgresql://: nothing is escaped, SQLAlchemy writes it the same."""


def problem(message: str) -> PydanticCustomError:
    """Return the error with which a value is refused; its message is shown as it is."""
    return PydanticCustomError("problem", "{message}", {"message": message})


def _web_url(text: str, *, query: bool = False) -> str:
    match = _URL.fullmatch(text)
    if not match or (match[5] and not query) or not 0 < int(match[3] or 1) < 65536:
        if query:
            raise problem("expected https://host[:port][/path][?query], without user or fragment")
        raise problem("expected https://host[:port][/path], without user, query or fragment")
    scheme, host, port, path, rest = match.groups(default="")
    if scheme.lower() == "http" and not is_loopback(host):
        raise problem("http:// is for loopback hosts only: it would send secrets unencrypted")
    if is_odd_address(host):
        raise problem("expected a host name, or an IP address written as four numbers")
    return f"{scheme}://{host}{port and ':' + port}".lower() + path.rstrip("/") + rest


def secret_web_url(value: SecretStr) -> SecretStr:
    """Check an https:// URL that is itself a secret, such as a webhook's."""
    return SecretStr(_web_url(value.get_secret_value(), query=True))


def page_url(text: str) -> str:
    """Check the address of the status page, as people reach it; http:// is for any host here."""
    match = _URL.fullmatch(text)
    if not match or match[4].rstrip("/") or match[5] or not 0 < int(match[3] or 1) < 65536:
        raise problem("expected http[s]://host[:port], without user, path, query or fragment")
    if is_odd_address(match[2]):
        raise problem("expected a host name, or an IP address written as four numbers")
    return f"{match[1]}://{match[2]}{(match[3] and ':' + match[3]) or ''}".lower()


def _proxy_url(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    text = value.get_secret_value()
    match = _PROXY.fullmatch(text)
    if text and not (match and 0 < int(match["port"]) < 65536):
        raise problem(
            "expected http:// or https://, host and port; in the user and the password, write @ as"
            " %40, : as %3A, / as %2F, % as %25"
        )
    return SecretStr(text.rstrip("/"))


def _exceptions(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for name in names or ():
        named = re.fullmatch(r"\.?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", name)
        if name != "*" and network(name) is None and not named:
            raise problem("expected host names, .domains, IP addresses or networks, without ports")
    return names


def _visible_ascii(value: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]+", value.get_secret_value()):
        raise problem("expected printable ASCII without spaces or line breaks, and not empty")
    return value


def _warehouse_url(value: SecretStr) -> SecretStr:
    scheme, _, rest = value.get_secret_value().partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise problem("expected a URL that starts with postgresql://")
    if PLAIN_DSN.fullmatch(rest):
        return SecretStr(f"postgresql+psycopg://{rest}")
    from sqlalchemy.engine import make_url  # takes as long as all else that reads a configuration
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(f"postgresql+psycopg://{rest}")
        rendered = url.render_as_string(hide_password=False)
    except (ArgumentError, ValueError):
        rendered = ""
    # SQLAlchemy and libpq cut an unescaped password in two and then name its tail as the host.
    if not (rendered and _DSN.fullmatch(rest) and url.port in (None, *range(1, 65536))):
        raise problem(
            "cannot be read; in the user and the password, write @ as %40, : as %3A, / as %2F,"
            " % as %25, # as %23, ? as %3F, [ as %5B, ] as %5D, a space as %20"
        )
    return SecretStr(rendered)


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(_SPANS, value):
        raise problem("expected a number with a unit: s, m, h, d or w")
    parts = re.findall(r"(\d+)(\w)", value)
    try:
        return sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
    except OverflowError:
        raise problem("expected a duration that fits into a calendar") from None


def _share(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(_PERCENT, value):
        raise problem("expected a share from 0% to 100%")
    return float(value[:-1]) / 100


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        hint = did_you_mean(name, zoneinfo.available_timezones())
        raise problem(f"no such time zone in the IANA database{hint}") from None
    return name


def _cron(line: str) -> str:
    try:
        next(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise problem("expected five fields, as in crontab(5), that match some minute") from None
    return line


def http_address(text: str) -> str:
    """Check host:port of a socket to listen on; "" is off."""
    host, _, port = text.rpartition(":")
    named = re.fullmatch(r"\[[0-9A-Fa-f:.]+(%\w+)?\]|[A-Za-z0-9]([\w.-]*\w)?", host)
    if text and not (named and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise problem('expected host:port, or "" for off')
    return text


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise problem("lists the same instance twice")
    return names


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _directory(value: Any) -> Any:
    return _located(value, "expected the path of a directory")


def _file(value: Any) -> Any:
    return _located(value, "expected the path of a file")


def _located(value: Any, wanted: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if value and "\0" not in value:
            return Path(value).expanduser().absolute()
    except (OSError, RuntimeError):
        pass
    raise problem(wanted)


DURATION = "a duration of at least 1s, in s, m, h, d or w"
Secret = Annotated[SecretStr, AfterValidator(_visible_ascii)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_warehouse_url)]
Directory = Annotated[Path, BeforeValidator(_directory)]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    Field(ge=timedelta(seconds=1), description=DURATION, examples=["2h"]),
    WithJsonSchema({"type": "string", "pattern": f"^{_SPANS}$"}),
]
Cron = Annotated[
    str, Field(pattern=r"^[0-9A-Za-z*/,-]+( +[0-9A-Za-z*/,-]+){4}$"), AfterValidator(_cron)
]
DaskUrl = Annotated[str, Field(pattern=r"^(tcp|tls)://[A-Za-z0-9_.\[\]:-]+:[0-9]{1,5}$")]
Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,39}$")]
Word = Annotated[str, Field(pattern=_VISIBLE, examples=["abc123"])]
InstanceIds = Annotated[
    tuple[Word, ...],
    BeforeValidator(_tuple),
    Field(min_length=1),
    AfterValidator(_unique),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "pattern": _VISIBLE},
            "minItems": 1,
            "uniqueItems": True,
        }
    ),
]
StreamNames = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_tuple),
    Field(description="a list of the names of streams, each once", examples=[["flows"]]),
]
WebUrl = Annotated[
    str,
    AfterValidator(_web_url),
    Field(description="an https:// URL", examples=["https://host.example/path"]),
]
Proxy = Annotated[
    SecretStr | None,
    AfterValidator(_proxy_url),
    Field(description='a proxy\'s URL, or "" for none', examples=["http://user:p%40ss@proxy:3128"]),
]
NoProxy = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_tuple),
    AfterValidator(_exceptions),
    Field(
        description="a list of host names, .domains, IP addresses and networks",
        examples=[["host.example", ".internal.example", "10.0.0.0/8"]],
    ),
]
CaFile = Annotated[
    Path | None,
    BeforeValidator(_file),
    Field(
        description="the path of a file of certificates in PEM form",
        examples=["/etc/ssl/our-ca.pem"],
    ),
]
Override = Annotated[bool | None, Field(description="true or false", examples=[True])]
Rate = Annotated[
    float, Field(ge=0, description="a number of requests per second, 0 for no limit", examples=[5])
]
Timeout = Annotated[
    float,
    Field(
        gt=0,
        le=3600,
        description="a number of seconds per request, above 0 and at most 3600",
        examples=[30],
    ),
]
Share = Annotated[
    float,
    BeforeValidator(_share),
    Field(ge=0, le=1, description="a share from 0% to 100%", examples=["10%"]),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": f"^{_PERCENT}$"},
            ]
        }
    ),
]
TimeZone = Annotated[
    str,
    AfterValidator(_zone),
    Field(description="the name of an IANA time zone", examples=["Europe/Berlin"]),
]


def did_you_mean(word: Any, known: Collection[str], prefix: str = "") -> str:
    """Return the end of a message: the known word closest to `word`; "" if none is close.

    `prefix` is what all of them begin with besides. Compared with it they would be all alike.
    """
    close = difflib.get_close_matches(str(word)[:100], known, n=1)
    return f"; did you mean {prefix}{json.dumps(close[0])[1:-1]}?" if close else ""
