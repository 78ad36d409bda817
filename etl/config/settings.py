"""The settings, as frozen values: what callflow.toml and the environment are read into.

The models say what a key may hold, its default, and how a message describes it; `etl.config.load`
reads them. Secrets are `SecretStr`: they print as asterisks.
"""

import difflib
import json
import re
import urllib.parse
import zoneinfo
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from etl.config.hosts import is_loopback, is_odd_address, network
from etl.config.redact import Redactor

_STRICT = ConfigDict(
    frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
)
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


# --- values --------------------------------------------------------------------------------------
def _told(message: str) -> PydanticCustomError:
    return PydanticCustomError("told", "{message}", {"message": message})


def _web_url(text: str, *, query: bool = False) -> str:
    match = _URL.fullmatch(text)
    if not match or (match[5] and not query) or not 0 < int(match[3] or 1) < 65536:
        raise _told("expected https://host[:port][/path], without user, query or fragment")
    scheme, host, port, path, rest = match.groups(default="")
    if scheme.lower() == "http" and not is_loopback(host):
        raise _told("http:// is for loopback hosts only, it would send secrets in the clear")
    if is_odd_address(host):
        raise _told("expected a host's name, or an IP address written as four numbers")
    return f"{scheme}://{host}{port and ':' + port}".lower() + path.rstrip("/") + rest


def _secret_web_url(value: SecretStr) -> SecretStr:
    return SecretStr(_web_url(value.get_secret_value(), query=True))


def _proxy_url(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    text = value.get_secret_value()
    match = _PROXY.fullmatch(text)
    if text and not (match and 0 < int(match["port"]) < 65536):
        raise _told(
            "expected http:// or https://, host and port; in the user and the password write @ as"
            " %40, : as %3A, / as %2F, % as %25"
        )
    return SecretStr(text.rstrip("/"))


def _exceptions(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for name in names or ():
        named = re.fullmatch(r"\.?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", name)
        if name != "*" and network(name) is None and not named:
            raise _told("expected host names, .domains, IP addresses or networks, without ports")
    return names


def _printable(value: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]+", value.get_secret_value()):
        raise _told("expected printable ASCII without blanks or line breaks, and not empty")
    return value


def _warehouse_url(value: SecretStr) -> SecretStr:
    scheme, _, rest = value.get_secret_value().partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise _told("expected a URL that starts with postgresql://")
    try:
        url = make_url(f"postgresql+psycopg://{rest}")
        rendered = url.render_as_string(hide_password=False)
    except (ArgumentError, ValueError):
        rendered = ""
    # SQLAlchemy and libpq cut an unescaped password in two and then name its tail as the host.
    if not (rendered and _DSN.fullmatch(rest) and url.port in (None, *range(1, 65536))):
        raise _told(
            "cannot be read; in the user and the password write @ as %40, : as %3A, / as %2F,"
            " % as %25, # as %23, ? as %3F, [ as %5B, ] as %5D, a blank as %20"
        )
    return SecretStr(rendered)


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"([0-9]{1,6}[smhdw])+", value):
        raise _told("expected a number with a unit out of s, m, h, d, w")
    parts = re.findall(r"(\d+)(\w)", value)
    try:
        return sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
    except OverflowError:
        raise _told("expected a length of time that a calendar holds") from None


def _share(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"(100|[0-9]{1,2}(\.[0-9]+)?)%", value):
        raise _told("expected a share from 0% to 100%")
    return float(value[:-1]) / 100


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        hint = did_you_mean(name, zoneinfo.available_timezones())
        raise _told(f"no such time zone in the IANA database{hint}") from None
    return name


def _cron(line: str) -> str:
    try:
        next(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise _told("expected five fields that some minute meets, as in crontab(5)") from None
    return line


def _http_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    named = re.fullmatch(r"\[[0-9A-Fa-f:.]+(%\w+)?\]|[A-Za-z0-9]([\w.-]*\w)?", host)
    if text and not (named and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise _told('expected host:port, or "" for off')
    return text


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise _told("names the same instance twice")
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
    raise _told(wanted)


_DURATION = "a duration from 1s, in s, m, h, d or w"
Secret = Annotated[SecretStr, AfterValidator(_printable)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_warehouse_url)]
Directory = Annotated[Path, BeforeValidator(_directory)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(seconds=1))]
Cron = Annotated[
    str, Field(pattern=r"^[0-9A-Za-z*/,-]+( +[0-9A-Za-z*/,-]+){4}$"), AfterValidator(_cron)
]
DaskUrl = Annotated[str, Field(pattern=r"^(tcp|tls)://[A-Za-z0-9_.\[\]:-]+:[0-9]{1,5}$")]
Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,39}$")]
Word = Annotated[str, Field(pattern="^[!-~]+$", examples=["abc123"])]
InstanceIds = Annotated[
    tuple[Word, ...], BeforeValidator(_tuple), Field(min_length=1), AfterValidator(_unique)
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
    float, Field(ge=0, description="requests per second, 0 for no pacing", examples=[5])
]
Timeout = Annotated[
    float,
    Field(gt=0, le=3600, description="seconds per request, above 0, at most 3600", examples=[30]),
]
Share = Annotated[
    float,
    BeforeValidator(_share),
    Field(ge=0, le=1, description="a share from 0% to 100%", examples=["10%"]),
]
TimeZone = Annotated[
    str,
    AfterValidator(_zone),
    Field(description="the name of an IANA time zone", examples=["Europe/Berlin"]),
]


