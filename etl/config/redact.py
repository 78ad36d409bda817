"""The one place where text from outside becomes part of a message.

What a provider, a proxy, a server, the operating system or a user's trigger says may be as large as
they like, repeat our own credentials, name people, and hold what a terminal obeys. A `Redactor`
makes a short, harmless line of it. It is handed from the configuration to whoever quotes anything;
as a last line of defence whole messages pass it once more before they are stored, logged or shown.

Every step takes time in proportion to the text, whatever the text is: it is cut first, and no
expression here begins again and again within one run of characters.
"""

import base64
import html
import json
import re
import threading
import unicodedata
import urllib.parse
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Self

HIDDEN = "…"
LIMIT = 200
"""Characters of what is quoted, unless a caller asks for another length."""
LONGEST = 20_000
"""Characters of a whole message, which may hold SQL to run."""
_ROOM = 20
"""How many times the limit is looked at: markup, blanks and what is hidden shrink."""
_START = 6
"""Secrets of fewer characters are part of many words: they are hidden as whole words only."""
_PARTIAL = 8
"""Characters of a secret's beginning that are hidden where a text was cut by somebody else."""
_TOKENS = 64
"""How many tokens that were got at run time are remembered."""


class Redactor:
    """Takes out of texts what must not leave: known secrets, and what looks like one.

    `secrets` are those of the whole configuration. They are found as they are and as they are
    written elsewhere: in Base64 (also within "user:password", as HTTP Basic sends it), hexadecimal,
    URLs, JSON, HTML, Python; of a URL also the password and the path alone. Secrets shorter than 6
    characters are hidden as whole words only.

    Called with a text from outside it gives one line of at most `limit` characters. It may be
    called from several threads at once.
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._given: tuple[_Forms, ...] = (_Forms(secrets),)
        self._learned = _Learned()

    def apart(self, secrets: Collection[str] = ()) -> Self:
        """Return a copy that knows `secrets` too; tokens that one of them learns, both know."""
        other = type(self)()
        new = [secret for secret in secrets if secret not in self._given[0].secrets]
        other._given = (*self._given, _Forms(new)) if new else self._given
        other._learned = self._learned
        return other

    def learn(self, token: str) -> None:
        """Hide `token` too, which a provider gave at run time; the last 64 are remembered."""
        self._learned.add(token)

    def __call__(self, text: str, limit: int = LIMIT) -> str:
        """`text`, which comes from outside, for a message: one short, printable line.

        Markup goes; what is or may be secret or personal (mail addresses, phone numbers, URLs, long
        tokens) becomes "…", control characters become signs that a terminal does not obey.
        """
        text, cut = self._hidden(text, _ROOM * limit)
        text = _one_line(_without_markup(text))
        text = " ".join(_PRIVATE.sub(_without_private, text).split())
        if cut and len(text) <= limit:
            text = text[: max(0, len(text) - 64)] + HIDDEN  # it may end within a number or token
        return text if len(text) <= limit else text[: limit - 1] + HIDDEN

    def name(self, text: str, limit: int = 100) -> str:
        """`text`, a host, a table, a code or a header from outside, which a reader has to know.

        Only what is known to be secret and what is clearly personal is hidden.
        """
        text = _MAIL.sub(HIDDEN, masked(self._hidden(text, _ROOM * limit)[0]))
        return _cut(_one_line(text), limit)

    def message(
        self, text: str, *, keep: str = "", limit: int = LONGEST, typed: bool = False
    ) -> str:
        """`text`, a whole message whose quotations were redacted already: once more, to be sure.

        It changes nothing of what was redacted, and none of our own words: secrets that are short,
        one plain word or one number are left to where text from outside comes in. Line breaks
        become blanks unless they are among the characters to `keep`. With `typed`, which says that
        what it quotes was typed by its reader, numbers that may be a phone's stay too.
        """
        text = self._hidden(text, limit, ours=True)[0]
        text = text if typed else masked(text)
        return _cut(harmless(text, keep) if keep else _one_line(text), limit)

    def logged(self, text: str, limit: int = 100_000) -> str:
        """`text` without secrets, phone numbers, and queries of URLs; its lines stay as they are.

        For a log, which takes text of ours and of libraries, and shows control characters itself.
        """
        return _cut(masked(self._hidden(text, limit)[0]), limit)

    def _hidden(self, text: str, room: int, *, ours: bool = False) -> tuple[str, bool]:
        """The first `room` characters of `text` without known secrets; whether that cut it.

        A secret that lies across the cut is seen whole, because more than that is looked at.
        """
        known = (*self._given, self._learned.forms)
        longest = max(forms.longest for forms in known)
        cut = len(text) > room
        looked_at = text[: room + longest]
        found = _merged(_spans(looked_at, known, ours=ours))
        parts: list[str] = []
        at = 0
        for begin, end in found:
            if begin >= room:
                break
            parts += [looked_at[at:begin], HIDDEN]
            at = end
        parts.append(looked_at[at : max(at, room)])
        done = "".join(parts)
        if _is_quoted(done, known, ours=ours):
            return HIDDEN, cut
        for forms in known:
            if forms.words is not None and not ours:
                done = forms.words.sub(HIDDEN, done)
        return done, cut


# --- secrets -------------------------------------------------------------------------------------
class _Learned:
    """The last tokens that were got at run time, for every redactor of one configuration."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: deque[str] = deque(maxlen=_TOKENS)
        self.forms = _Forms(())

    def add(self, token: str) -> None:
        """Remember `token`."""
        with self._lock:
            if token not in self._tokens:
                self._tokens.append(token)
                self.forms = _Forms(self._tokens)


