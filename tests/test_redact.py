"""etl.config.redact: what becomes of text from outside. How long that takes: tests/faults."""

import base64
import html
import json
import re
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.config.redact import HIDDEN, LIMIT, Redactor, harmless, masked


@given(st.text(max_size=400))
def test_an_excerpt_is_one_short_printable_line(text: str) -> None:
    cleaned = Redactor()(text)
    assert len(cleaned) <= 200
    assert cleaned.isprintable()
    assert cleaned == Redactor()(cleaned)


@pytest.mark.parametrize(
    "private",
    [
        "+1 (605) 205-2430",
        "16052052430",
        "400-289-1234",
        "someone@example.org",
        "https://user:password@example.org/x",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0",
        "0123456789abcdef0123456789abcdef",
    ],
)
def test_an_excerpt_holds_nothing_private(private: str) -> None:
    assert Redactor()(f"before {private} after") == "before … after"


@pytest.mark.parametrize(
    "number",
    [
        "+4915112345678", "+49 151 1234-5678", "+1 (212) 555-0100", "+49 (0)30 1234567",
        "%2B4915112345678", "whatsapp:+14155238886", "tel:13800138000", "sip:13800138000@host",
        "13800138000", "138 0013 8000", "138-0013-8000", "(212) 555-0100", "212-555-0100",
        "212.555.0100", "1-212-555-0100", "555-0100", "030 1234567", "010-12345678",
        "0151 23456789", "01 23 45 67 89", "01.23.45.67.89", "00491511234567", "0301234567",
        "2125550100", "2125550100x12",
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "call {} now", "[{},{}]", '"{}"', "from {}.", "3 of {}"])
def test_a_phone_number_does_not_leave(number: str, around: str) -> None:
    text = masked(around.format(number, number))
    assert not re.search(r"\d{3}", text), text
    assert "…" in text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20", "2026-11-20T12:00:00Z", "2026-11-20T12:00:00.123456+00:00",
        "2026-11-20 12:00:00.123+08:00", "page 12 of 2026-11-20 12:00:00",
        "attempt 3 2026-11-20 12:00:00", "12 2026-11-20T12:00:00Z", "20.11.2026 12:00",
        "Fri, 20 Nov 2026 12:00:00 GMT", "Fri, 20 Nov 2026 12:00:00 +0800", "12:00:00",
        "12345678901234567890123456789012", "550e8400-e29b-41d4-a716-446655440000",
        "12345678-1234-1234-1234-123456789012", "0a1b2c3d4e5f67890a1b2c3d4e5f6789",
        "zoom_4930123456.flows", "AC00000000000000000000000000000000",
        "1234567 rows", "123456789 bytes in 0.123 s", "1,234,567,890 records",
        "200, 67108864 bytes", "127.0.0.1:8787", "192.168.100.200",
        "10.20.30.40, port 5432", "::1", "version 18.6",
        "3.11.14", "2026.8.0", "1763620800.123", "42P01", "every 15m", "cron */15 0 1 1 * UTC",
        "cron 15 10 20 11 * Europe/Berlin", "http://127.0.0.1:8787/readyz", "https://api.zoom.us/v2",
        "HTTP 429: slow down; it asks to wait 86400 s", "what now?", "really? yes=no", "a ? b=1",
        "Basic authentication is off", "-1234567", "0.1234567", "3600.0", "ccc-test-12", "±1 year",
    ],
)  # fmt: skip
def test_text_that_is_not_a_phone_number_stays_readable(text: str) -> None:
    assert masked(text) == text
    assert masked(f"({text}), {text}") == f"({text}), {text}"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("see https://h.example/p/q?token=abc&x=1, now", "see https://h.example/p/q?…"),
        ("https://h.example?abc now", "https://h.example?… now"),
        ("'https://h.example/#abc'", "'https://h.example/?…'"),
        ("postgresql://me:pw@db:5432/callflow", "postgresql://…@db:5432/callflow"),
        ("postgresql://me:p@w?d/x@db/callflow", "postgresql://…@db/callflow"),
        ('"GET /page?token=abc HTTP/1.1"', '"GET /page?… HTTP/1.1"'),
        ("Authorization: Bearer abcdefghijklmnopqrstuvwxyz", "Authorization: Bearer …"),
        ("authorization: basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "authorization: basic …"),
    ],
)
def test_the_query_and_the_password_of_a_url_are_hidden(text: str, cleaned: str) -> None:
    assert masked(text).removesuffix(" now") == cleaned.removesuffix(" now")


