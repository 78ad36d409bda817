"""Finding known secrets in a text, in whatever form they are written there."""

import base64
import html
import json
import re
import threading
import urllib.parse
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property

_START = 6
"""Shorter secrets are part of many words: they are hidden as whole words only."""
_PARTIAL = 8
"""Characters of a secret's start that are hidden where others have cut the text."""
_TOKENS = 64
"""How many tokens obtained at run time are remembered."""


class Learned:
    """The last tokens obtained at run time, for all redactors of one configuration."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: deque[str] = deque(maxlen=_TOKENS)
        self.forms = Forms(())

    def add(self, token: str) -> None:
        """Remember `token`."""
        with self._lock:
            if token not in self._tokens:
                self._tokens.append(token)
                self.forms = Forms(self._tokens)


class Forms:
    """Secrets in all the forms in which they are written, by their first six characters.

    `by_start`  start → forms, the longest first; for each whether it is `strong` (hidden in our own
                messages too), `wide` (Base64: the characters beside it belong to it), and `partial`
                (its start alone is worth hiding).
    `words`     finds shorter ones, as whole words.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        self.secrets = frozenset(secrets)

    @cached_property
    def _all(self) -> Mapping[str, tuple[bool, bool, bool]]:
        """All forms, computed when first needed: a run without errors quotes nothing."""
        found: dict[str, tuple[bool, bool, bool]] = {}
        for secret in sorted(filter(None, self.secrets)):
            for part, whole in _parts(secret):
                plain = (part.isalpha() or part.isdigit()) and len(part) < 16
                for form, wide in _written(part):
                    strong = not plain or form.lower() != part.lower()
                    found.setdefault(form, (strong, wide, whole))
        return found

    @cached_property
    def longest(self) -> int:
        """The length of the longest form."""
        return max(map(len, self._all), default=0)

    @cached_property
    def by_start(self) -> Mapping[str, list[tuple[str, tuple[bool, bool, bool]]]]:
        """Forms by their first six characters."""
        found: dict[str, list[tuple[str, tuple[bool, bool, bool]]]] = {}
        for form in sorted(self._all, key=len, reverse=True):
            if len(form) >= _START:
                found.setdefault(form[:_START], []).append((form, self._all[form]))
        return found

    @cached_property
    def words(self) -> re.Pattern[str] | None:
        """An expression for the forms that are shorter; None when there is none."""
        short = sorted((form for form in self._all if len(form) < _START), key=len, reverse=True)
        words = "|".join(re.escape(form) for form in short)
        # Not the "s" in "30 s", the "eu" of "zoom_eu" or the "zoom" of "zoom.us".
        around = rf"(?<![\w.-])(?<!\d )(?<!\w')(?:{words})(?![\w-]|\.\w)"
        return re.compile(around) if words else None


def _parts(secret: str) -> Iterator[tuple[str, bool]]:
    """Yield a secret and its parts that are secret alone, each with whether its start is, too."""
    with suppress(ValueError):
        url = urllib.parse.urlsplit(secret)
        if url.scheme and url.netloc:
            yield secret, False
            if url.password:
                yield url.password, True
                yield urllib.parse.unquote(url.password), True
            if url.scheme in ("http", "https"):
                if len(url.path) > 1:
                    yield url.path, True
                    yield from ((each, True) for each in url.path.split("/") if len(each) > 15)
                if url.query:
                    yield url.query, True
            return
    yield secret, True