class _Forms:
    """Secrets in all the ways in which they are written, by their first six characters.

    `by_start`  beginning → forms, the longest first; of each whether it is `strong` (hidden also in
                messages of ours), `wide` (Base64: the characters beside it belong to it), and
                `partial` (its beginning alone says something).
    `words`     finds those that are shorter, as whole words.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        self.secrets = frozenset(secrets)

    @cached_property
    def _all(self) -> Mapping[str, tuple[bool, bool, bool]]:
        """Worked out when first needed: a run that goes well quotes nothing."""
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
        return max(map(len, self._all), default=0)

    @cached_property
    def by_start(self) -> Mapping[str, list[tuple[str, tuple[bool, bool, bool]]]]:
        found: dict[str, list[tuple[str, tuple[bool, bool, bool]]]] = {}
        for form in sorted(self._all, key=len, reverse=True):
            if len(form) >= _START:
                found.setdefault(form[:_START], []).append((form, self._all[form]))
        return found

    @cached_property
    def words(self) -> re.Pattern[str] | None:
        short = sorted((form for form in self._all if len(form) < _START), key=len, reverse=True)
        words = "|".join(re.escape(form) for form in short)
        # Not the "s" in "30 s", the "eu" of "zoom_eu" or the "zoom" of "zoom.us".
        around = rf"(?<![\w.-])(?<!\d )(?<!\w')(?:{words})(?![\w-]|\.\w)"
        return re.compile(around) if words else None


def _parts(secret: str) -> Iterator[tuple[str, bool]]:
    """A secret, and what of it is secret by itself; whether its beginning alone is, too."""
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
    """The ways in which a secret is written, and which of them are Base64."""
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
    """What is in the Base64 of any text that holds `data`, wherever in it that begins."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode()
        for before in range(3):
            text = encode(bytes(before) + data).decode()
            text = text[(0, 2, 3)[before] :]  # what also depends on what stands before
            if (before + len(data)) % 3:
                text = text.rstrip("=")[:-1]  # or behind it
            if len(text) >= _PARTIAL:
                yield text


_ESCAPE = re.compile("%[0-9A-F]{2}")
_END = re.compile(r"\W{0,8}\Z|\W{0,3}(?:…|\.\.\.)")
_BEFORE = re.compile(r"[A-Za-z0-9+/=_-]{0,2}\Z")
_BESIDE = re.compile(r"[A-Za-z0-9+/=_-]{0,4}")