# --- secrets -------------------------------------------------------------------------------------
SECRET = "S3cr&t/pa+ss'W<rd>0123456789"
URL = "postgresql+psycopg://me:p%40ss%2Fword%21@db.example:5432/callflow"
HOOK = "https://hooks.example/services/T0123456/B0123456/abcdefghijklmnopqrst"
KNOWN = Redactor([SECRET, URL, HOOK, f"client:{SECRET}"])

WRITTEN = {
    "plain": SECRET,
    "small letters": SECRET.lower(),
    "in a word": f"x{SECRET}y",
    "URL": urllib.parse.quote(SECRET, safe=""),
    "URL, small digits": urllib.parse.quote(SECRET, safe="").replace("%3C", "%3c"),
    "URL, every character": "".join(f"%{ord(each):02x}" for each in SECRET),
    "URL twice": urllib.parse.quote(urllib.parse.quote(SECRET)),
    "form": urllib.parse.quote_plus(SECRET),
    "JSON": json.dumps(SECRET),
    "JSON twice": json.dumps(json.dumps(SECRET)),
    "JSON of Go": SECRET.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    "JSON of PHP": SECRET.replace("/", "\\/"),
    "JSON, every character": "".join(f"\\u{ord(each):04X}" for each in SECRET),
    "HTML": html.escape(SECRET),
    "HTML, every character": "".join(f"&#{ord(each)};" for each in SECRET),
    "Python": repr(SECRET),
    "hexadecimal": SECRET.encode().hex(),
    "Base64": base64.b64encode(SECRET.encode()).decode(),
    "Base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "Basic": base64.b64encode(f"client:{SECRET}".encode()).decode(),
    **{
        f"Base64, {n} characters before": base64.b64encode(
            f"{'u' * n}{SECRET}{end}".encode()
        ).decode()
        for n, end in enumerate(("", "z", "zz"), 1)
    },
    "a URL's password": "p@ss/word!",
    "a URL's password, quoted": "p%40ss%2Fword%21",
    "a webhook's path": "/services/T0123456/B0123456/abcdefghijklmnopqrst",
    "a webhook's key": "abcdefghijklmnopqrst",
}


@pytest.mark.fault(72)
@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize(
    "around", ["{}", "said {} twice: {}", '{{"key":"{}"}}', "a={}&b=c", "<b>{}</b>"]
)
def test_a_known_secret_is_hidden_however_it_is_written(form: str, around: str) -> None:
    text = around.format(WRITTEN[form], WRITTEN[form])
    for shown in (KNOWN(text), KNOWN.name(text), KNOWN.message(text), KNOWN.logged(text)):
        assert HIDDEN in shown
        for n in range(len(WRITTEN[form]) - 9):
            assert WRITTEN[form][n : n + 10].lower() not in shown.lower(), shown


@pytest.mark.parametrize("form", ["plain", "Base64", "URL", "a webhook's key"])
@pytest.mark.parametrize("end", ["", "…", "...", '"}', " …", ")"])
def test_the_start_of_a_secret_that_a_provider_cut_is_hidden(form: str, end: str) -> None:
    for length in range(8, len(WRITTEN[form])):
        shown = KNOWN(f"it was {WRITTEN[form][:length]}{end}")
        assert WRITTEN[form][:8] not in shown, shown
    assert KNOWN(f"it was {WRITTEN[form][:4]} or so") == f"it was {WRITTEN[form][:4]} or so"


