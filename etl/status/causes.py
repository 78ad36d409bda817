"""Which streams suffer from the same, and what that is in a sentence without their names. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from etl.status.health import StreamHealth

_PAGE = re.compile(r",? ?\bpage \d+\b")
_TRIES = re.compile(r"\d+ attempts?\b")
_ID = re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[a-zA-Z])[\w-]{12,}\b", re.ASCII)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cause:
    """What is wrong with `streams`, one or more, and what to do now ("" if there is nothing)."""

    problem: str
    advice: str
    streams: tuple[StreamHealth, ...]


def without_name(name: str, text: str) -> str:
    """Return `text` without the name of its stream at the start, which stands above it already."""
    rest = text.removeprefix(name)
    cut = len(rest) < len(text) and not re.match(r"[\w.]", rest)
    return (rest.lstrip(" :,") if cut else text) or text


def problem_of(stream: StreamHealth) -> str:
    """Return what is wrong with a stream, without its name."""
    return without_name(
        stream.name,
        stream.problem or f"its last run ended {stream.last_status or 'in no known way'}",
    )


def key(source: str, stream: str, problem: str, advice: str) -> Key:
    """Return what is equal if two streams suffer from the same.

    The stream's own names in the problem do not count, nor page numbers, ids and how often it was
    tried. The advice has to be the same word for word, because one of them is shown for all.
    """
    text = re.sub(rf"(?<![\w.]){re.escape(source)}(?:\.{re.escape(stream)})?(?!\w)", "", problem)
    text = re.sub(rf"\b{re.escape(stream)}\b", "", text.replace(stream.replace("_", " "), stream))
    for pattern in (_PAGE, _TRIES, _ID):
        text = pattern.sub("", text)
    return " ".join(text.split()).lstrip(" :,"), advice


def grouped(streams: Iterable[StreamHealth]) -> tuple[Cause, ...]:
    """Return the causes of the trouble of `streams`, in the order in which they come first.

    Streams in different states have different causes. If several suffer from one, its problem names
    no page.
    """
    found: dict[tuple[str, Key], list[StreamHealth]] = {}
    for stream in streams:
        same = key(stream.source, stream.stream, problem_of(stream), stream.advice or "")
        found.setdefault((stream.state, same), []).append(stream)
    return tuple(_cause(each) for each in found.values())


def _cause(streams: list[StreamHealth]) -> Cause:
    problems = [problem_of(each) for each in streams]
    text = problems[0]
    if len(set(problems)) > 1:
        text = _PAGE.sub("", text).lstrip(" :,") or text
    return Cause(text, streams[0].advice or "", tuple(streams))
