"""callflow.toml and the environment: what is accepted, and what messages say and never say."""

import json
import os
import re
import shutil
import socket
import tomllib
from collections.abc import Callable, Mapping
from contextlib import chdir
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import certifi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from etl.config.example import write_example
from etl.config.lines import key_lines
from etl.config.load import find, load, require_sources
from etl.config.schema import schema
from etl.config.settings import Schedule, Settings, Warehouse, secrets
from etl.config.values import PLAIN_DSN
from etl.errors import ConfigError
from etl.extract.route import Route, route_of
from etl.providers import PROVIDERS
from etl.providers.alibaba.source import AlibabaSource
from etl.providers.twilio.source import TwilioSource
from etl.providers.zoom.source import ZoomSource
from etl.sync.selection import name_of, select

EXAMPLE = Path(__file__).parent.parent / "etl" / "config" / "callflow.example.toml"
AC, SK = "AC" + 32 * "0", "SK" + 32 * "f"
CANARY = "zAnArY7Q"
ZOOM = """
[sources.zoom_eu]
provider = "zoom"
account_id = "acc"
client_id = "cid"
client_secret = "sec"
"""
TWILIO = f"""
[sources.tw]
provider = "twilio"
account_sid = "{AC}"
"""
ALIBABA = """
[sources.al]
provider = "alibaba"
access_key_id = "id"
access_key_secret = "sec"
instance_ids = ["ccc-test"]
"""

Loader = Callable[..., Settings]
SCHEMA = Draft7Validator(schema(PROVIDERS))


@pytest.fixture
def read(tmp_path: Path) -> Loader:
    """Return `load` on a file with the given text and with only `env` in the environment.

    What it accepts, the JSON Schema accepts too.
    """

    def run(text: str | bytes, env: Mapping[str, str] | None = None) -> Settings:
        file = tmp_path / "callflow.toml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(0o600)
        found = load(file, env or {})
        SCHEMA.validate(tomllib.loads(file.read_text("utf-8-sig")))
        return found

    return run


def problems(read: Loader, text: str | bytes, env: Mapping[str, str] | None = None) -> list[str]:
    """Return the problem lines; each belongs to one key and fills one line."""
    with pytest.raises(ConfigError) as caught:
        read(text, env)
    assert caught.value.exit_code == 2
    count, *lines = caught.value.what.split("\n")
    assert count == (f"{len(lines)} problems" if len(lines) > 1 else "1 problem")
    return [line.removeprefix("  ") for line in lines]


# --- what is accepted ----------------------------------------------------------------------------
def test_defaults_are_the_documented_ones(read: Loader) -> None:
    loaded = read(ZOOM + TWILIO + 'auth_token = "t"' + ALIBABA)
    zoom, twilio, alibaba = (loaded.sources[name] for name in ("zoom_eu", "tw", "al"))
    assert isinstance(zoom, ZoomSource)
    assert isinstance(twilio, TwilioSource)
    assert isinstance(alibaba, AlibabaSource)
    assert (zoom.name, zoom.account_id, zoom.client_id) == ("zoom_eu", "acc", "cid")
    assert zoom.client_secret.get_secret_value() == "sec"
    assert zoom.base_url == "https://api.zoom.us/v2"
    assert zoom.token_url == "https://zoom.us/oauth/token"
    assert twilio.base_url == "https://flex-api.twilio.com"
    assert alibaba.base_url == "https://ccc.cn-shanghai.aliyuncs.com"
    assert alibaba.timezone == "Asia/Shanghai"
    assert alibaba.instance_ids == ("ccc-test",)
    assert [s.requests_per_second for s in (zoom, twilio, alibaba)] == [10, 5, 5]
    assert {s.timeout for s in loaded.sources.values()} == {30}
    assert loaded.warehouse.url is None
    assert loaded.warehouse.data_dir is None
    assert loaded.daemon.http == "127.0.0.1:8787"
    assert loaded.daemon.stop_deadline == timedelta(seconds=25)
    usual = Schedule(every=timedelta(minutes=15), full_every=timedelta(hours=24), jitter=0.1)
    assert loaded.schedule == usual
    assert {s.schedule for s in loaded.sources.values()} == {usual}
    assert loaded.warnings == ()


def test_settings_are_frozen(read: Loader) -> None:
    loaded = read(ZOOM)
    for model in (loaded, loaded.warehouse, loaded.schedule, loaded.sources["zoom_eu"]):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, next(iter(type(model).model_fields)), None)


def test_models_hold_their_rules_without_a_file() -> None:
    with pytest.raises(ValidationError, match="auth_token: missing"):
        TwilioSource(name="tw", account_sid=AC)
    with pytest.raises(ValidationError, match="cron: given together with every"):
        Schedule(every=timedelta(minutes=1), cron="* * * * *")
    key = TwilioSource(
        name="tw", account_sid=AC, api_key_sid=SK, api_key_secret=SecretStr("s"), timeout=1.5
    )
    assert key.auth_token is None


def test_a_source_overrides_the_general_schedule(read: Loader) -> None:
    loaded = read(
        '[schedule]\nevery = "1h30m"\njitter = "2.5%"\nstale_after = "2h"\n'
        'timezone = "Asia/Tokyo"\n'
        + ZOOM
        + '[sources.zoom_eu.schedule]\ncron = "*/5 8-17 * * MON-FRI"\nfull_every = "1w"\n'
        + ALIBABA
    )
    assert loaded.schedule.every == timedelta(minutes=90)
    assert loaded.sources["al"].schedule == loaded.schedule
    own = loaded.sources["zoom_eu"].schedule
    assert (own.every, own.cron, own.timezone) == (None, "*/5 8-17 * * MON-FRI", "Asia/Tokyo")
    assert own.full_every == timedelta(weeks=1)
    assert (own.jitter, own.stale_after) == (0.025, timedelta(hours=2))


@pytest.mark.parametrize(
    ("given_url", "kept"),
    [
        ("https://api-eu.zoom.us/v2/", "https://api-eu.zoom.us/v2"),
        ("HTTPS://API.Zoom.us/V2", "https://api.zoom.us/V2"),
        ("https://host:8443", "https://host:8443"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://127.8.9.1/v2", "http://127.8.9.1/v2"),
        ("http://localhost:1/v2", "http://localhost:1/v2"),
        ("http://[::1]:9/v2/", "http://[::1]:9/v2"),
    ],
)
def test_base_url_is_normalised(read: Loader, given_url: str, kept: str) -> None:
    assert read(ZOOM + f'base_url = "{given_url}"').sources["zoom_eu"].base_url == kept


@pytest.mark.parametrize(
    "url",
    [
        "http://api.zoom.us/v2",
        "http://10.0.0.1/v2",
        "http://127.0.0.1.evil.example/v2",
        "http://localhost.evil.example/",
        "http://0.0.0.0/",
        "http://[::2]/",
        "https://user:pw@api.zoom.us/v2",
        "https://user@api.zoom.us/v2",
        "https://api.zoom.us/v2?x=1",
        "https://api.zoom.us/v2#x",
        "https://api.zoom.us:0/",
        "https://api.zoom.us:65536/",
        "https://",
        "https:///v2",
        "https://a b/",
        "https://bücher.example/",
        "ftp://api.zoom.us/v2",
        "api.zoom.us/v2",
        "https://api.zoom.us\\\\@evil.example/",
        "https://api.zoom.us/v2\\n",
        "",
    ],
)
@pytest.mark.parametrize("key", ["base_url", "token_url"])
@pytest.mark.fault(71)
def test_urls_that_are_refused(read: Loader, key: str, url: str) -> None:
    (line,) = problems(read, ZOOM + f'{key} = "{url}"')
    assert line.startswith(f"sources.zoom_eu.{key} (line 7): ")
    assert ("expected https://" in line) or ("loopback hosts only" in line)
    assert f"for example {key} = " in line
    assert "evil" not in line


# --- the warehouse's URL -------------------------------------------------------------------------
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_warehouse_url_gets_the_driver(read: Loader, scheme: str) -> None:
    loaded = read(f'[warehouse]\nurl = "{scheme}://u:p@h:5433/db?sslmode=require"')
    assert loaded.warehouse.url is not None
    assert loaded.warehouse.url.get_secret_value() == (
        "postgresql+psycopg://u:p@h:5433/db?sslmode=require"
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///db?host=/var/run/postgresql",
        "postgresql://[::1]:5432/db",
        "postgresql://u@h/db?application_name=me%40x",
        "postgresql://h",
    ],
)
def test_warehouse_url_in_its_shorter_forms(read: Loader, url: str) -> None:
    loaded = read(f'[warehouse]\nurl = "{url}"').warehouse.url
    assert loaded is not None
    assert make_url(loaded.get_secret_value()) == make_url(url.replace(":", "+psycopg:", 1))


