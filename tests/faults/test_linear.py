"""Nothing that reads text from outside takes longer than in proportion to it.

Every expression in the package is tried, wherever it stands, and every function that takes such
text: four times the text may take four times as long, but not sixteen times.
"""

import ast
import importlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.config.redact import Redactor, harmless, masked
from etl.errors import ContractError
from etl.extract.answer import asked_wait, instant, words
from etl.extract.url import same_origin

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SHORT, TIMES = 2_000, 4
PIECES = (
    *("a", "A", "1", "1 ", "12-", "(1", "((", "+1", "!", "é", " ", "\n", "\x1b", "\0", "\u202e"),
    *("\ud800", "<", "<a ", "<script", ">", "&", "&#x", "%", "%4", "%2B", "\\", "\\u", "@", "a@"),
    *(
        "://",
        "a://",
        "?",
        "?a",
        "?a=",
        "=",
        '"',
        "'",
        "[",
        "]",
        "{",
        ".",
        "1.",
        "a.",
        "a-",
        "_",
        "a_",
    ),
    *(":", "a:", ",", "/", "…", "-", "2026-11-20", "0a1b2c3d-", "FATAL: role "),
)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
KNOWING = Redactor(["a" * 40, "1 1 1 1 1 1 1 1", "secret-" * 9, "https://a.example/a/a/a/aaaaaaaa"])


Expressions = Iterator[tuple[str, re.Pattern[str], str]]
METHODS = "search|match|fullmatch|sub|split|findall"


def expressions() -> Expressions:
    """Return every regular expression of the package, and how it is used."""
    for path in sorted((ROOT / "etl").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if module.startswith(("etl.sandbox", "etl.__main__")):
            continue  # it takes no text from outside; it is only for trying
        code = path.read_text(encoding="utf-8")
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                for method in set(re.findall(rf"\b{name}\.({METHODS})\(", code)):
                    yield f"{module}.{name}", value, method
        for node in ast.walk(ast.parse(code)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "re"
                and node.func.attr in METHODS.split("|")
                and isinstance(node.args[0], ast.Constant)
            ):
                pattern = re.compile(str(node.args[0].value), re.DOTALL)
                yield f"{module}:{node.lineno}", pattern, node.func.attr


def used(pattern: re.Pattern[str], method: str) -> Callable[[str], object]:
    if method == "sub":
        return lambda text: pattern.sub("", text)
    work: Callable[[str], object] = getattr(pattern, method)
    return work


def refused(text: str) -> None:
    with suppress(ContractError):
        same_origin(f"https://a.example/{text}", "https://b.example", "/")


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "quoted": KNOWING,
    "quoted whole": lambda text: KNOWING(text, limit=len(text)),
    "a name": lambda text: KNOWING.name(text, limit=len(text)),
    "a message": lambda text: KNOWING.message(text, limit=len(text)),
    "a line of the log": KNOWING.logged,
    "masked": masked,
    "harmless": harmless,
    "an instant": instant,
    "a wait": lambda text: asked_wait({"retry-after": text}, NOON),
    "words": lambda text: words({"message": text}),
    "the next page": refused,
}


def awkward(pieces: Iterator[str] | list[str], length: int) -> Iterator[str]:
    for piece in pieces:
        for end in ("", "!"):
            yield piece * (length // len(piece)) + end


def seconds(work: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    work(text)
    return time.process_time() - started


def growing(work: Callable[[str], object], pieces: list[str]) -> Iterator[str]:
    """Yield the awkward texts that take more time than in proportion to their length."""
    for short, long in zip(awkward(pieces, SHORT), awkward(pieces, SHORT * TIMES), strict=True):
        whole = seconds(work, long)
        if whole > 0.006:  # whatever takes less is no matter
            once = min(seconds(work, short) for _ in range(3))
            most = 2.5 * TIMES * once + 0.005
            if whole > most:  # perhaps by chance
                whole = min(seconds(work, long) for _ in range(2))
            if whole > most:
                yield f"{short[:30]!r}: {once:.4f} s, {TIMES} times as long: {whole:.4f} s"


def look() -> list[str]:
    found = []
    for name, pattern, method in expressions():
        own = re.findall(r"[A-Za-z_:/<(\[]{2,}", pattern.pattern)[:5]
        found += [f"{name} {each}" for each in growing(used(pattern, method), [*PIECES, *own])]
    for name, work in FUNCTIONS.items():
        found += [f"{name} {each}" for each in growing(work, list(PIECES))]
    return found


@pytest.mark.fault(4, 41)
def test_nothing_takes_longer_than_in_proportion_to_the_text() -> None:
    """Run in a separate process: `re` holds the GIL while it runs and cannot be interrupted."""
    code = "from tests.faults.test_linear import look; print('\\n'.join(look()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=300, errors="replace",
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_nonlinear_time_is_detected() -> None:
    for pattern in (r"[^\s@]+@[^\s@]+", r"\w+://", r"<[^>]*>", r"<(script)\b.*?</\1>"):
        work = used(re.compile(pattern, re.DOTALL), "sub")
        assert any(growing(work, ["!", "a", "<", "<script "])), pattern


def test_expressions_are_found_wherever_they_stand() -> None:
    names = {name for name, _, _ in expressions()}
    assert {
        "etl.config.redact._PRIVATE",
        "etl.extract.answer._NUMBER",
        "etl.config.read._KUBERNETES",
    } <= names
    assert any(name.startswith("etl.extract.zoom:") for name in names)
