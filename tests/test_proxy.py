"""Proxies and private authorities: real tunnels, real TLS, and what is said when they fail."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from etl import api
from etl.config.hosts import address, is_exempt, is_loopback, is_private
from etl.daemon.messages import send
from etl.errors import (
    CallflowError,
    ConfigError,
    ContractError,
    CredentialsError,
    UnavailableError,
)
from etl.extract import zoom
from etl.extract.http import Http, Seam
from etl.extract.route import Route
from etl.extract.verdict import judge_status
from etl.providers.catalog import STREAMS
from etl.providers.declare import open_http
from etl.providers.zoom.source import ZoomSource
from etl.sandbox import data
from etl.sandbox.server import Sandbox, serve
from etl.sandbox.wire import serving
from etl.sandbox.zoom import Zoom
from tests.daemon.test_alerts import hook, many
from tests.extract.scripted import Script, Time, unsigned
from tests.extract.sources import zoom_source
from tests.postgres import dsn
from tests.proxies import Authority, Proxy, in_tls, proxied

pytestmark = pytest.mark.slow

API, TOKENS = "api.zoom.test", "zoom.test"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_zoom(authority: Authority) -> Iterator[tuple[Zoom, int]]:
    """Serve Zoom behind TLS, with certificates of `authority`."""
    emulator = Zoom()
    with serving(emulator) as url:
        port = int(url.rpartition(":")[2])
        with in_tls(port, authority.server(API, TOKENS)) as front:
            yield emulator, front


def source(authority: Authority | None, proxy: str, **changes: Any) -> ZoomSource:
    return zoom_source(
        base_url=f"https://{API}/v2",
        token_url=f"https://{TOKENS}/oauth/token",
        proxy=SecretStr(proxy),
        ca_file=authority.ca_file if authority else None,
        **changes,
    )


@contextmanager
def connected(settings: ZoomSource) -> Iterator[Http]:
    time = Time()
    with open_http(settings, STREAMS["zoom.flows"], clock=time, sleep=time.sleep) as http:
        yield http


def fails(settings: ZoomSource, kind: type[CallflowError]) -> CallflowError:
    with connected(settings) as http, pytest.raises(CallflowError) as caught:
        zoom.probe_flows(http)
    assert type(caught.value) is kind, caught.value
    return caught.value


def last_word(base: str, route: Route, timeout: float) -> CallflowError:
    """Return the error of a request by `route`, by the machine's clock and without pauses."""
    with (
        Http(
            base,
            Seam("x", timeout, route=route, sleep=lambda seconds: None),
            sign=unsigned,
            judge=judge_status,
        ) as http,
        pytest.raises(CallflowError) as caught,
    ):
        http.call("GET", "/")
    return caught.value


@contextmanager
def working(tls_zoom: tuple[Zoom, int], **how: Any) -> Iterator[Proxy]:
    with proxied({API: tls_zoom[1], TOKENS: tls_zoom[1]}, **how) as proxy:
        yield proxy


def test_requests_go_through_the_tunnel_and_the_proxy_sees_no_credentials(
    authority: Authority, tls_zoom: tuple[Zoom, int]
) -> None:
    with working(tls_zoom) as proxy, connected(source(authority, proxy.url)) as http:
        before = len(tls_zoom[0].requests)
        for _ in range(3):
            zoom.probe_flows(http)
    assert proxy.asked == [f"CONNECT {host}:443 HTTP/1.1" for host in (TOKENS, API)]
    for head in proxy.heads:
        lines = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
        assert lines == {b"host", b"accept"}
    assert len(tls_zoom[0].requests) - before == 1 + 3


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_proxy_gets_its_own_user_and_password(
    authority: Authority, tls_zoom: tuple[Zoom, int], tls: bool
) -> None:
    secret = "p@ss:w/ö"
    context = authority.server("127.0.0.1") if tls else None
    with working(tls_zoom, login=f"me:{secret}", tls=context) as proxy:
        place = proxy.url.partition("//")[2]
        login = "me:p%40ss%3Aw%2F%C3%B6@"
        settings = source(authority, f"{proxy.url.partition('//')[0]}//{login}{place}")
        with connected(settings) as http:
            zoom.probe_flows(http)
        for url in (proxy.url, proxy.url.replace("//", "//me:wr0ng@")):
            error = fails(source(authority, url), CredentialsError)
            assert f"the proxy {place} answered HTTP 407: it wants a user" in error.what
            assert "network.proxy" in error.advice
            assert "wr0ng" not in str(error)