@pytest.mark.fault(70)
@given(password=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_escaped_password_survives(password: str) -> None:
    url = f"postgresql://u:{quote(password, safe='')}@h/db"
    loaded = load(None, {"CALLFLOW_WAREHOUSE__URL": url}).warehouse.url
    assert loaded is not None
    assert (make_url(loaded.get_secret_value()).password or "") == password


PASSWORDS = [
    "@",
    "/",
    ":",
    "%",
    "#",
    "?",
    "[",
    "]",
    " ",
    "@@",
    "/@",
    "@/",
    ":@",
    "%zz",
    "%0",
    "%00",
]


@given(st.from_regex(PLAIN_DSN, fullmatch=True))
def test_a_plain_warehouse_url_is_what_sqlalchemy_makes_of_it(rest: str) -> None:
    url = f"postgresql+psycopg://{rest}"
    assert make_url(url).render_as_string(hide_password=False) == url
    (read,) = {Warehouse(url=each).url for each in (f"postgres://{rest}", url)}  # type: ignore[arg-type]
    assert read is not None and read.get_secret_value() == url


@pytest.mark.fault(70)
@pytest.mark.parametrize("before", ["", "q"])
@pytest.mark.parametrize("awkward", PASSWORDS)
def test_an_unescaped_password_is_refused_and_not_repeated(
    read: Loader, awkward: str, before: str
) -> None:
    url = f"postgresql://user:{before}{awkward}{CANARY}@host:5432/db"
    (line,) = problems(read, f'[warehouse]\nurl = "{url}"')
    assert line.startswith("warehouse.url (line 2): cannot be read; in the user and the password, ")
    assert "@ as %40" in line
    assert CANARY not in line


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{CANARY}",
        f"postgresql://user:x@host:{CANARY}/db",
        "postgresql://user:x@host:0/db",
        "postgresql://user:x@host:65536/db",
        f"mysql://user:{CANARY}@host/db",
        f"postgresql+asyncpg://user:{CANARY}@host/db",
        f"{CANARY}",
        "",
    ],
)
@pytest.mark.fault(70)
def test_warehouse_urls_that_are_refused(read: Loader, url: str) -> None:
    (line,) = problems(read, f'[warehouse]\nurl = "{url}"')
    assert line.startswith("warehouse.url (line 2): ")
    assert line.endswith('; for example url = "postgresql://user:p%40ss@host:5432/db"')
    assert CANARY not in line


def test_data_dir_is_relative_to_the_file_and_in_the_environment_to_here(
    read: Loader, tmp_path: Path
) -> None:
    text = '[warehouse]\ndata_dir = "pg"'
    assert read(text).warehouse.data_dir == tmp_path / "pg"
    variable = {"CALLFLOW_WAREHOUSE__DATA_DIR": "pg"}
    assert read(text, variable).warehouse.data_dir == Path.cwd() / "pg"
    home = read('[warehouse]\ndata_dir = "~/pg"').warehouse.data_dir
    assert home == Path.home() / "pg"
    for bad in ("", "a\\u0000b", "~no_such_user_x/pg"):
        (line,) = problems(read, f'[warehouse]\ndata_dir = "{bad}"')
        assert line.startswith("warehouse.data_dir (line 2): expected the path of a directory")