TOKEN_LENGTH = 16
"""Characters, at least, of a token that guards what other machines reach."""
SCAN_DEADLINE = timedelta(hours=2)
"""What one scan of a list may take: ten times what a million rows of Twilio do at its pace."""


# --- settings ------------------------------------------------------------------------------------
class Warehouse(BaseModel):
    """Where the data goes: `url`, or without one the embedded Postgres in `data_dir`.

    `callflow sql` reads by `read_url` where there is one. Both are normalised to SQLAlchemy's form
    with the driver `postgresql+psycopg`. `data_dir` is absolute; None stands for the platform's
    user data directory.
    """

    model_config = _STRICT
    url: PostgresUrl | None = Field(
        default=None,
        description="a Postgres URL, or none for the embedded Postgres",
        examples=["postgresql://user:p%40ss@host:5432/db"],
    )
    read_url: PostgresUrl | None = Field(
        default=None,
        description="a Postgres URL of a role that only reads, for `callflow sql`",
        examples=["postgresql://reader:p%40ss@host:5432/db"],
    )
    data_dir: Directory | None = Field(
        default=None, description="a directory", examples=["/var/lib/callflow"]
    )


class Schedule(BaseModel):
    """When a source is synced: by `every` or by `cron` (in `timezone`), never both.

    `full_every` is the longest time between two complete scans, `jitter` a share of the interval
    (0.1 = 10 %), `stale_after` the age from which a stream counts as stale (None: no limit given).
    """

    model_config = _STRICT
    every: Duration | None = Field(default=None, description=_DURATION, examples=["15m"])
    cron: Cron | None = Field(
        default=None, description="the five fields of a crontab line", examples=["*/15 * * * *"]
    )
    timezone: TimeZone = "UTC"
    full_every: Duration | None = Field(default=None, description=_DURATION, examples=["24h"])
    jitter: Share = 0.1
    stale_after: Duration | None = Field(default=None, description=_DURATION, examples=["1h"])

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _check_conflicts(self)
        return self