@pytest.mark.parametrize(
    ("answer", "kind", "what", "attempts"),
    [
        (
            "403 Forbidden",
            CredentialsError,
            "HTTP 403: it does not let callflow reach zoom.test",
            1,
        ),
        (
            "404 Not Found",
            ContractError,
            "answered HTTP 404 where a proxy connects to zoom.test",
            1,
        ),
        ("302 Found", ContractError, "answered HTTP 302 where a proxy connects to zoom.test", 1),
        (
            "502 Bad Gateway",
            UnavailableError,
            "HTTP 502: it cannot reach zoom.test (6 attempts)",
            6,
        ),
        ("503 <b>+1 605 205 2430</b>", UnavailableError, "HTTP 503: it cannot reach zoom.test", 6),
        ("504 Gateway Timeout", UnavailableError, "HTTP 504: it cannot reach zoom.test", 6),
    ],
)
def test_what_a_proxy_answers_is_explained(
    authority: Authority,
    tls_zoom: tuple[Zoom, int],
    answer: str,
    kind: type[CallflowError],
    what: str,
    attempts: int,
) -> None:
    page = f"HTTP/1.1 {answer}\r\nContent-Type: text/html\r\n\r\n<html>Secret-Canary</html>"
    with working(tls_zoom, answer=page.encode()) as proxy:
        error = fails(source(authority, proxy.url), kind)
    assert what in error.what
    assert "proxy" in error.advice
    assert "anary" not in str(error)
    assert "2430" not in str(error)
    assert len(proxy.heads) == attempts


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Please log in</html>",
        b"<html>no HTTP at all</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_a_proxy_that_is_none_is_explained(authority: Authority, answer: bytes) -> None:
    with proxied({}, answer=answer) as proxy:
        error = fails(source(authority, proxy.url), UnavailableError)
    assert "check network.proxy, and whether the proxy runs" in error.advice


def test_a_proxy_that_is_not_there(authority: Authority) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        error = fails(source(authority, f"http://{place}"), UnavailableError)
    assert f"cannot connect to the proxy {place}: Connection refused" in error.what
    assert error.advice == "check network.proxy, and whether the proxy runs"
    error = fails(source(authority, "http://proxy.invalid:3128"), UnavailableError)
    assert "cannot resolve the proxy proxy.invalid:3128" in error.what


def test_a_proxy_that_says_nothing_meets_the_deadline(authority: Authority) -> None:
    with proxied({}, stall=True) as proxy:
        error = last_word(f"https://{API}", Route(proxy.url, ca_file=authority.ca_file), 0.1)
    assert type(error) is UnavailableError
    assert "within 0.1 s (6 attempts)" in error.what
    assert len(proxy.heads) == 6


def test_exceptions_and_a_source_without_one_go_past_the_proxy(
    authority: Authority, tls_zoom: tuple[Zoom, int]
) -> None:
    with working(tls_zoom) as proxy:
        for settings in (
            source(authority, proxy.url, no_proxy=(".test",)),
            source(authority, ""),
        ):
            error = fails(settings, UnavailableError)
            assert "cannot resolve zoom.test" in error.what
            assert "only through a proxy, set network.proxy" in error.advice
        assert not proxy.heads
        # One host past it, the other through it.
        error = fails(source(authority, proxy.url, no_proxy=(API,)), UnavailableError)
        assert "cannot resolve api.zoom.test" in error.what
    assert proxy.asked == ["CONNECT zoom.test:443 HTTP/1.1"]


def test_loopback_is_never_proxied(authority: Authority) -> None:
    script = Script({"good": True})
    with serving(script) as url, proxied({}) as proxy:
        port = int(url.rpartition(":")[2])
        with in_tls(port, authority.server("127.0.0.1", "localhost")) as front:
            route = Route(proxy.url, ca_file=authority.ca_file)
            for base in (url, f"https://127.0.0.1:{front}", f"https://localhost:{front}"):
                seam = Seam("x", route=route)
                with Http(base, seam, sign=unsigned, judge=judge_status) as http:
                    http.call("GET", "/")
        assert not proxy.heads


# --- authorities ---------------------------------------------------------------------------------
@pytest.mark.fault(22)
def test_an_unknown_authority_is_refused_behind_a_proxy_too(
    tls_zoom: tuple[Zoom, int], tmp_path: Path
) -> None:
    before = len(tls_zoom[0].requests)
    with working(tls_zoom) as proxy:
        for other in (None, Authority(tmp_path, "Another CA")):
            error = fails(source(other, proxy.url), CredentialsError)
            assert f"the certificate of {TOKENS} cannot be verified: " in error.what
            assert "if TLS is inspected on the way, set network.ca_file" in error.advice
    assert len(proxy.heads) == 2
    assert len(tls_zoom[0].requests) == before