# --- problems, one line each ---------------------------------------------------------------------
@pytest.mark.fault(68, 73)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ZOOM + "timeout = 0",
            "sources.zoom_eu.timeout (line 7): expected a number of seconds per",
        ),
        (ZOOM + 'timeout = "30"', "above 0 and at most 3600, not text; for example timeout = 30"),
        (ZOOM + "timeout = true", "at most 3600, not true or false; for example timeout = 30"),
        (ZOOM + "timeout = inf", "sources.zoom_eu.timeout (line 7): expected a numb"),
        (ZOOM + "requests_per_second = -1", "expected a number of requests per second, 0"),
        (ZOOM + "requests_per_second = inf", "expected a number of requests per second, 0"),
        (ZOOM + "requests_per_second = nan", "expected a number of requests per second, 0"),
        (ZOOM + "timeout = 2020-01-01", "not a date or a time"),
        (ZOOM + "bas_url = 1", "bas_url (line 7): unknown key; did you mean base_url?"),
        (ZOOM + "qqqq = 1", "unknown key; known here: provider, account_id, client_id"),
        (ZOOM + 'name = "x"', "sources.zoom_eu.name (line 7): unknown key"),
        (ZOOM + "schedule = 1", "(line 7): expected a table, such as [sources.zoom_eu.schedule]"),
        (ZOOM + "flows = 1", "(line 7): expected a table, such as [sources.zoom_eu.flows]"),
        (ZOOM.replace('"acc"', '""'), "sources.zoom_eu.account_id (line 4): expected the account"),
        (ZOOM.replace('"acc"', "7"), "(line 4): expected the account ID of the server-to-server"),
        (ZOOM.replace('"acc"', "{}"), "not a table; for example account_id ="),
        (ZOOM.replace('"sec"', '"a b"'), "client_secret (line 6): expected printable ASCII"),
        (ZOOM.replace('"sec"', '"a\\n"'), "client_secret (line 6): expected printable ASCII"),
        (ZOOM.replace('"sec"', '""'), 'for example client_secret_file = "/run/secrets/client_'),
        (ZOOM.replace('"sec"', '"…"'), "client_secret (line 6): is still the placeholder"),
        (ZOOM.replace("client_id", "#"), "client_id (line 2): missing; expected the client ID"),
        (ZOOM.replace('"zoom"', '"zom"'), 'expected "zoom", "twilio" or "alibaba"; did you mean z'),
        (ZOOM.replace('"zoom"', "[1]"), '.provider (line 3): expected "zoom", "twilio" or "ali'),
        (ZOOM.replace("provider", "#"), "sources.zoom_eu.provider (line 2): missing; expected"),
        (ZOOM.replace("zoom_eu", "Zoom-EU"), "sources.Zoom-EU (line 2): expected a name of at mo"),
        (ZOOM.replace("zoom_eu", "Zoom-EU"), "for example [sources.zoom_eu]"),
        (ZOOM.replace("zoom_eu", 41 * "z"), "at most 40 characters"),
        (ZOOM.replace("zoom_eu", '"a\\nb"'), '."a\\nb" (line 2): expected a name of at most'),
        (
            TWILIO,
            "sources.tw.auth_token (line 2): missing; expected auth_token, or api_key_sid and",
        ),
        (
            TWILIO + 'auth_token="t"\napi_key_sid="' + SK + '"',
            "auth_token (line 5): given together",
        ),
        (TWILIO + f'api_key_sid="{SK}"', "sources.tw.api_key_secret (line 2): missing; an API key"),
        (
            TWILIO + 'api_key_secret="s"',
            "sources.tw.api_key_sid (line 2): missing; an API key needs",
        ),
        (TWILIO.replace("AC", "ac") + 'auth_token="t"', "expected AC and 32 hexadecimal digits"),
        (ALIBABA.replace('"ccc-test"', ""), "expected a list of CCC instance ids, each once;"),
        (ALIBABA.replace('"ccc-test"', '"a", 3'), "instance_ids (line 6): expected a list of CCC"),
        (ALIBABA.replace('"ccc-test"', '"a", "…"'), "(line 6): is still the placeholder; expected"),
        (ALIBABA.replace('"ccc-test"', '"a", "a"'), "lists the same instance twice; for example"),
        (ALIBABA.replace('["ccc-test"]', '"a"'), "each once, not text; for example instance_ids ="),
        (ALIBABA + 'timezone = "Asia/Shangai"', "no such time zone in the IANA database; did you"),
        (ALIBABA + 'timezone = "/etc/passwd"', "timezone (line 7): no such time zone"),
        (ALIBABA + 'timezone = "Asia"', "timezone (line 7): no such time zone"),
        ("[schedule]\nevery = 15", "schedule.every (line 2): expected a duration of at least"),
        ('[schedule]\nevery = "15 min"', "expected a number with a unit: s, m, h, d or w; for"),
        ('[schedule]\nevery = "0s"', "schedule.every (line 2): expected a duration of at least"),
        ('[schedule]\nevery = "9999999d"', "expected a number with a unit"),
        ('[schedule]\nevery = "1h"\ncron = "* * * * *"', "cron (line 3): given together with eve"),
        ('[schedule]\ncron = "* * * *"', "expected the five fields of a crontab line; for example"),
        ('[schedule]\ncron = "@daily"', "expected the five fields of a crontab line; for example"),
        ('[schedule]\njitter = "10"', 'from 0% to 100%; for example jitter = "10%"'),
        ('[schedule]\njitter = "101%"', 'from 0% to 100%; for example jitter = "10%"'),
        ('[schedule]\ntimezone = "Europe/Berlim"', "did you mean Europe/Berlin?"),
        ('[daemon]\nhttp = "0.0.0.0:8787"', "daemon.http_token (line 1): missing; required"),
        ('[daemon]\nhttp = "8787"', 'daemon.http (line 2): expected host:port, or "" for off; fo'),
        ('[daemon]\nhttp = "http://127.0.0.1:8787"', "http (line 2): expected host:port, or"),
        ('[daemon]\nhttp = "*:8787"', "daemon.http (line 2): expected host:port, or"),
        ('[daemon]\nhttp = "[::1"', "daemon.http (line 2): expected host:port, or"),
        ('[daemon]\nexecutor = "dask"', "daemon.dask_scheduler (line 1): missing; executor ="),
        ('[daemon]\nexecutor = "x"', 'daemon.executor (line 2): expected "threads" or "dask"; for'),
        ("[daemon]\nworkers = 0", "daemon.workers (line 2): expected a whole number from 1 to 100"),
        (
            "[daemon]\nworkers = 1.0",
            "number from 1 to 1000, not a decimal number; for example worke",
        ),
        ('[daemon]\ndask_scheduler = "x"', "expected a Dask scheduler's address; for example dask"),
        (
            '[daemon]\nexecutor = "dask"\ndask_scheduler = "tcp://x:1"\ntelemetry = true',
            "daemon.telemetry (line 4): runs on Dask's workers are not traced",
        ),
        ('[daemon]\ntelemetry = "perhaps"', "daemon.telemetry (line 2): expected true or false"),
        (
            '[daemon]\nalert_webhook = "ftp://x/?sig=1"',
            "alert_webhook (line 2): expected https://host[:port][/path][?query], without user or",
        ),
        (
            '[daemon]\nalert_webhook = "http://x/"',
            "alert_webhook (line 2): http:// is for loopback",
        ),
        ('[daemon]\nalert_format = "mail"', 'expected "slack", "teams" or "json"; for example ale'),
        ('[daemon]\npublic_url = "callflow.example"', "expected http[s]://host[:port], without"),
        ('[daemon]\npublic_url = "http://h/x"', "expected http[s]://host[:port], without user, pa"),
        ('[daemon]\npublic_url = "http://h?q"', "expected http[s]://host[:port], without user, pa"),
        ('[daemon]\npublic_url = "http://u:p@h"', "expected http[s]://host[:port], without user, "),
        ('[daemon]\npublic_url = "http://0x7f.1"', "expected a host name, or an IP address writte"),
        ("[warehose]\nurl = 1", "warehose (line 1): unknown key; did you mean warehouse?"),
        ("warehouse = 1", "warehouse (line 1): expected a table, such as [warehouse]"),
        ("sources = [1]", "sources (line 1): expected a table, such as [sources.zoom_eu]"),
        ("[[sources]]\nx = 1", "sources (line 1): expected a table, such as [sources.z"),
        ("[sources]\nname = 3", "sources.name (line 2): expected a table, such as [sources.zoom_"),
        ('[sources]\nprovider = "zoom"', "sources.provider (line 2): expected a table, such as"),
    ],
)
def test_one_problem_one_line(read: Loader, text: str, expected: str) -> None:
    (line,) = problems(read, text)
    assert expected in line
    assert "?;" not in line  # one suggestion is enough


@pytest.mark.fault(68)
def test_all_problems_at_once(read: Loader) -> None:
    lines = problems(
        read,
        '[warehouse]\nurl = "mysql://x"\n'
        '[sources.zoom_eu]\nprovider = "zoom"\nclient_secrt = "s"\naccount_id = 1\n'
        '[sources.zoom_eu.schedule]\nevry = "1m"\nevery = "1x"\ncron = "x"\n'
        '[sources.tw]\nprovider = "twilio"\naccount_sid = "AC"\nauth_token = "t"\n'
        f'api_key_sid = "{SK}"\n'
        '[sources.al]\nprovider = "alibaba"\naccess_key_secret_file = "missing"\n'
        "instance_ids = []\n[daemon]\nhttp = '0.0.0.0:1'\nworkers = 0\n",
        {"CALLFLOW_WAREHOUS__URL": "x", "CALLFLOW_SOURCES__AL__TIMEOUT": "soon"},
    )
    assert [re.split(r"[ :]", line)[0] for line in lines] == [
        "$CALLFLOW_WAREHOUS__URL",
        "daemon.http_token",
        "daemon.workers",
        "sources.al.access_key_id",
        "sources.al.access_key_secret_file",
        "sources.al.instance_ids",
        "sources.al.timeout",
        "sources.tw.account_sid",
        "sources.tw.auth_token",
        "sources.zoom_eu.account_id",
        "sources.zoom_eu.client_id",
        "sources.zoom_eu.client_secret",
        "sources.zoom_eu.client_secrt",
        "sources.zoom_eu.schedule.cron",
        "sources.zoom_eu.schedule.every",
        "sources.zoom_eu.schedule.evry",
        "warehouse.url",
    ]
    assert "did you mean client_secret?" in lines[12]
    assert "did you mean every?" in lines[15]


# --- the line of a problem -----------------------------------------------------------------------
BLOCK = '[warehouse]\nurl = """\\\n  [daemon]\nworkers = 7\n  """\n'


