"""The one place where text from outside becomes part of a message.

The words of a provider, a proxy, a server, the operating system or a user's trigger can be of any
size, repeat our own credentials, name people, and hold control sequences of a terminal. A
`Redactor` makes a short, harmless line of them. The configuration hands it to all code that quotes
anything. As a last line of defence, whole messages pass through it once more before they are
stored, logged or shown.

Every step takes time in proportion to the text, whatever the text is: it is cut first, and no
expression here restarts again and again within one run of characters.
"""

import re
import unicodedata
from collections.abc import Collection
from typing import Self

from etl.config.known_secrets import Forms, Learned, is_quoted, merged, spans_of_secrets

HIDDEN = "…"
LIMIT = 200
"""Characters of a quotation, unless a caller asks for another length."""
LONGEST = 20_000
"""Characters of a whole message, which can hold SQL to run."""
_ROOM = 20
"""How many times the limit is read: markup, blanks and hidden parts take less room afterwards."""


class Redactor:
    """Hide in texts what must not get out: known secrets, and what looks like one.

    `secrets` are those of the whole configuration. They are found as they are and as they are
    written elsewhere: in Base64 (also within "user:password", as HTTP Basic sends it), hexadecimal,
    URLs, JSON, HTML, Python. A URL's password and path are found alone, too. Secrets shorter than 6
    characters are hidden as whole words only.

    Calling it with a text from outside returns one line of at most `limit` characters. Several
    threads can call it at once.
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._given: tuple[Forms, ...] = (Forms(secrets),)
        self._learned = Learned()

    def apart(self, secrets: Collection[str] = ()) -> Self:
        """Return a copy that knows `secrets` too; a token that one of the two learns, both know."""
        other = type(self)()
        new = [secret for secret in secrets if secret not in self._given[0].secrets]
        other._given = (*self._given, Forms(new)) if new else self._given
        other._learned = self._learned
        return other

    def learn(self, token: str) -> None:
        """Hide `token` too, which a provider issued at run time; the last 64 are remembered."""
        self._learned.add(token)

    def __call__(self, text: str, limit: int = LIMIT) -> str:
        """Return `text`, which comes from outside, as one short, printable line for a message.

        Markup is removed. What is secret or personal, or may be (mail addresses, phone numbers,
        URLs, long tokens), becomes "…"; control characters become symbols that a terminal only
        shows.
        """
        text, cut = self._hidden(text, _ROOM * limit)
        text = _one_line(_without_markup(text))
        text = " ".join(_PRIVATE.sub(_without_private, text).split())
        if cut and len(text) <= limit:
            text = text[: max(0, len(text) - 64)] + HIDDEN  # it can end within a number or token
        return text if len(text) <= limit else text[: limit - 1] + HIDDEN

    def name(self, text: str, limit: int = 100) -> str:
        """Return `text`, a name from outside that a reader needs: a host, table, code or header.

        Only known secrets and what is clearly personal are hidden.
        """
        text = _MAIL.sub(HIDDEN, masked(self._hidden(text, _ROOM * limit)[0]))
        return _cut(_one_line(text), limit)

    def message(
        self, text: str, *, keep: str = "", limit: int = LONGEST, typed: bool = False
    ) -> str:
        """Redact a whole message, whose quotations were redacted before, once more to be sure.

        Nothing that was redacted changes, and none of our own words: secrets that are short, one
        plain word or one number are only hidden where text comes in from outside. Line breaks
        become blanks unless they are among the characters to `keep`. `typed` says that the reader
        typed what the message quotes: then numbers that could be a phone's stay as well.
        """
        text = self._hidden(text, limit, ours=True)[0]
        text = text if typed else masked(text)
        return _cut(harmless(text, keep) if keep else _one_line(text), limit)

    def logged(self, text: str, limit: int = 100_000) -> str:
        """Return `text` without secrets, phone numbers and queries of URLs; its lines stay.

        For a log, which takes our own text and that of libraries, and escapes control characters.
        """
        return _cut(masked(self._hidden(text, limit)[0]), limit)

    def _hidden(self, text: str, room: int, *, ours: bool = False) -> tuple[str, bool]:
        """Return `text` up to `room` without known secrets, and whether that cut it.

        More than that is read, so that a secret across the cut is found as a whole.
        """
        known = (*self._given, self._learned.forms)
        longest = max(forms.longest for forms in known)
        cut = len(text) > room
        looked_at = text[: room + longest]
        found = merged(spans_of_secrets(looked_at, known, ours=ours))
        parts: list[str] = []
        at = 0
        for start, end in found:
            if start >= room:
                break
            parts += [looked_at[at:start], HIDDEN]
            at = end
        parts.append(looked_at[at : max(at, room)])
        done = "".join(parts)
        if is_quoted(done, known, ours=ours):
            return HIDDEN, cut
        for forms in known:
            if forms.words is not None and not ours:
                done = forms.words.sub(HIDDEN, done)
        return done, cut


# --- what looks like a secret, or personal -------------------------------------------------------
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
"""Long words that are no tokens: hosts, rights, paths of words and of Twilio's ids."""


def masked(text: str) -> str:
    """Hide phone numbers, URLs' queries and passwords, and tokens of Authorization in `text`.

    They become "…". Times, IP addresses, ids and counts below 10,000,000,000 stay.
    """
    text = _QUERY.sub(f"?{HIDDEN}", _TOKEN.sub(rf"\1 {HIDDEN}", _URL.sub(_without_query, text)))
    return _NUMBER.sub(_without_phone, text)


def _without_query(found: re.Match[str]) -> str:
    scheme, user, place, query = found.groups(default="")
    return f"{scheme}{user and HIDDEN + '@'}{place}{query and '?' + HIDDEN}"


def _without_phone(found: re.Match[str]) -> str:
    fewest = 9 if found["many"] else 7  # several numbers can stand in a row
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
    """Replace what a terminal would obey by symbols: ESC by "␛", an override by "\ufffd".

    All else stays, as data such as the cells of a table need, and so do the characters of `keep`.
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
    """Return `text` in printable characters, with a blank for each kind of white space."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else " " if each.isspace() else _substitute(each)
        for each in text
    )


def _substitute(character: str) -> str:
    sign = _sign(character)
    return sign if sign.isprintable() else "\ufffd"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + HIDDEN


_UNSHOWN = re.compile(r"(?:script|style)\b")
_SMALL = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def _without_markup(text: str) -> str:
    """Return `text` without tags, and without what HTML does not show: scripts, styles."""
    parts: list[str] = []
    at, small = 0, text.translate(_SMALL)
    while (start := text.find("<", at)) >= 0 and (end := text.find(">", start)) >= 0:
        parts += [text[at:start], " "]
        at = end + 1
        if tag := _UNSHOWN.match(small, start + 1):
            close = small.find(f"</{tag[0]}", at)
            at = len(text) if close < 0 else close
    parts.append(text[at:])
    return "".join(parts)