def _spans(
    text: str, known: Iterable["_Forms"], *, ours: bool = False
) -> Iterator[tuple[int, int]]:
    """Where secrets stand: begin and end, in the order of their beginnings."""
    tables = [forms.by_start for forms in known if forms.by_start]
    if not tables:
        return
    for begin in range(len(text) - _START + 1):
        start = text[begin : begin + _START]
        for table in tables:
            for form, (strong, wide, partial) in table.get(start, ()):
                if ours and not strong:
                    continue
                end = begin + len(form)
                if text.startswith(form, begin):
                    if wide:
                        before = _BEFORE.search(text[max(0, begin - 2) : begin])
                        beside = _BESIDE.match(text, end)
                        assert before and beside  # both match nothing, too
                        yield begin - len(before[0]), beside.end()
                    else:
                        yield begin, end
                elif partial:
                    end = begin + _shared(text[begin:end], form)
                    if end - begin >= _PARTIAL and _END.match(text, end):
                        yield begin, end


def _shared(text: str, form: str) -> int:
    """How many characters both begin with."""
    same, most = 0, min(len(text), len(form))
    while same < most:
        half = (same + most + 1) // 2
        same, most = (half, most) if text.startswith(form[:half]) else (same, half - 1)
    return same


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    last: tuple[int, int] | None = None
    for begin, end in spans:
        if last is None:
            last = begin, end
        elif begin < last[1]:
            last = min(begin, last[0]), max(end, last[1])
        else:
            yield last
            last = begin, end
    if last is not None:
        yield last


def _is_quoted(text: str, known: Collection["_Forms"], *, ours: bool) -> bool:
    """Whether `text` holds a secret once its escapes are read, in whatever mixture they came."""
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
        if any(True for _ in _spans(text, known, ours=ours)):
            return True
    return False


_BACKSLASH = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)


def _unescaped(found: re.Match[str]) -> str:
    digits = found[1] or found[2]
    return chr(int(digits, 16)) if digits else found[3]