@pytest.mark.fault(68)
@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("daemon.workers = 0", "daemon.workers", 1),
        ('\ndaemon.executor = "dask"', "daemon.dask_scheduler", 2),
        ("[daemon]\n\n'workers' = 0", "daemon.workers", 3),
        ('["daemon"] # [x]\n"w\\u006frkers" = 0', "daemon.workers", 2),
        ('daemon = { http = "a,]}=", workers = 0 }', "daemon.workers", 1),
        ("[daemon]\nhttp = '#'\nworkers = 0", "daemon.workers", 3),
        (BLOCK + "[daemon]\nworkers = 0", "daemon.workers", 7),
        (BLOCK.replace('"""', "'''") + "[daemon]\nworkers = 0", "daemon.workers", 7),
        (ZOOM + 'no_proxy = [ # a\n  "x = 1",\n  "[daemon]",\n]\ntimeout = 0', "timeout", 11),
        (ZOOM + "schedule.every = 1", "sources.zoom_eu.schedule.every", 7),
        (ZOOM + "schedule = { cron = '* * * * *', every = 1 }", "schedule.every", 7),
        ("[sources]\nal.provider = 'alibaba'\nal.timeout = 0", "sources.al.timeout", 3),
        ("[sources]\nal.provider = 'alibaba'", "sources.al.instance_ids", 2),
        ("[sources.al.schedule]\n[sources.al]\ntimeout = 0", "sources.al.provider", 2),
        ("[ sources . al ]\r\nprovider = 'alibaba'\r\ntimeout = 0\r\n", "sources.al.timeout", 3),
    ],
)
def test_the_line_of_a_problem_is_that_of_its_key(
    read: Loader, text: str, key: str, line: int
) -> None:
    assert any(f"{key} (line {line}): " in problem for problem in problems(read, text))


# --- the file itself -----------------------------------------------------------------------------
def test_find_prefers_the_argument_then_the_variable(tmp_path: Path) -> None:
    variable = {"CALLFLOW_CONFIG": str(tmp_path / "b.toml")}
    assert find(tmp_path / "a.toml", variable) == tmp_path / "a.toml"
    assert find(None, variable) == tmp_path / "b.toml"
    assert find(None, {"CALLFLOW_CONFIG": ""}) == find(None, {})


def test_the_working_directory_is_searched_last(tmp_path: Path) -> None:
    with chdir(tmp_path):
        empty = load(None, {})
        assert empty.path is None
        with pytest.raises(ConfigError, match=r"no callflow\.toml in .*`callflow init`"):
            require_sources(empty)
        secret_file(Path("callflow.toml"), ZOOM)
        found = load(None, {})
        assert found.path == Path("callflow.toml")
        require_sources(found)


def test_a_file_without_sources_loads_and_is_refused_when_they_are_needed(read: Loader) -> None:
    with pytest.raises(ConfigError, match=r"callflow\.toml: no sources → uncomment"):
        require_sources(read("[warehouse]\n"))


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_missing_file_names_the_place_and_init(tmp_path: Path, how: str) -> None:
    path = tmp_path / "no.toml"
    with pytest.raises(ConfigError) as caught:
        if how == "argument":
            load(path, {})
        else:
            load(None, {"CALLFLOW_CONFIG": str(path)})
    assert str(caught.value).startswith(f"{path}: cannot be read: No such file or directory")
    assert "`callflow init`" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[warehouse]\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"[warehouse]\n# \xff\xfe\n", r"is not UTF-8 \(line 2\); save it as UTF-8"),
        (b"#" * (1 << 20) + b"\n", "is larger than 1024 KiB"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused(read: Loader, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(content)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_byte_order_mark_is_ignored(read: Loader) -> None:
    assert "zoom_eu" in read(b"\xef\xbb\xbf" + ZOOM.encode()).sources


@pytest.mark.parametrize(
    ("text", "line", "shape"),
    [
        (f'[warehouse]\nurl = "{CANARY}\n', 2, '  url = "••••••••\n'),
        (f"[warehouse]\nurl = {CANARY}\n", 2, "  url = ••••••••\n"),
        (f"[warehouse\nurl = '{CANARY}'\n", 1, "  [warehouse\n"),
        (f"[warehouse]\nurl '{CANARY}'\n", 2, "  url '••••••••'\n"),
        (f'[warehouse]\nurl = """\n{CANARY}=1', 3, "  ••••••••=•\n"),
        (f"[warehouse]\nurl = 'a'\nurl = '{CANARY}'\n", 3, "  url = '••••••••'\n"),
        (f"[warehouse]\nurl = 'a' '{CANARY}'\n", 2, "  url = '•' '••••••••'\n"),
    ],
)
def test_a_toml_slip_is_shown_without_its_value(
    read: Loader, tmp_path: Path, text: str, line: int, shape: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'callflow.toml'}, line {line}, column ")
    assert "not valid TOML: " in message
    assert shape in message
    assert "^ → " in message
    assert CANARY not in message


def test_toml_that_breaks_the_parser_is_a_config_error(read: Loader) -> None:
    for text in ("x = " + 5000 * "[", "x = " + 5000 * "9"):
        with pytest.raises(ConfigError, match="not valid TOML"):
            read(text)


# --- the environment -----------------------------------------------------------------------------
def test_the_environment_wins_over_the_file_and_names_are_case_insensitive(read: Loader) -> None:
    loaded = read(
        ZOOM + ALIBABA,
        {
            "CALLFLOW_SOURCES__ZOOM_EU__CLIENT_SECRET": "env",
            "callflow_sources__zoom_eu__timeout": "2.5",
            "Callflow_Sources__Zoom_EU__Requests_Per_Second": "0",
            "CALLFLOW_SOURCES__ZOOM_EU__SCHEDULE__EVERY": "1m",
            "CALLFLOW_SOURCES__AL__INSTANCE_IDS": "a, b,c",
            "CALLFLOW_DAEMON__WORKERS": "3",
            "CALLFLOW_DAEMON__HTTP": "",
            "CALLFLOW_WAREHOUSE__URL": "postgres://h/db",
        },
    )
    zoom, alibaba = loaded.sources["zoom_eu"], loaded.sources["al"]
    assert isinstance(zoom, ZoomSource)
    assert isinstance(alibaba, AlibabaSource)
    assert zoom.client_secret.get_secret_value() == "env"
    assert (zoom.timeout, zoom.requests_per_second) == (2.5, 0)
    assert zoom.schedule.every == timedelta(minutes=1)
    assert alibaba.schedule.every == timedelta(minutes=15)
    assert alibaba.instance_ids == ("a", "b", "c")
    assert (loaded.daemon.workers, loaded.daemon.http) == (3, "")
    assert loaded.warehouse.url is not None


def test_a_source_can_come_from_the_environment_alone() -> None:
    loaded = load(
        None,
        {
            "CALLFLOW_SOURCES__AL__PROVIDER": "alibaba",
            "CALLFLOW_SOURCES__AL__ACCESS_KEY_ID": "id",
            "CALLFLOW_SOURCES__AL__ACCESS_KEY_SECRET": "sec",
            "CALLFLOW_SOURCES__AL__INSTANCE_IDS": '["a", "b"]',
        },
    )
    assert isinstance(loaded.sources["al"], AlibabaSource)
    assert loaded.sources["al"].instance_ids == ("a", "b")


@pytest.mark.parametrize("name", ["a__b", "a_", "schedule", "x__y__z"])
def test_a_source_name_with_underscores_is_found(read: Loader, name: str) -> None:
    variable = f"CALLFLOW_SOURCES__{name.upper()}__TIMEOUT"
    loaded = read(ZOOM.replace("zoom_eu", name), {variable: "7"})
    assert loaded.sources[name].timeout == 7


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"CALLFLOW_CONFG": "x"}, "$CALLFLOW_CONFG: unknown variable; expected CALLFLOW_TABLE__KE"),
        ({"CALLFLOW_CONFG": "x"}, "did you mean CALLFLOW_CONFIG?"),
        ({"CALLFLOW_WAREHOUSE": "x"}, "$CALLFLOW_WAREHOUSE: unknown variable"),
        ({"CALLFLOW_WAREHOUS__URL": "x"}, "did you mean CALLFLOW_WAREHOUSE__URL?"),
        ({"CALLFLOW_SOURCE__Z__TIMEOUT": "1"}, "did you mean CALLFLOW_SOURCES__Z__TIMEOUT?"),
        ({"CALLFLOW_SOURCES__ZOOM_EU": "x"}, "$CALLFLOW_SOURCES__ZOOM_EU: unknown variable"),
        ({"CALLFLOW_SOURCES__ZOOM_EU__SCHEDULE": "x"}, "__SCHEDULE: unknown variable"),
        ({"CALLFLOW_SOURCES__ZOOM_EU__ſ": "x"}, "unknown variable"),
        ({"CALLFLOW_DAEMON__WORKRS": "1"}, "daemon.workrs ($CALLFLOW_DAEMON__WORKRS): unknown key"),
        ({"CALLFLOW_DAEMON__WORKERS": "x"}, "not text; for example CALLFLOW_DAEMON__WORKERS=8"),
        ({"CALLFLOW_DAEMON__A\nB": "1"}, 'daemon."a\\nb" ("$CALLFLOW_DAEMON__A\\nB"): unknown'),
        (
            {"CALLFLOW_SOURCES__ZOOM_EU__TIMEOUT": "inf"},
            "_TIMEOUT): expected a number of seconds per",
        ),
        ({"CALLFLOW_SOURCES__ZOOM_EU__CLIENT_ID": ""}, "$CALLFLOW_SOURCES__ZOOM_EU__CLIENT_ID"),
        ({"CALLFLOW_SOURCES__ZOOM_UE__TIMEOUT": "1"}, "did you mean zoom_eu?"),
        (
            {"CALLFLOW_SOURCES__ZOOM_EU__TIMEOUT": "1", "callflow_sources__zoom_eu__timeout": "2"},
            "($callflow_sources__zoom_eu__timeout): given twice, also as $CALLFLOW_SOURCES__",
        ),
    ],
)
def test_variables_that_are_wrong(read: Loader, env: dict[str, str], expected: str) -> None:
    (line,) = problems(read, ZOOM, env)
    assert expected in line
    assert not any(line.endswith(f"did you mean {variable}?") for variable in env)