@pytest.mark.parametrize("before", range(0, 20 * LIMIT + 2, 7))
def test_a_secret_across_the_cut_is_hidden_as_a_whole(before: int) -> None:
    for text in ("-" * before, "<br>" * (before // 4), "\n" * before):
        assert "S3cr" not in KNOWN(text + SECRET + "x" * 5000)
        assert "S3cr" not in KNOWN.message(text + SECRET + "x" * 5000, limit=before + 10)


def test_tokens_got_at_run_time_are_hidden_by_all_redactors_of_the_configuration() -> None:
    configured = Redactor([SECRET])
    run, other = configured.apart(["another-secret"]), configured.apart()
    run.learn("token-0-of-the-provider")
    run.learn("token-0-of-the-provider")
    assert run("is token-0-of-the-provider, another-secret") == "is …, …"
    assert other("is token-0-of-the-provider, another-secret") == "is …, another-secret"
    assert configured("is token-0-of-the-provider") == "is …"
    for n in range(1, 65):
        run.learn(f"token-{n}-of-the-provider")
    assert other.message(f"token-1-of-the-provider token-64-of-the-provider {SECRET}") == "… … …"
    assert other("is token-0-of-the-provider") == "is token-0-of-the-provider", "forgotten by now"


@pytest.mark.parametrize("secret", ["s", "t", "eu", "403", "zoom", "flows", "30"])
def test_a_short_secret_takes_nothing_of_our_own_words_away(secret: str) -> None:
    redact = Redactor([secret, f"c:{secret}"])
    for text in (
        "zoom_eu.flows, page 3: HTTP 403: no; it asks to wait 30 s → check zoom_eu",
        "no complete answer from api.zoom.us within 30 s",
        "instance ccc-eu, 403 of 900 contact flows, 2026-11-20 12:00:00+00:00",
    ):
        assert redact.message(text) == text
    if not secret.isdigit():
        for text in ("it waits 30 s", "zoom_eu.flows", "of api.zoom.us", "it's at ccc-eu"):
            assert redact(text) == text
    assert redact(f"key {secret}, user") == "key …, user"
    assert redact(f"Basic {base64.b64encode(f'c:{secret}'.encode()).decode()}") == "Basic …"


@pytest.mark.parametrize("secret", ["postgres", "callflow", "password", "12345678"])
def test_a_password_that_is_a_plain_word_spoils_no_message_of_ours(secret: str) -> None:
    redact = Redactor([f"postgresql+psycopg://postgres:{secret}@db/callflow", secret])
    text = "Postgres: the schema is behind; 12345678 rows → run `callflow migrate`, see password"
    assert redact.message(text) == text
    assert secret not in redact(f"it is {secret}")


# --- what is shown -------------------------------------------------------------------------------
AWKWARD = "\x00\x07\x08\x1b\x7f\x85\x9b\u061c\u200b\u200f\u2028\u2029\u202e\u2066\ufeff\ud800\udfff"


@pytest.mark.fault(41)
@given(st.text(st.sampled_from(AWKWARD + "\r\n\t a1%<>/@"), max_size=60))
def test_no_terminal_code_and_no_line_break_is_left(text: str) -> None:
    for shown in (Redactor()(text), Redactor().name(text), Redactor().message(text)):
        assert shown.isprintable()
        shown.encode()
    assert not set(harmless(text)) & set(AWKWARD + "\r\n\t")
    assert len(harmless(text)) == len(text)
    assert harmless("a\nb\x1b", keep="\n") == "a\nb␛"


def test_data_of_any_script_is_shown_as_it_is() -> None:
    for text in (
        "Übersicht – Zürich",
        "呼叫流程",
        "תפריט",
        "👩\u200d💻",
        "نستعلیق\u200cها",
        "a\u00a0b",
    ):
        assert harmless(text) == text


@given(st.text(max_size=300))
def test_redacted_again_a_message_stays_as_it_is(text: str) -> None:
    redact = KNOWN
    once = redact(text)
    assert redact(once) == once
    shown = redact.message(f"zoom_eu.flows: HTTP 400: {once} → run again")
    assert redact.message(shown) == shown


def test_markup_and_hidden_parts_of_a_page_are_removed() -> None:
    page = "<html><STYLE>p {a: b}</style><script>x = '<p>'</script><p>Sign in</p><script>y"
    assert Redactor()(page) == "Sign in"


def test_what_an_operator_needs_stays_readable() -> None:
    for text in (
        "the instance ccc-test-12 has 3 of 900 flows; HTTP 404, code 20404",
        "request 550e8400-e29b-41d4-a716-446655440000 at 2026-11-20T12:00:00Z",
        "the resource /v1/FlexFlows/FO0123456789abcdef0123456789abcdef was not found",
        "no answer of ccc.cn-shanghai.aliyuncs.com (10.20.30.40)",
        "add contact_center:read:list_flows:admin",
    ):
        assert Redactor()(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2, user=me", "password=…, user=me"),
        ('{"client_secret": "abc", "n": 1}', '{"client_secret": "…", "n": 1}'),
        ("Authorization: Basic Y2xpZW50OnNlY3JldA==", "Authorization: Basic …"),
        ("mail some.one%40example.org", "mail …"),
        ("138****1234 called", "… called"),
    ],
)
def test_text_like_a_secret_or_a_phone_number_is_hidden(text: str, shown: str) -> None:
    assert Redactor()(text) == shown