def _written(part: str) -> Iterator[tuple[str, bool]]:
    """Yield the forms in which a secret is written, each with whether it is Base64."""
    quote = urllib.parse.quote
    inner = json.dumps(part)[1:-1]
    texts = {part, repr(part)[1:-1], inner, json.dumps(part, ensure_ascii=False)[1:-1]}
    texts |= {inner.replace("/", "\\/"), json.dumps(inner)[1:-1]}
    texts.add(re.sub("[&<>']", lambda found: f"\\u{ord(found[0]):04x}", inner))
    texts |= {
        html.escape(part),
        html.escape(part, quote=False),
        html.escape(part).replace("x27", "39"),
    }
    with suppress(UnicodeEncodeError):
        quoted = {quote(part, safe=safe) for safe in ("", "/", "~/:@!$&'()*+,;=")}
        quoted |= {urllib.parse.quote_plus(part), quote(quote(part, safe=""), safe="")}
        texts |= quoted | {_ESCAPE.sub(lambda found: found[0].lower(), each) for each in quoted}
    for text in texts:
        yield text, False
        yield text.lower(), False  # as in the name of a host
    data = part.encode("utf-8", "surrogatepass")
    if len(data) >= _START:
        yield data.hex(), False
        yield data.hex().upper(), False
    for encoded in _base64(data):
        yield encoded, True
        yield quote(encoded, safe=""), True
        yield encoded.replace("/", "\\/"), True


def _base64(data: bytes) -> Iterator[str]:
    """Yield what the Base64 of any text that holds `data` holds, wherever `data` starts in it."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode()
        for before in range(3):
            text = encode(bytes(before) + data).decode()
            text = text[(0, 2, 3)[before] :]  # without what depends on the text before it
            if (before + len(data)) % 3:
                text = text.rstrip("=")[:-1]  # or after it
            if len(text) >= _PARTIAL:
                yield text


_ESCAPE = re.compile("%[0-9A-F]{2}")
_END = re.compile(r"\W{0,8}\Z|\W{0,3}(?:…|\.\.\.)")
_BEFORE = re.compile(r"[A-Za-z0-9+/=_-]{0,2}\Z")
_BESIDE = re.compile(r"[A-Za-z0-9+/=_-]{0,4}")


def spans_of_secrets(
    text: str, known: Iterable[Forms], *, ours: bool = False
) -> Iterator[tuple[int, int]]:
    """Yield where secrets stand, as (start, end), by ascending start."""
    tables = [forms.by_start for forms in known if forms.by_start]
    if not tables:
        return
    for start in range(len(text) - _START + 1):
        head = text[start : start + _START]
        for table in tables:
            for form, (strong, wide, partial) in table.get(head, ()):
                if ours and not strong:
                    continue
                end = start + len(form)
                if text.startswith(form, start):
                    if wide:
                        before = _BEFORE.search(text[max(0, start - 2) : start])
                        beside = _BESIDE.match(text, end)
                        assert before and beside  # both match nothing, too
                        yield start - len(before[0]), beside.end()
                    else:
                        yield start, end
                elif partial:
                    end = start + _shared(text[start:end], form)
                    if end - start >= _PARTIAL and _END.match(text, end):
                        yield start, end


def _shared(text: str, form: str) -> int:
    """Return how many characters both texts start with."""
    same, most = 0, min(len(text), len(form))
    while same < most:
        half = (same + most + 1) // 2
        same, most = (half, most) if text.startswith(form[:half]) else (same, half - 1)
    return same


def merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the spans in order, overlapping ones as one."""
    last: tuple[int, int] | None = None
    for start, end in spans:
        if last is None:
            last = start, end
        elif start < last[1]:
            last = min(start, last[0]), max(end, last[1])
        else:
            yield last
            last = start, end
    if last is not None:
        yield last


def is_quoted(text: str, known: Collection[Forms], *, ours: bool) -> bool:
    """Return whether `text` holds a secret once its escapes are read, whatever their mixture."""
    for _ in range(3):
        before = text
        if "%" in text:
            text = urllib.parse.unquote(text)
        if "&" in text:
            text = html.unescape(text)
        if "\\" in text:
            text = _BACKSLASH.sub(_unescaped, text)
        if text == before:
            return False
        if any(True for _ in spans_of_secrets(text, known, ours=ours)):
            return True
    return False


_BACKSLASH = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)


def _unescaped(found: re.Match[str]) -> str:
    digits = found[1] or found[2]
    return chr(int(digits, 16)) if digits else found[3]