def test_a_source_of_the_environment_has_no_line_of_the_file(read: Loader) -> None:
    lines = problems(read, ZOOM, {"CALLFLOW_SOURCES__9X__TIMEOUT": "1"})
    assert [line.partition(": ")[0] for line in lines] == ["sources.9x", "sources.9x.provider"]


def test_variables_that_are_not_settings_are_ignored(read: Loader) -> None:
    names = ["CALLFLOW_CONFIG", "CALLFLOW_PG_BIN", "CALLFLOW_TEST_POSTGRES", "CALLFLOWX", "PATH"]
    # What Kubernetes sets in a namespace that has the services callflow and callflow-db.
    for service in ("CALLFLOW", "CALLFLOW_DB"):
        names += [f"{service}_SERVICE_HOST", f"{service}_SERVICE_PORT", f"{service}_PORT"]
        names += [f"{service}_SERVICE_PORT_HTTP", f"{service}_PORT_8787_TCP"]
        names += [f"{service}_PORT_8787_TCP_{part}" for part in ("PROTO", "PORT", "ADDR")]
    assert "zoom_eu" in read(ZOOM, dict.fromkeys(names, "x")).sources


# --- secrets -------------------------------------------------------------------------------------
def secret_file(path: Path, text: str = "from-file\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def client_secret(loaded: Settings) -> str:
    source = loaded.sources["zoom_eu"]
    assert isinstance(source, ZoomSource)
    return source.client_secret.get_secret_value()


def test_a_secret_from_a_file_beside_the_config(read: Loader, tmp_path: Path) -> None:
    text = ZOOM.replace('client_secret = "sec"', 'client_secret_file = "s"')
    for content in ("from-file", "from-file\n", "from-file\r\n"):
        secret_file(tmp_path / "s", content)
        loaded = read(text)
        assert client_secret(loaded) == "from-file"
        assert loaded.warnings == ()


def test_a_variable_wins_over_the_file_as_a_secret_and_as_its_file(
    read: Loader, tmp_path: Path
) -> None:
    file = str(secret_file(tmp_path / "s"))
    with_file = ZOOM.replace('client_secret = "sec"', f'client_secret_file = "{file}"')
    variable = "CALLFLOW_SOURCES__ZOOM_EU__CLIENT_SECRET"
    assert client_secret(read(with_file, {variable: "env"})) == "env"
    assert client_secret(read(ZOOM, {variable + "_FILE": file})) == "from-file"
    other = str(secret_file(tmp_path / "t", "other"))
    assert client_secret(read(with_file, {variable + "_FILE": other})) == "other"
    (line,) = problems(read, ZOOM, {variable: "env", variable + "_FILE": file})
    assert "given together with client_secret; expected one of the two" in line
    (line,) = problems(read, with_file + 'client_secret = "x"')
    assert line.startswith("sources.zoom_eu.client_secret_file (line 6): given together")


def test_every_secret_can_be_a_file(read: Loader, tmp_path: Path) -> None:
    secret_file(tmp_path / "s", "from-this-very-file\n")
    secret_file(tmp_path / "url", "postgresql://u:p@h/db\n")
    secret_file(tmp_path / "hook", "https://hooks.example/x?sig=1\n")
    loaded = read(
        '[warehouse]\nurl_file = "url"\n[daemon]\nhttp_token_file = "s"\n'
        'alert_webhook_file = "hook"\nhttp = "0.0.0.0:80"\n'
        + TWILIO
        + f'api_key_sid = "{SK}"\napi_key_secret_file = "s"\n'
        + TWILIO.replace(".tw", ".two")
        + 'auth_token_file = "s"\n'
        + ALIBABA.replace('secret = "sec"', 'secret_file = "s"')
        + 'security_token_file = "s"\n'
    )
    found = [
        value.get_secret_value()
        for model in (loaded.warehouse, loaded.daemon, *loaded.sources.values())
        for _, value in model
        if isinstance(value, SecretStr)
    ]
    assert sorted(found) == [
        *(5 * ["from-this-very-file"]),
        "https://hooks.example/x?sig=1",
        "postgresql+psycopg://u:p@h/db",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"missing"', "cannot be read: No such file or directory"),
        ('"."', "cannot be read: Is a directory"),
        ('"empty"', "the file is empty"),
        ('"blank"', "the file is empty"),
        ('"binary"', "is not UTF-8 (line 1)"),
        ('"large"', "is larger than 64 KiB"),
        ('"a\\u0000b"', "not a valid path"),
        ('"~no_such_user_x/s"', "expected a path that exists"),
        ('""', "expected a path, as text"),
        ("7", "expected a path, as text"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_refused(
    read: Loader, tmp_path: Path, value: str, expected: str
) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "blank").write_bytes(b" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfa" + CANARY.encode())
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    text = ZOOM.replace('client_secret = "sec"', f"client_secret_file = {value}")
    (line,) = problems(read, text)
    assert line.startswith("sources.zoom_eu.client_secret_file (line 6): ")
    assert expected in line
    assert line.endswith("; expected a file that holds only the secret")


ALLOW = "[security]\nallow_exposed_secrets = true\n"
OWN = "chmod 600 it, or set allow_exposed_secrets = true in [security]"


@pytest.mark.fault(69)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666])
def test_a_secret_that_others_can_read_is_refused_unless_it_is_allowed(
    read: Loader, tmp_path: Path, mode: int
) -> None:
    secret_file(tmp_path / "s", mode=mode)
    text = ZOOM.replace('client_secret = "sec"', 'client_secret_file = "s"')
    key = "sources.zoom_eu.client_secret_file"
    assert problems(read, text) == [f"{key} (line 6): others can read that file; {OWN}"]
    allowed = f"{key}: others can read that file; chmod 600 it"
    assert read(ALLOW + text).warnings == (allowed,)
    assert read(text, {"CALLFLOW_SECURITY__ALLOW_EXPOSED_SECRETS": "true"}).warnings == (allowed,)
    assert problems(read, ALLOW.replace("true", "false") + text)