@pytest.mark.fault(22)
def test_a_certificate_of_another_host_is_refused_behind_a_proxy(
    authority: Authority, tls_zoom: tuple[Zoom, int]
) -> None:
    with working(tls_zoom) as proxy:
        settings = source(authority, proxy.url).model_copy(
            update={"token_url": "https://other.test/oauth/token"}
        )
        with_other = {**proxy.ports, "other.test": tls_zoom[1]}
        with proxied(with_other) as second:
            error = fails(
                settings.model_copy(update={"proxy": SecretStr(second.url)}), CredentialsError
            )
    assert "the certificate of other.test cannot be verified: Hostname mismatch" in error.what


def test_a_proxy_s_own_certificate_is_verified(
    tls_zoom: tuple[Zoom, int], authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "Another CA")
    with working(tls_zoom, tls=other.server("127.0.0.1")) as proxy:
        error = fails(source(authority, proxy.url), CredentialsError)
    assert "the certificate of 127.0.0.1 cannot be verified" in error.what
    assert not proxy.heads


def test_a_missing_file_of_certificates_is_named(authority: Authority) -> None:
    settings = source(authority, "http://127.0.0.1:9").model_copy(
        update={"ca_file": Path("/nowhere/ca.pem")}
    )
    with pytest.raises(ConfigError, match=r"/nowhere/ca\.pem: cannot be read: No such file"):
        connected(settings).__enter__()


@pytest.mark.fault(31)
def test_the_environment_decides_nothing(authority: Authority, tmp_path: Path) -> None:
    """The environment sets no proxy, authority or password, and no file for TLS keys."""
    script, keys = Script({"good": True}), tmp_path / "keys"
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password sesame\n")
    netrc.chmod(0o600)
    closed = "http://127.0.0.1:1"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environment = {
        **os.environ,
        **dict.fromkeys(names, closed),
        "no_proxy": "",
        "NETRC": str(netrc),
        "SSLKEYLOGFILE": str(keys),
        "SSL_CERT_FILE": str(authority.ca_file),
        "SSL_CERT_DIR": str(authority.ca_file.parent),
    }
    context = authority.server("127.0.0.1")
    with serving(script) as url, in_tls(int(url.rpartition(":")[2]), context) as front:
        done = subprocess.run(
            [sys.executable, "-c", CALL, f"https://127.0.0.1:{front}", str(authority.ca_file)],
            env=environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    refused, good = done.stdout.splitlines()
    assert "the certificate of 127.0.0.1 cannot be verified" in refused
    assert "good" in good
    (request,) = script.requests
    assert "authorization" not in request.headers
    assert not keys.exists()


CALL = """
import sys
from pathlib import Path
from etl.errors import CallflowError
from etl.extract.http import Http, Seam
from etl.extract.route import Route
from etl.extract.verdict import judge_status
for route in (Route(), Route(ca_file=Path(sys.argv[2]))):
    seam = Seam("x", route=route)
    with Http(sys.argv[1], seam, sign=lambda *_: {}, judge=judge_status) as http:
        try: print(http.call("GET", "/"))
        except CallflowError as error: print(error)
"""


# --- addresses -----------------------------------------------------------------------------------
def local_name() -> tuple[str, str]:
    """Return a name of this machine other than localhost, and its address."""
    for name in (socket.gethostname(), "ip6-localhost", "ip6-loopback", "localhost.localdomain"):
        try:
            found = str(socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)[0][4][0])
        except OSError:
            continue
        if is_private(found) and not is_loopback(name):
            return name, found
    pytest.skip("every name of this machine leads to a public address")


@pytest.mark.fault(71)
def test_no_request_is_sent_to_a_name_with_a_private_address() -> None:
    name, found = local_name()
    family = socket.AF_INET6 if ":" in found else socket.AF_INET
    with socket.create_server((found, 0), family=family) as listener:
        listener.settimeout(10)
        base = f"https://{name}:{listener.getsockname()[1]}"
        for route, kind in ((Route(), ContractError), (Route(private=True), UnavailableError)):
            error = last_word(base, route, 0.2)
            assert type(error) is kind
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                sent = connection.recv(1)
            assert bool(sent) is route.private
            if not route.private:
                assert "an address of a private network" in error.what
                assert "allow_private_hosts = true" in error.advice


