"""etl.redact: what becomes of text from outside, and how long that takes."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.redact import Redactor, masked


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
def test_what_is_no_phone_number_stays_readable(text: str) -> None:
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
def test_no_query_and_no_password_of_a_url_leaves(text: str, cleaned: str) -> None:
    assert masked(text).removesuffix(" now") == cleaned.removesuffix(" now")


def test_long_texts_take_no_long_time() -> None:
    code = (
        "import sys; from etl.redact import masked\n"
        "for piece in ('a', '1', '1 ', '12 ', '://', 'a://', '?', '?a=', '+1', '(', '-', '1.1'):\n"
        "    masked(piece * (200_000 // len(piece)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