@pytest.mark.fault(69)
def test_a_configuration_with_secrets_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "callflow.toml", ZOOM, 0o640)
    with pytest.raises(ConfigError, match=r"zoom_eu\.client_secret \(line 6\): others can read th"):
        load(file, {})
    (warning,) = load(secret_file(file, ALLOW + ZOOM, 0o640), {}).warnings
    assert warning.endswith("others can read this file, which holds secrets; chmod 600 it")
    here = ZOOM + 'base_url = "http://127.0.0.1:1/v2"\n'
    for more in ("", '[warehouse]\nurl = "postgresql://me:x@localhost/db"\n'):
        (warning,) = load(secret_file(file, here + more, 0o644), {}).warnings
        assert warning == f"{file}: holds secrets and others can read it"
    away = here + '[warehouse]\nurl = "postgresql://me:x@db.example/db"\n'
    with pytest.raises(ConfigError, match=r"warehouse\.url \(line 9\): others can read this file"):
        load(secret_file(file, away, 0o644), {})
    public = ZOOM.replace("client_secret", "#") + '[network]\nproxy = "http://proxy:3128"\n'
    variable = {"CALLFLOW_SOURCES__ZOOM_EU__CLIENT_SECRET": "x"}
    assert load(secret_file(file, public, 0o644), variable).warnings == ()
    password = public.replace("http://", f"http://me:{CANARY}@")
    with pytest.raises(ConfigError, match=r"network\.proxy \(line 8\): others can") as caught:
        load(secret_file(file, password, 0o644), variable)
    assert CANARY not in str(caught.value)


@pytest.mark.fault(69)
@pytest.mark.parametrize("what", ["pipe", "socket", "device", "directory"])
def test_a_secret_file_that_is_no_regular_file_is_refused_at_once(
    read: Loader, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "odd"
    with socket.socket(socket.AF_UNIX) as listener:
        if what == "pipe":
            os.mkfifo(path, 0o600)
        elif what == "socket":
            with chdir(tmp_path):  # the path may be too long for a socket
                listener.bind("odd")
        elif what == "device":
            path = Path("/dev/zero")
        else:
            path.mkdir()
        quoted = json.dumps(str(path))
        text = ZOOM.replace('client_secret = "sec"', f"client_secret_file = {quoted}")
        (line,) = problems(read, text)
        assert line.startswith("sources.zoom_eu.client_secret_file (line 6): cannot be read: ")
        (line,) = problems(read, f"[network]\nca_file = {quoted}")
        assert line.startswith("network.ca_file (line 2): cannot be read: ")
        with pytest.raises(ConfigError, match="cannot be read: "):
            load(path, {})
        with pytest.raises(ConfigError, match="cannot be read: "):
            load(None, {"CALLFLOW_CONFIG": str(path)})


# --- where requests may go -----------------------------------------------------------------------
PRIVATE = [
    "https://169.254.169.254/latest/meta-data",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[2002:a9fe:a9fe::]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[::]/",
    "https://0.0.0.0/",
    "https://10.1.2.3:8443/v2",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.100.100.200/",
    "https://metadata.google.internal/computeMetadata/v1",
    "https://METADATA.google.internal/",
    "https://metadata/",
    "https://gateway.corp.internal/",
    "https://printer.local/",
]


@pytest.mark.fault(71)
@pytest.mark.parametrize("url", PRIVATE)
def test_private_hosts_are_refused_unless_they_are_allowed(read: Loader, url: str) -> None:
    for key, table in (
        ("base_url", ZOOM),
        ("token_url", ZOOM),
        ("base_url", TWILIO + 'auth_token = "t"\n'),
        ("base_url", ALIBABA),
        ("alert_webhook", "[daemon]\n"),
    ):
        text = table + f'{key} = "{url}"\n'
        (line,) = problems(read, text)
        assert f"{key} (line" in line
        assert "leads to a private network or a cloud's metadata service; expected a public" in line
        read(text + "[network]\nallow_private_hosts = true")
        read(text, {"CALLFLOW_NETWORK__ALLOW_PRIVATE_HOSTS": "true"})
        if key != "alert_webhook":
            read(text + "allow_private_hosts = true")
            own = "allow_private_hosts = false\n[network]\nallow_private_hosts = true"
            assert problems(read, text + own) == [line]


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    "host", ["2852039166", "0x7f000001", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "127.1", "1"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_addresses_that_are_not_written_as_such_are_refused(
    read: Loader, scheme: str, host: str
) -> None:
    allow = "\n[network]\nallow_private_hosts = true"
    (line,) = problems(read, ZOOM + f'base_url = "{scheme}://{host}/"' + allow)
    assert "written as four numbers" in line or "http:// is for loopback" in line


@pytest.mark.fault(71)
@pytest.mark.parametrize("host", ["169.254.169.254.", "metadata.google.internal.", "localhost."])
def test_a_dot_at_the_end_is_refused(read: Loader, host: str) -> None:
    (line,) = problems(read, ZOOM + f'base_url = "https://{host}/"')
    assert "expected https://host" in line or "leads to a private network" in line


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    "url", ["https://8.8.8.8", "https://172.32.0.1", "https://[2606:4700::1]", "https://127.0.0.1"]
)
def test_public_and_loopback_hosts_are_accepted(read: Loader, url: str) -> None:
    assert read(ZOOM + f'base_url = "{url}"').sources["zoom_eu"].base_url == url


@pytest.mark.parametrize("http", ["0.0.0.0:8787", "[::]:8787", "192.168.0.1:80", "host.example:1"])
def test_a_short_token_guards_nothing_that_other_machines_reach(read: Loader, http: str) -> None:
    text = f'[daemon]\nhttp = "{http}"\nhttp_token = "{{}}"\n'
    (line,) = problems(read, text.format("x" * 15))
    assert line.startswith("daemon.http_token (line 3): expected 16 characters or more, because")
    read(text.format("x" * 16))
    read(text.replace(http, "127.0.0.1:8787").format("x"))


# --- the network ---------------------------------------------------------------------------------
def authority(folder: Path) -> Path:
    return Path(shutil.copy(certifi.where(), folder / "ca.pem"))


def test_a_source_has_the_general_network_or_its_own(read: Loader, tmp_path: Path) -> None:
    other = Path(shutil.copy(authority(tmp_path), tmp_path / "other.pem"))
    loaded = read(
        '[network]\nproxy = "http://me:p%40ss@proxy:3128/"\n'
        'no_proxy = ["a.example", "10.0.0.0/8"]\nca_file = "ca.pem"\n'
        + ZOOM
        + 'proxy = ""\nca_file = "other.pem"\nno_proxy = []\n'
        + ALIBABA
        + TWILIO
        + 'auth_token = "t"\nproxy = "https://[::1]:3129"\nallow_private_hosts = true\n'
    )
    zoom, alibaba, twilio = (route_of(loaded.sources[name]) for name in ("zoom_eu", "al", "tw"))
    general = Route(
        "http://me:p%40ss@proxy:3128", ("a.example", "10.0.0.0/8"), tmp_path / "ca.pem", False
    )
    assert alibaba == general == route_of(loaded.network)
    assert zoom == Route("", (), other, False)
    assert twilio == Route("https://[::1]:3129", general.no_proxy, general.ca_file, True)
    assert {"http://me:p%40ss@proxy:3128", "p%40ss", "p@ss"} <= secrets(loaded)
    assert "" not in secrets(loaded)
    assert "p%40ss" not in repr(general) + repr(loaded)


def test_the_network_from_the_environment_and_a_file(read: Loader, tmp_path: Path) -> None:
    secret_file(tmp_path / "p", "http://me:secret@proxy:3128\n")
    env = {
        "CALLFLOW_NETWORK__PROXY_FILE": str(tmp_path / "p"),
        "CALLFLOW_NETWORK__NO_PROXY": "a.example, .b.example",
        "CALLFLOW_SOURCES__ZOOM_EU__NO_PROXY": '["c"]',
        "CALLFLOW_SOURCES__ZOOM_EU__CA_FILE": str(authority(tmp_path)),
    }
    loaded = read(ZOOM, env)
    assert route_of(loaded.network) == Route(
        "http://me:secret@proxy:3128", ("a.example", ".b.example")
    )
    assert route_of(loaded.sources["zoom_eu"]) == Route(
        "http://me:secret@proxy:3128", ("c",), tmp_path / "ca.pem"
    )
    assert read(ZOOM, {"CALLFLOW_NETWORK__PROXY": ""}).network.proxy is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f'proxy = "http://me:{CANARY}@@proxy:3128"',
            "proxy (line 2): expected http:// or https:/",
        ),
        (
            f'proxy = "http://me:a/{CANARY}@proxy:3128"',
            "write @ as %40, : as %3A, / as %2F, % as %",
        ),
        (f'proxy = "http://me:{CANARY}%zz@proxy:3128"', "; for example proxy = "),
        ('proxy = "socks5://proxy:1080"', "expected http:// or https://, host and port"),
        ('proxy = "proxy:3128"', "expected http:// or https://, host and port"),
        ('proxy = "http://proxy"', "expected http:// or https://, host and port"),
        ('proxy = "http://proxy:0"', "expected http:// or https://, host and port"),
        ('proxy = "http://proxy:65536"', "expected http:// or https://, host and port"),
        ('proxy = "http://proxy:3128/path"', "expected http:// or https://, host and port"),
        ("proxy = 3128", 'a proxy\'s URL, or "" for none, not a number; for example proxy = '),
        (
            'no_proxy = "a.example"',
            "a list of host names, .domains, IP addresses and networks, not",
        ),
        (
            'no_proxy = ["a.example:443"]',
            "IP addresses or networks, without ports; for example no_",
        ),
        ('no_proxy = ["*.example"]', "IP addresses or networks, without ports; for example no_pr"),
        ('no_proxy = ["10.0.0.0/33"]', "IP addresses or networks, without ports; for example no_p"),
        ('no_proxy = [""]', "IP addresses or networks, without ports; for example no_proxy = ["),
        (
            'ca_file = "missing.pem"',
            "ca_file (line 2): cannot be read: No such file or directory; ex",
        ),
        ('ca_file = "callflow.toml"', "holds no certificate; expected a file of certificates in P"),
        ('ca_file = ""', "expected the path of a file; for example ca_file = "),
        (
            "ca_file = true",
            "expected the path of a file of certificates in PEM form; for example ca_",
        ),
        ('allow_private_hosts = "yes"', "expected true or false, not text; for example allow_priv"),
        ('no_prxy = ["a"]', "network.no_prxy (line 2): unknown key; did you mean no_proxy?"),
    ],
)
def test_network_settings_that_are_wrong(read: Loader, line: str, expected: str) -> None:
    (problem,) = problems(read, f"[network]\n{line}")
    assert expected in problem
    assert problem.startswith("network.")
    assert CANARY not in problem
    (problem,) = problems(read, ZOOM + line)
    assert problem.startswith("sources.zoom_eu.")