# --- what looks like a secret, or like somebody's ------------------------------------------------
_KEPT = r"""
    (?<!\d) \d{4}-\d\d-\d\d (?: [T_\ ] \d\d:?\d\d (?: :?\d\d (?:[.,]\d+)? )?
        (?: Z | [+-]\d\d:?\d\d )? )? (?!\d)                                    # ISO 8601
  | (?<!\d) \d\d?[./]\d\d?[./]\d{4} (?!\d)                                     # 20.11.2026
  | (?<![\d.]) \d{1,3} (?:\.\d{1,3}){3} (?![\d.]*\d)                           # 127.0.0.1
  | (?<![\w-]) [0-9a-f]{8} (?:-[0-9a-f]{4}){3} -[0-9a-f]{12} (?![\w-])         # a UUID
"""
_NUMBER = re.compile(
    rf"""
    (?P<kept> {_KEPT} )
  | (?: %2B | (?<!\w)\+ ) \(?\d [\d\ ().\-/]{{5,30}} \d                        # +49 (0)30 123456
  | (?<![\w.]) (?:
        \d{{10,15}}                                                            # 13800138000
      | 0\d{{6,14}}                                                            # 0301234
      | \(\d{{2,5}}\) [\ -]? \d{{3,8}} (?: [\ .-] \d{{2,5}} )*                 # (212) 555-0100
      | 0\d{{1,4}} (?: [\ ./-] (?!\d{{4}}-\d\d-\d\d) \d{{2,8}} ){{1,6}}        # 01 23 45 67 89
      | (?P<many> \d{{1,4}} (?: [\ .-] (?!\d{{4}}-\d\d-\d\d) \d{{2,8}} ){{2,6}} )  # 1-212-555-0100
      | \d{{3}}-\d{{4}}                                                        # 555-0100
    ) (?! (?!x\d)\w | [.:]\d )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_URL = re.compile(
    r"(?<![\w+.-])(\w[\w+.-]*://)([^\s\"'<>]*@)?([^\s\"'<>/?#]*[^\s\"'<>?#]*)([?#][^\s\"'<>]*)?"
)
_MAIL = re.compile(r"""(?<![^\s@"'<>:,])[^\s@"'<>:,]+@[^\s"'<>,]+""")
_QUERY = re.compile(r"(?<=[^\s?])\?[\w.~%\[\]-]+=[^\s\"'<>]*")
_TOKEN = re.compile(r"\b(Bearer|Basic) +[\w.~+/=-]{16,}", re.IGNORECASE)
_PRIVATE = re.compile(
    rf"""
    (?P<kept> {_KEPT} | (?<![\w-]) (?-i: [A-Z]{{2}}[0-9a-f]{{32}} ) (?![\w-]) )  # a Twilio SID
  | (?<!\w) (?P<scheme> (?:Bearer|Basic|Digest)\ + ) [\w.~+/=%-]{{16,}}
  | (?<![\w-]) (?P<key> (?:password|passwd|pwd|\w{{0,20}}secret|\w{{0,20}}token|api_?key|signature
        |credential|access_?key\w{{0,10}}|authorization) (?: =[\ ]? | ["']\ ?:\ ? ) ["']? )
        [^\s"'&,;]+
  | (?<!\w) \w+://[^\s"'<>]+                    # a URL: its query may hold a token, its host more
  | (?<![^\s@"'<>:,]) [^\s@"'<>:,]+ @ [^\s"'<>,]+                             # a mail address
  | (?<![\w.+-]) [\w.+-]+ %40 [\w.-]+
  | (?P<word> [A-Za-z0-9_+/=%~.-]{{24,}} )                                     # a token, a key
  | (?P<digits> (?: \+\ ? | \( (?=\d{{2,5}}\)) )? \d (?: (?: [\d()./*\u2400-\u2421\ufffd-]
        | \ (?!\d{{4}}-\d\d-\d\d) )* \d )? )                                   # a phone number
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PIECE = r"(?:[A-Z]?[a-z]{1,20}(?:[A-Z][a-z]{1,20}){0,2}|[A-Z]{2}[0-9a-f]{32}|v[0-9]{1,2})"
_WORDS = re.compile(rf"/?{_PIECE}(?:[._/-]+{_PIECE})*[.]?")
"""What is long and no token: hosts, rights, paths in words and with Twilio's ids."""


def masked(text: str) -> str:
    """`text` without phone numbers, URLs' queries and passwords, and tokens of Authorization.

    They become "…". Times, addresses of machines, ids and counts below 10,000,000,000 stay.
    """
    text = _QUERY.sub(f"?{HIDDEN}", _TOKEN.sub(rf"\1 {HIDDEN}", _URL.sub(_without_query, text)))
    return _NUMBER.sub(_without_phone, text)


def _without_query(found: re.Match[str]) -> str:
    scheme, user, place, query = found.groups(default="")
    return f"{scheme}{user and HIDDEN + '@'}{place}{query and '?' + HIDDEN}"


def _without_phone(found: re.Match[str]) -> str:
    fewest = 9 if found["many"] else 7  # several numbers may stand in a row
    return found[0] if found["kept"] or _digits(found[0]) < fewest else HIDDEN


def _without_private(found: re.Match[str]) -> str:
    if found["kept"] or (found["digits"] and _digits(found["digits"]) < 7):
        return found[0]
    if found["word"] and _WORDS.fullmatch(found["word"]):
        return found[0]
    return f"{found['scheme'] or found['key'] or ''}{HIDDEN}"


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


# --- what is shown -------------------------------------------------------------------------------
_JOINERS = "\u200c\u200d"
"""Emoji and some scripts need them, and nothing obeys them."""


def harmless(text: str, keep: str = "") -> str:
    """`text` with signs for what a terminal would obey: ESC becomes "␛", an override "\ufffd".

    Of data, such as the cells of a table, all else stays, and the characters of `keep` too ("\\n").
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _sign(each) for each in text)


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + min(code, 0x21))
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in _JOINERS):
        return "\ufffd"
    return character


def _one_line(text: str) -> str:
    """`text` in printable characters, with a blank for each that is one of some kind."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else " " if each.isspace() else _printable(each) for each in text
    )


def _printable(character: str) -> str:
    sign = _sign(character)
    return sign if sign.isprintable() else "\ufffd"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + HIDDEN


_UNSHOWN = re.compile(r"(?:script|style)\b")
_SMALL = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def _without_markup(text: str) -> str:
    """`text` without tags, and without what HTML does not show: scripts, styles."""
    parts: list[str] = []
    at, small = 0, text.translate(_SMALL)
    while (begin := text.find("<", at)) >= 0 and (end := text.find(">", begin)) >= 0:
        parts += [text[at:begin], " "]
        at = end + 1
        if tag := _UNSHOWN.match(small, begin + 1):
            close = small.find(f"</{tag[0]}", at)
            at = len(text) if close < 0 else close
    parts.append(text[at:])
    return "".join(parts)