@pytest.mark.parametrize(
    ("host", "exceptions", "exempt"),
    [
        ("api.zoom.us", (), False),
        ("api.zoom.us", ("*",), True),
        ("api.zoom.us", ("api.zoom.us",), True),
        ("api.zoom.us", ("API.Zoom.us",), True),
        ("api.zoom.us", ("zoom.us",), True),
        ("api.zoom.us", (".zoom.us",), True),
        ("zoom.us", (".zoom.us",), False),
        ("azoom.us", ("zoom.us",), False),
        ("api.zoom.us", ("10.0.0.0/8",), False),
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("11.1.2.3", ("10.0.0.0/8",), False),
        ("::ffff:10.1.2.3", ("10.0.0.0/8",), True),
        ("2001:db8::1", ("2001:db8::/32",), True),
        ("2001:db8::1", ("10.0.0.0/8", "3.2.1.0"), False),
        ("1.2.3.4", ("1.2.3.4",), True),
        ("1.2.3.4", ("4",), False),
        ("127.9.9.9", (), True),
        ("localhost", (), True),
        ("::1", (), True),
    ],
)
def test_which_hosts_are_exempt(host: str, exceptions: tuple[str, ...], exempt: bool) -> None:
    assert is_exempt(host, exceptions) is exempt


def test_addresses_inside_addresses() -> None:
    for text in ("::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "[::ffff:a00:1]"):
        assert str(address(text)) == "10.0.0.1"
    assert address("fe80::1%eth0") == address("fe80::1")
    assert address("host.example") is None


# --- what uses it --------------------------------------------------------------------------------
@pytest.mark.parametrize("proxy", ["working", "down"])
def test_the_webhook_goes_through_the_proxy(authority: Authority, proxy: str) -> None:
    with hook() as server:
        context = authority.server("hooks.test")
        with (
            in_tls(server.server_address[1], context) as front,
            proxied({"hooks.test": front} if proxy == "working" else {}) as running,
        ):
            route = Route(running.url, ca_file=authority.ca_file)
            if proxy == "working":
                send("https://hooks.test/sesame?open", many(1), route=route)
            else:
                with pytest.raises(UnavailableError) as caught:
                    send("https://hooks.test/sesame?open", many(1), route=route)
                assert "answered HTTP 502: it cannot reach hooks.test" in caught.value.what
                assert "sesame" not in str(caught.value)
        assert [path for path, _, _ in server.came] == ["/sesame?open"] * (proxy == "working")
        assert running.asked == ["CONNECT hooks.test:443 HTTP/1.1"]
        assert b"sesame" not in running.heads[0]


HOSTS = {"zoom": API, "twilio": "twilio.test", "alibaba": "ccc.test"}


def urls(sandbox: Sandbox) -> tuple[str, ...]:
    return sandbox.zoom.url, sandbox.twilio.url, sandbox.alibaba.url


@contextmanager
def everything_in_tls(sandbox: Sandbox, authority: Authority) -> Iterator[dict[str, int]]:
    context = authority.server(*HOSTS.values())
    ports = [int(url.rpartition(":")[2]) for url in urls(sandbox)]
    with (
        in_tls(ports[0], context) as one,
        in_tls(ports[1], context) as two,
        in_tls(ports[2], context) as three,
    ):
        yield dict(zip(HOSTS.values(), (one, two, three), strict=True))


def test_check_and_sync_of_every_provider_through_a_proxy(
    authority: Authority, warehouse: str, tmp_path: Path
) -> None:
    with serve(data.Sizes(3, 3)) as sandbox, everything_in_tls(sandbox, authority) as ports:
        text = sandbox.toml()
        for url, host in zip(urls(sandbox), HOSTS.values(), strict=True):
            text = text.replace(url, f"https://{host}")
        with proxied(ports, login="me:secret") as proxy:
            place = proxy.url.replace("//", "//me:secret@")
            path = tmp_path / "callflow.toml"
            path.write_text(
                f'[warehouse]\nurl = "{dsn(warehouse)}"\n[network]\nproxy = "{place}"\n'
                f'ca_file = "{authority.ca_file}"\n{text}'
            )
            path.chmod(0o600)
            done = subprocess.run(
                [sys.executable, "-m", "etl", "check", "--config", str(path)],
                cwd=ROOT,
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            runs = [
                run for name in api.streams(path, env={}) for run in api.sync(name, path, env={})
            ]
            assert {run.status for run in runs} == {"complete"}, [run.error for run in runs]
            assert len(runs) == len(STREAMS)
    assert {line.split(" ")[1].partition(":")[0] for line in proxy.asked} == set(HOSTS.values())