@pytest.mark.fault(72)
def test_no_secret_in_any_form_of_the_settings(read: Loader) -> None:
    loaded = read(
        f'[warehouse]\nurl = "postgresql://u:{CANARY}@h/db"\n'
        f'[daemon]\nhttp_token = "{CANARY}"\nalert_webhook = "https://h/{CANARY}"\n'
        + ZOOM.replace('"sec"', f'"{CANARY}"')
        + TWILIO
        + f'auth_token = "{CANARY}"'
        + ALIBABA.replace('"sec"', f'"{CANARY}"')
        + f'security_token = "{CANARY}"'
    )
    for text in (repr(loaded), str(loaded), str(loaded.model_dump()), loaded.model_dump_json()):
        assert "zoom_eu" in text
        assert CANARY not in text


SECRETS = [
    "network.proxy",
    "sources.tw.proxy",
    "sources.zoom_eu.client_secret",
    "sources.tw.auth_token",
    "sources.tw.api_key_secret",
    "sources.al.access_key_secret",
    "sources.al.security_token",
    "warehouse.url",
    "daemon.http_token",
    "daemon.alert_webhook",
]


@pytest.mark.fault(72)
@pytest.mark.parametrize("key", [*SECRETS, "sources.tw.account_sid", "sources.al.timezone"])
@pytest.mark.parametrize("bad", [f"{CANARY} x", f"{CANARY}\n{CANARY}", f"http://{CANARY}", "…%s…"])
@pytest.mark.parametrize("where", ["toml", "variable", "file", "as the file's name"])
def test_no_value_in_any_message(
    read: Loader, tmp_path: Path, key: str, bad: str, where: str
) -> None:
    """Every value is wrong in some way, and no message repeats it."""
    bad = bad.replace("%s", CANARY)
    table, _, name = key.rpartition(".")
    env = {}
    providers = {"zoom_eu": "zoom", "tw": "twilio", "al": "alibaba"}
    text = "".join(f'[sources.{n}]\nprovider = "{p}"\n' for n, p in providers.items())
    secret_file(tmp_path / "s", bad)
    if where == "variable":
        env["CALLFLOW_" + key.replace(".", "__").upper()] = bad
    else:
        setting = {
            "toml": f"{name} = {json.dumps(bad)}",
            "file": f'{name}_file = "s"',
            "as the file's name": f"{name}_file = {json.dumps(bad)}",
        }[where]
        header = f"[{table}]\n"
        text = text if header in text else text + header
        text = text.replace(header, f"{header}{setting}\n")
    lines = problems(read, text, env)
    assert any(line.startswith(key) for line in lines) or bad.startswith("http://")
    assert CANARY not in "\n".join(lines)


@pytest.mark.parametrize("text", [ZOOM.replace('"sec"', f'"{CANARY} x"'), f'x = "{CANARY}'])
def test_the_error_has_no_cause_that_holds_the_input(read: Loader, text: str) -> None:
    """A traceback with its causes and contexts shows no secret."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# --- nothing but ConfigError ---------------------------------------------------------------------
TABLES = ["warehouse", "schedule", "daemon", "network", "security", "sources"]
KEYS = sorted(
    {"provider", "name", "schedule", "every", "cron", "url", "url_file", "http", "data_dir", "x"}
    | {"timeout", "instance_ids", "timezone", "auth_token", "auth_token_file", "jitter", "workers"}
    | set(ZoomSource.model_fields)
)
WORDS = ["zoom", "twilio", "alibaba", "…", "15m", "* * * * *", "https://h", "10%", "UTC", "/", "~"]
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.booleans(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text("aä.\n\" '", max_size=4), inner, max_size=4
        )
    ),
    max_leaves=8,
)
TABLE = st.dictionaries(st.sampled_from(KEYS) | st.text("ab-é ", max_size=4), VALUES, max_size=8)
SOURCES = st.dictionaries(
    st.sampled_from(["zoom_eu", "tw", "Bad-Name", "name", "a.b"]), TABLE | SCALARS, max_size=3
)
TREES = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(TABLES, TABLE | VALUES), "sources": SOURCES | VALUES}
)
VARIABLES = st.dictionaries(
    st.builds(
        "CALLFLOW_{}__{}".format,
        st.sampled_from([*TABLES, "SOURCES__TW", "sources__zoom_eu", "SOURCES__TW__SCHEDULE", "Q"]),
        st.sampled_from([k.upper() for k in KEYS]) | st.text("AB_ſ\n", max_size=4),
    ),
    st.sampled_from([*WORDS, "[1", "[" * 9999, "a,b", "1", "nan", "\udcff"]) | st.text(max_size=9),
    max_size=6,
)


def as_toml(value: Any) -> str:
    """Return TOML for what JSON can hold, with inline tables."""
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    return str(value).lower()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(tree=TREES, env=VARIABLES)
def test_any_settings_raise_nothing_but_a_config_error(
    tree: dict[str, Any], env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "random.toml"
    # json writes a pair of surrogates for what lies beyond U+FFFF, which TOML does not allow
    text = "".join(f"{key} = {as_toml(value)}\n" for key, value in tree.items())
    file.write_text(re.sub(r"\\ud[89ab]..\\ud[c-f]..", "?", text))
    only_config_errors(file, env)


def paths(tree: dict[str, Any], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Return the path of every key, also of those in tables inside."""
    found = {(*above, key) for key in tree}
    for key, value in tree.items():
        found |= paths(value, (*above, key)) if isinstance(value, dict) else set()
    return found