class Daemon(BaseModel):
    """What `callflow daemon` listens on and runs with. `http` is host:port; "" is off.

    `workers` bounds the runs at once per provider host. A run that makes no progress for
    `hung_after` is given up (None: for longer than all retries of one request can take).
    """

    model_config = _STRICT
    http: Annotated[str, AfterValidator(_http_address)] = Field(
        default="127.0.0.1:8787",
        description='host:port, or "" for off',
        examples=["127.0.0.1:8787"],
    )
    http_token: Secret | None = Field(default=None, description="the token that clients must send")
    executor: Literal["threads", "dask"] = Field(
        default="threads", description='"threads" or "dask"', examples=["threads"]
    )
    workers: int = Field(
        default=8, ge=1, le=1000, description="a whole number from 1 to 1000", examples=[8]
    )
    dask_scheduler: DaskUrl | None = Field(
        default=None, description="a Dask scheduler's address", examples=["tcp://host:8786"]
    )
    stop_deadline: Duration = Field(
        default=timedelta(seconds=25), description=_DURATION, examples=["25s"]
    )
    hung_after: Duration | None = Field(default=None, description=_DURATION, examples=["15m"])
    alert_webhook: Annotated[SecretStr, AfterValidator(_secret_web_url)] | None = Field(
        default=None, description="an https:// URL"
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _check_conflicts(self)
        return self


class Network(BaseModel):
    """How the network is reached, by all sources and the webhook; a source may have its own.

    `proxy` is asked for a tunnel (CONNECT) to every https:// host that neither `no_proxy` names nor
    is loopback. What `ca_file` holds is trusted besides the usual authorities. Hosts of private
    networks are refused unless `allow_private_hosts`.
    """

    model_config = _STRICT
    proxy: Proxy = None
    no_proxy: NoProxy = ()
    ca_file: CaFile = None
    allow_private_hosts: Override = False


class Security(BaseModel):
    """What is refused unless it is asked for.

    `allow_exposed_secrets`: also take secrets from files that others than their owner can read.
    """

    model_config = _STRICT
    allow_exposed_secrets: Override = False


class StreamOptions(BaseModel):
    """What may be chosen for one stream of a source.

    `on_absent`: what becomes of a record that a proven full scan did not list. "confirm" removes it
    once the provider confirms that it has gone, "keep" never does. None: the stream's own default.
    """

    model_config = _STRICT
    on_absent: Literal["confirm", "keep"] | None = Field(
        default=None, description='"confirm" or "keep"', examples=["confirm"]
    )


class ZoomSource(BaseModel):
    """A Zoom account, reached with a server-to-server OAuth app.

    Default pace: 10 requests per second, the lowest Medium limit of Contact Center (Zoom's docs,
    "Rate limits").
    """

    model_config = _STRICT
    name: Name
    provider: Literal["zoom"] = "zoom"
    account_id: Word = Field(description="the account ID of the server-to-server OAuth app")
    client_id: Word = Field(description="the client ID of the server-to-server OAuth app")
    client_secret: Secret = Field(description="the client secret of that app")
    base_url: WebUrl = "https://api.zoom.us/v2"
    token_url: WebUrl = "https://zoom.us/oauth/token"  # noqa: S105
    requests_per_second: Rate = 10.0
    timeout: Timeout = 30.0
    scan_deadline: Duration = SCAN_DEADLINE
    proxy: Proxy = None
    no_proxy: NoProxy = None
    ca_file: CaFile = None
    allow_private_hosts: Override = None
    schedule: Schedule = Field(default_factory=Schedule, description="a table")
    flows: StreamOptions = Field(default_factory=StreamOptions, description="a table")


class TwilioSource(BaseModel):
    """A Twilio account, reached with its auth token, or with an API key and its secret.

    Default pace: 5 requests per second, the lower one of the two lists' limits (Twilio's docs,
    "Flex limits", legacy messaging).
    """

    model_config = _STRICT
    name: Name
    provider: Literal["twilio"] = "twilio"
    account_sid: Annotated[str, Field(pattern="^AC[0-9a-fA-F]{32}$")] = Field(
        description="AC and 32 hexadecimal digits", examples=["AC" + 32 * "0"]
    )
    auth_token: Secret | None = Field(default=None, description="the account's auth token")
    api_key_sid: Annotated[str, Field(pattern="^SK[0-9a-fA-F]{32}$")] | None = Field(
        default=None, description="SK and 32 hexadecimal digits", examples=["SK" + 32 * "0"]
    )
    api_key_secret: Secret | None = Field(default=None, description="the secret of the API key")
    base_url: WebUrl = "https://flex-api.twilio.com"
    requests_per_second: Rate = 5.0
    timeout: Timeout = 30.0
    scan_deadline: Duration = SCAN_DEADLINE
    proxy: Proxy = None
    no_proxy: NoProxy = None
    ca_file: CaFile = None
    allow_private_hosts: Override = None
    schedule: Schedule = Field(default_factory=Schedule, description="a table")
    flex_flows: StreamOptions = Field(default_factory=StreamOptions, description="a table")
    channels: StreamOptions = Field(default_factory=StreamOptions, description="a table")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _check_conflicts(self)
        return self


class AlibabaSource(BaseModel):
    """An Alibaba Cloud account; `timezone` is the one that its zone-less times are meant in.

    Default pace: 5 requests per second; no limit is documented for CCC, its sister products state
    5 to 10 per account.
    """

    model_config = _STRICT
    name: Name
    provider: Literal["alibaba"] = "alibaba"
    access_key_id: Word = Field(description="the ID of a RAM user's access key")
    access_key_secret: Secret = Field(description="the secret of that access key")
    security_token: Secret | None = Field(
        default=None, description="the STS token that belongs to a temporary key"
    )
    instance_ids: InstanceIds = Field(
        description="a list of CCC instance ids, each once", examples=[["ccc-test"]]
    )
    base_url: WebUrl = "https://ccc.cn-shanghai.aliyuncs.com"
    timezone: TimeZone = "Asia/Shanghai"
    requests_per_second: Rate = 5.0
    timeout: Timeout = 30.0
    scan_deadline: Duration = SCAN_DEADLINE
    proxy: Proxy = None
    no_proxy: NoProxy = None
    ca_file: CaFile = None
    allow_private_hosts: Override = None
    schedule: Schedule = Field(default_factory=Schedule, description="a table")
    contact_flows: StreamOptions = Field(default_factory=StreamOptions, description="a table")


Source = ZoomSource | TwilioSource | AlibabaSource


class Settings(BaseModel):
    """All of callflow's configuration. Secrets are `SecretStr`: they print as asterisks.

    `path` is the file that was read (None: no file), `warnings` what a person should mend although
    nothing is refused for it. A source has the general schedule and network merged in.
    """

    model_config = _STRICT
    path: Path | None = None
    warehouse: Warehouse = Field(default_factory=Warehouse)
    schedule: Schedule = Field(default_factory=Schedule)
    daemon: Daemon = Field(default_factory=Daemon)
    network: Network = Field(default_factory=Network)
    security: Security = Field(default_factory=Security)
    sources: Mapping[str, Annotated[Source, Field(discriminator="provider")]] = {}
    warnings: tuple[str, ...] = ()


def secrets(value: Any) -> set[str]:
    """Every secret in settings, or in what they hold: what no output may show.

    Of a URL with a password the password too, as it is written there and as it is meant.
    """
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        match = re.match(r"[\w+]+://[^@/]*?:([^@/]+)@", text)
        found = {text, match[1], urllib.parse.unquote(match[1])} if match else {text}
        return found - {""}
    if isinstance(value, BaseModel):
        return set().union(*(secrets(each) for _, each in value))
    if isinstance(value, Mapping):
        return set().union(*(secrets(each) for each in value.values()))
    return set()


_LOGINS = {"client_id": "client_secret", "account_sid": "auth_token",
           "api_key_sid": "api_key_secret"}  # fmt: skip
"""User and password of HTTP Basic, which sends both together, in Base64."""


def redactor(value: Any) -> Redactor:
    """What takes every secret in settings, or in what they hold, out of texts."""
    return Redactor(secrets(value) | _logins(value))


def _logins(value: Any) -> set[str]:
    """Each "user:password" that is sent with HTTP Basic."""
    if isinstance(value, Mapping):
        return set().union(*(_logins(each) for each in value.values()))
    if not isinstance(value, BaseModel):
        return set()
    given = dict(value)
    pairs = [(given.get(user), given.get(word)) for user, word in _LOGINS.items()]
    found = {f"{a}:{b.get_secret_value()}" for a, b in pairs if isinstance(b, SecretStr)}
    return found.union(*(_logins(each) for each in given.values()))


def conflicts(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong between the keys of one table, by the key to mend."""
    if model is Schedule and "every" in given and "cron" in given:
        return {"cron": "given together with every; expected one of the two"}
    if model is Daemon:
        return _daemon_conflicts(given)
    if model is not TwilioSource:
        return {}
    half = {"api_key_sid", "api_key_secret"} - given.keys()
    if "auth_token" in given:
        both = "given together with api_key_sid or api_key_secret; expected one way to log in"
        return {"auth_token": both} if len(half) < 2 else {}
    if len(half) == 2:
        return {"auth_token": "missing; expected auth_token, or api_key_sid and api_key_secret"}
    return dict.fromkeys(half, "missing; an API key has api_key_sid and api_key_secret")


def _daemon_conflicts(given: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    try:
        host = _http_address(str(given.get("http") or "")).rpartition(":")[0] or "localhost"
    except ValueError:  # told by itself
        host = "localhost"
    if not is_loopback(host):
        example = 'http_token_file = "/run/secrets/http_token"'
        token = given.get("http_token")
        if token is None:
            found["http_token"] = (
                f"missing; expected one because other machines reach http; for example {example}"
            )
        elif isinstance(token, str | SecretStr) and 0 < len(token) < TOKEN_LENGTH:
            found["http_token"] = (
                f"expected {TOKEN_LENGTH} characters or more because other machines reach http;"
                " for example what `openssl rand -hex 24` prints"
            )
    if given.get("executor") == "dask" and "dask_scheduler" not in given:
        example = 'dask_scheduler = "tcp://host:8786"'
        found["dask_scheduler"] = f'missing; executor = "dask" needs it; for example {example}'
    return found


def _check_conflicts(model: BaseModel) -> None:
    given = {name: value for name, value in model if value is not None}
    for key, message in conflicts(type(model), given).items():
        raise PydanticCustomError("conflict", "{message}", {"message": f"{key}: {message}"})


def did_you_mean(word: Any, known: Collection[str]) -> str:
    """The end of a message: what `word` was perhaps meant to be; "" when nothing is close."""
    close = difflib.get_close_matches(str(word)[:100], known, n=1)
    return f"; did you mean {json.dumps(close[0])[1:-1]}?" if close else ""
