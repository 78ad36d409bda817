"""The settings, as frozen values: what callflow.toml and the environment are read into.

The models say what a key may hold, its default, and how a message describes it; `etl.config.load`
reads them. Secrets are `SecretStr`: they print as asterisks. A provider's own model is in its
declaration, `etl/providers/NAME`.
"""

import re
import urllib.parse
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializeAsAny,
    model_validator,
)
from pydantic_core import PydanticCustomError

from etl.config.hosts import is_loopback
from etl.config.redact import Redactor
from etl.config.values import (
    DURATION,
    CaFile,
    Cron,
    DaskUrl,
    Directory,
    Duration,
    Name,
    NoProxy,
    Override,
    PostgresUrl,
    Proxy,
    Rate,
    Secret,
    Share,
    StreamNames,
    Timeout,
    TimeZone,
    WebUrl,
    http_address,
    page_url,
    secret_web_url,
)

TOKEN_LENGTH = 16
"""The least number of characters of a token that guards what other machines can reach."""
SCAN_DEADLINE = timedelta(hours=2)
"""The longest that one scan of a list may take.

Ten times what a million rows take, at five requests a second of a thousand rows each.
"""


class Table(BaseModel):
    """A table of callflow.toml: its keys are known, its values are never changed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> dict[str, str]:
        """Return what is wrong between the keys of a table: the key to change → the message."""
        return {}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        given = {name: value for name, value in self if value is not None}
        for key, message in self.conflicts(given).items():
            raise PydanticCustomError("conflict", "{message}", {"message": f"{key}: {message}"})
        return self


class Warehouse(Table):
    """Where the data goes: `url`, or without one the embedded Postgres in `data_dir`.

    `callflow sql` reads by `read_url` where there is one. Both are normalised to SQLAlchemy's form
    with the driver `postgresql+psycopg`. `data_dir` is absolute; None stands for the platform's
    user data directory.
    """

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


class Schedule(Table):
    """When a source is synced: by `every` or by `cron` (in `timezone`), never both.

    `full_every` is the longest time between two complete scans, `jitter` a share of the interval
    (0.1 = 10 %), `stale_after` the age from which a stream counts as stale (None: no limit given).
    """

    every: Duration | None = Field(default=None, description=DURATION, examples=["15m"])
    cron: Cron | None = Field(
        default=None, description="the five fields of a crontab line", examples=["*/15 * * * *"]
    )
    timezone: TimeZone = "UTC"
    full_every: Duration | None = Field(default=None, description=DURATION, examples=["24h"])
    jitter: Share = 0.1
    stale_after: Duration | None = Field(default=None, description=DURATION, examples=["1h"])

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> dict[str, str]:
        """Refuse `every` together with `cron`."""
        both = "every" in given and "cron" in given
        return {"cron": "given together with every; expected one of the two"} if both else {}


class Daemon(Table):
    """What `callflow daemon` listens on and runs with. `http` is host:port; "" is off.

    `workers` limits the runs at once per provider host. A run that makes no progress for
    `hung_after` is given up (None: for longer than all retries of one request can take).
    `public_url` is where people reach the status page, for links to it. `alert_format` is the shape
    of what `alert_webhook` is sent.
    `telemetry` sends traces of runs to where the variables OTEL_… say.
    """

    http: Annotated[str, AfterValidator(http_address)] = Field(
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
        default=timedelta(seconds=25), description=DURATION, examples=["25s"]
    )
    hung_after: Duration | None = Field(default=None, description=DURATION, examples=["15m"])
    public_url: Annotated[str, AfterValidator(page_url)] | None = Field(
        default=None,
        description="the address of the status page, as people reach it",
        examples=["https://callflow.example"],
    )
    telemetry: bool = Field(default=False, description="true or false", examples=[True])
    alert_webhook: Annotated[SecretStr, AfterValidator(secret_web_url)] | None = Field(
        default=None, description="an https:// URL"
    )
    alert_format: Literal["slack", "teams", "json"] = Field(
        default="slack", description='"slack", "teams" or "json"', examples=["teams"]
    )

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> dict[str, str]:
        """Require a token where other machines can reach `http`, and a scheduler for Dask."""
        found = {}
        try:
            host = http_address(str(given.get("http") or "")).rpartition(":")[0] or "localhost"
        except ValueError:  # reported by the field
            host = "localhost"
        if not is_loopback(host) and (message := _weak_token(given.get("http_token"))):
            found["http_token"] = message
        if given.get("executor") == "dask" and "dask_scheduler" not in given:
            example = 'dask_scheduler = "tcp://host:8786"'
            found["dask_scheduler"] = f'missing; executor = "dask" needs it; for example {example}'
        traced = str(given.get("telemetry")).lower() in ("true", "t", "yes", "y", "on", "1")
        if given.get("executor") == "dask" and traced:
            found["telemetry"] = 'runs on Dask\'s workers are not traced; only executor = "threads"'
        return found


def _weak_token(token: Any) -> str:
    because = "because other machines can reach http; for example"
    if token is None:
        example = 'http_token_file = "/run/secrets/http_token"'
        return f"missing; required {because} {example}"
    if isinstance(token, str | SecretStr) and 0 < len(token) < TOKEN_LENGTH:
        example = "the output of `openssl rand -hex 24`"
        return f"expected {TOKEN_LENGTH} characters or more, {because} {example}"
    return ""


class Network(Table):
    """How the network is reached, by all sources and the webhook; a source may have its own.

    `proxy` is asked for a tunnel (CONNECT) to every https:// host, except loopback and those that
    `no_proxy` names. The authorities of `ca_file` are trusted besides the usual ones. Hosts of
    private networks are refused unless `allow_private_hosts`.
    """

    proxy: Proxy = None
    no_proxy: NoProxy = ()
    ca_file: CaFile = None
    allow_private_hosts: Override = False


class Security(Table):
    """What callflow refuses unless it is allowed here.

    `allow_exposed_secrets`: also accept secrets from files that others than their owner can read.
    """

    allow_exposed_secrets: Override = False


class StreamOptions(Table):
    """The options of one stream of a source.

    `on_absent`: what happens to a record that a proven full scan did not list. "confirm" deletes it
    once it is confirmed that it is gone, "keep" never does. None: the stream's own default.
    """

    on_absent: Literal["confirm", "keep"] | None = Field(
        default=None, description='"confirm" or "keep"', examples=["confirm"]
    )


class Source(Table):
    """What every source has; a provider's model adds its credentials and its defaults.

    `streams` are the names of the streams that are synced; None: all. `options` holds the options
    of single streams, by name. In callflow.toml they are tables of the source, such as
    [sources.twilio_main.channels].

    The class variables name fields of the provider's model:
    `account` the account by which the provider counts its limits,
    `scopes`  the parts of a list, each asked for separately (None: a list is one whole),
    `zone`    the time zone of times that come without one (None: all come with one),
    `logins`  pairs of user and password that HTTP Basic sends together.
    """

    account: ClassVar[str]
    scopes: ClassVar[str | None] = None
    zone: ClassVar[str | None] = None
    logins: ClassVar[tuple[tuple[str, str], ...]] = ()

    name: Name
    provider: str
    base_url: WebUrl
    requests_per_second: Rate
    timeout: Timeout = 30.0
    scan_deadline: Duration = SCAN_DEADLINE
    proxy: Proxy = None
    no_proxy: NoProxy = None
    ca_file: CaFile = None
    allow_private_hosts: Override = None
    streams: StreamNames = None
    schedule: Schedule = Field(default_factory=Schedule, description="a table")
    options: Mapping[str, StreamOptions] = {}


class Settings(Table):
    """All of callflow's configuration. Secrets are `SecretStr`: they print as asterisks.

    `path` is the file that was read (None: no file), `warnings` what should be changed although
    nothing is refused for it. A source has the general schedule and network merged in.
    """

    path: Path | None = None
    warehouse: Warehouse = Field(default_factory=Warehouse)
    schedule: Schedule = Field(default_factory=Schedule)
    daemon: Daemon = Field(default_factory=Daemon)
    network: Network = Field(default_factory=Network)
    security: Security = Field(default_factory=Security)
    sources: Mapping[str, SerializeAsAny[Source]] = {}
    warnings: tuple[str, ...] = ()


def secrets(value: Any) -> set[str]:
    """Return every secret in settings, or in a part of them: no output may show them.

    A URL with a password adds the password itself, both percent-encoded and decoded.
    """
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        match = re.match(r"[\w+]+://[^@/]*?:([^@/]+)@", text)
        found = {text, match[1], urllib.parse.unquote(match[1])} if match else {text}
        return found - {""}
    return set().union(*(secrets(each) for each in _inside(value)))


def redactor(value: Any) -> Redactor:
    """Return what removes every secret in settings, or in a part of them, from texts."""
    return Redactor(secrets(value) | _logins(value))


def _logins(value: Any) -> set[str]:
    """Return each "user:password" that is sent with HTTP Basic."""
    found = set()
    if isinstance(value, Source):
        pairs = [(getattr(value, user), getattr(value, word)) for user, word in value.logins]
        found = {f"{user}:{word.get_secret_value()}" for user, word in pairs if word}
    return found.union(*(_logins(each) for each in _inside(value)))


def _inside(value: Any) -> list[Any]:
    if isinstance(value, BaseModel):
        return [each for _, each in value]
    return list(value.values()) if isinstance(value, Mapping) else []