@settings(max_examples=300, deadline=None)
@given(tree=st.dictionaries(st.text("ab-.\"'#=[\n", max_size=4), VALUES, max_size=5))
def test_every_key_has_its_line(tree: dict[str, Any]) -> None:
    text = "".join(f"{as_toml(key)} =\t{as_toml(value)} # x = 1\n" for key, value in tree.items())
    lines = key_lines(text)
    for number, (key, value) in enumerate(tree.items(), 1):
        for path in paths({key: value}):
            assert lines[path] == number


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.text("[]\"'=\n.#a1\\{},\r\0é", max_size=60))
def test_any_bytes_raise_nothing_but_a_config_error(
    content: bytes | str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "random-bytes.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    only_config_errors(file, {})


def only_config_errors(file: Path, env: dict[str, str]) -> None:
    try:
        loaded = load(file, env)
    except ConfigError as error:
        lines = error.what.split("\n")
        assert len(lines) > 1 or error.advice
        if not error.advice:
            assert lines[0].split(" ")[0] == str(len(lines) - 1)
            assert all(re.match(r"  \S.*: ", line) for line in lines[1:])
    else:
        assert repr(loaded)


# --- what `callflow init` writes -----------------------------------------------------------------
def test_the_example_is_written_once_and_for_the_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "callflow.toml"
    write_example(file)
    assert file.read_bytes() == EXAMPLE.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert load(file, {}).sources == {}
    file.write_text("mine")
    with pytest.raises(ConfigError, match="already exists; it was not changed"):
        write_example(file)
    assert file.read_text() == "mine"
    with pytest.raises(ConfigError, match="No such file or directory → choose another path"):
        write_example(tmp_path / "no" / "callflow.toml")


def uncommented() -> str:
    return re.sub(r"(?m)^# (?=\[|\w+ = )", "", EXAMPLE.read_text())


def test_the_uncommented_example_lacks_only_its_placeholders(read: Loader) -> None:
    lines = problems(read, uncommented())
    placeholders = [line for line in lines if "is still the placeholder" in line]
    assert len(placeholders) == len(re.findall(r'(?m)^\w+ = \[?"…"', uncommented()))
    (other,) = set(lines) - set(placeholders)
    assert other.startswith("schedule.cron (line ")  # the example shows both ways


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://callflow.example", "https://callflow.example"),
        ("HTTP://Callflow.Internal:8787/", "http://callflow.internal:8787"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_the_page_s_address_is_for_any_host_with_or_without_tls(
    read: Loader, given: str, kept: str
) -> None:
    assert read(f'[daemon]\npublic_url = "{given}"').daemon.public_url == kept


def test_the_example_shows_every_key_and_the_true_defaults(read: Loader) -> None:
    text = re.sub(r"(?m)^(api_key_s|cron).*", "", uncommented())
    text = text.replace('account_sid = "…"', f'account_sid = "{AC}"')
    text = text.replace('alert_webhook = "…"', 'alert_webhook = "https://h"')
    text = text.replace('http_token_file = "…"', 'http_token = "t"')
    text = text.replace('ca_file = "…"', f"ca_file = {json.dumps(certifi.where())}")
    text = text.replace('proxy = "…"', 'proxy = "http://proxy:3128"')
    shown = read(text.replace('"…"', '"x"'))
    zoom, twilio, alibaba = (
        shown.sources[name] for name in ("zoom_eu", "twilio_main", "alibaba_sh")
    )
    chosen = {
        "url",
        "read_url",
        "data_dir",
        "http_token",
        "alert_webhook",
        "dask_scheduler",
        "public_url",
        "stale_after",
    }
    models = (shown.warehouse, shown.schedule, shown.daemon, shown.network, shown.security)
    for model in (*models, zoom, twilio, alibaba):
        fields = type(model).model_fields
        for key in fields.keys() - {"name", "schedule", "options"}:
            assert re.search(f"(?m)^{key}(_file)? = ", uncommented()), key
            default = (
                fields[key].get_default(
                    call_default_factory=True,
                    validated_data={"base_url": fields["base_url"].default},
                )
                if key.endswith("_url") and "base_url" in fields
                else fields[key].get_default()
            )
            if not fields[key].is_required() and default and key not in chosen | {"timezone"}:
                assert getattr(model, key) == default, key
    assert (shown.schedule.every, shown.schedule.full_every) == (
        read("").schedule.every,
        read("").schedule.full_every,
    )
    assert isinstance(twilio, TwilioSource)
    assert twilio.options["channels"].on_absent == "keep"
    assert "flex_flows" not in twilio.options
    assert isinstance(alibaba, AlibabaSource)
    assert alibaba.timezone == AlibabaSource.model_fields["timezone"].default


# --- which streams -------------------------------------------------------------------------------
TWO = TWILIO + 'auth_token = "t"\n'


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ("", ["tw.flex_flows", "tw.channels"]),
        ('streams = ["channels"]', ["tw.channels"]),
        ('streams = ["channels", "flex_flows"]', ["tw.flex_flows", "tw.channels"]),
    ],
)
def test_a_source_chooses_its_streams(read: Loader, given: str, chosen: list[str]) -> None:
    found = [name_of(unit) for unit in select(read(TWO + given), [])]
    known = [name_of(unit) for unit in select(read(TWO), [])]
    assert found == (chosen if given else known)
    assert set(chosen) <= set(known)


def test_a_variable_chooses_streams(read: Loader) -> None:
    for text in ("channels, flex_flows", '["channels", "flex_flows"]'):
        env = {"CALLFLOW_SOURCES__TW__STREAMS": text}
        assert read(TWO, env).sources["tw"].streams == ("channels", "flex_flows")
    (line,) = problems(read, TWO, {"CALLFLOW_SOURCES__TW__STREAMS": ""})
    assert line.startswith("sources.tw.streams ($CALLFLOW_SOURCES__TW__STREAMS): ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[]", 'expected one stream or more; known here: "flex_flows", "channels"'),
        ('["chanels"]', "; did you mean channels?"),
        ('["xyz"]', 'names no stream of this provider; known here: "flex_flows", "channels"'),
        ('["channels", 3]', "names no stream of this provider"),
        ('["channels", ["channels"]]', "names no stream of this provider"),
        ('["channels", "channels"]', 'twice; for example streams = ["flex_flows"]'),
        ('"channels"', "expected a list of streams, not text; known here: "),
        ("true", "expected a list of streams, not true or false; known here: "),
        ("{}", "expected a list of streams, not a table; known here: "),
        ('["…"]', "is still the placeholder; expected a list of the names of streams"),
    ],
)
def test_wrong_streams_are_one_problem_that_names_the_known_ones(
    read: Loader, given: str, expected: str
) -> None:
    (line,) = problems(read, f"{TWO}streams = {given}")
    assert line.startswith("sources.tw.streams (line 6): ")
    assert expected in line


def test_a_stream_that_is_not_chosen_cannot_be_named(read: Loader) -> None:
    with pytest.raises(ConfigError, match=r"there is no source or stream 'tw\.channels'"):
        select(read(f'{TWO}streams = ["flex_flows"]'), ["tw.channels"])


def test_options_of_a_stream_that_is_not_chosen_are_warned_of(read: Loader) -> None:
    text = TWO + 'streams = ["flex_flows"]\n[sources.tw.channels]\non_absent = "keep"\n'
    (warning,) = read(text).warnings
    assert warning.startswith("sources.tw.channels (line 7): this stream is not one of")
    assert not read(text.replace("channels", "flex_flows")).warnings
