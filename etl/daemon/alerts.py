"""Alerts: once when a stream turns bad, and once when it is well again.

The caller records what was sent, so that nothing is sent twice. `messages` sends them. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from etl.config.redact import Redactor
from etl.status.causes import without_name
from etl.status.health import StreamHealth
from etl.status.words import span

_LONGEST = 500  # characters of a text

_WORSE = {
    "throttled": 1,
    "not available": 1,
    "incomplete": 2,
    "failed": 2,
    "stale": 2,
    "ended": 3,
}
"""How bad each state is. A throttled stream goes on automatically; only if it then fails or grows
stale is a person needed. A stream that was reported as failing is not reported as stale too. What
happens to a list after its provider has ended it needs no person."""
_KNOWN = ("not available", "ended")
"""States that are not those of a failure: a stream that was reported as failing is reported again
when it turns out to be in one of them."""

Name = tuple[str, str]
"""(source, stream)."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to say of one stream.

    `text`    all of it in a sentence.
    `state`   what to record once it was sent: "throttled", "incomplete", "failed", "stale",
              "not available" or "ended"; None when the stream is well again.
    `problem` what is wrong, without the stream's name, and `advice` what to do now; None if there
              is nothing to say.
    `since`   since when it is in this state, as far as that is known (UTC): the end of the run that
              showed it; of one that is stale, when it became so.
    """

    source: str
    stream: str
    text: str
    state: str | None
    problem: str | None = None
    advice: str | None = None
    since: datetime | None = None

    @property
    def name(self) -> str:
        """`source.stream`."""
        return f"{self.source}.{self.stream}"


def alerts(
    streams: Sequence[StreamHealth],
    reported: Mapping[Name, str | None],
    redact: Redactor | None = None,
) -> list[Alert]:
    """Return the alerts to send now: bad streams, the worst first, then those that are well again.

    `reported` has the `Alert.state` that was last sent of each stream; None, or no entry, means
    that it was well. What is wrong with a stream passes `redact`.

    There is an alert when a stream turns bad, when one that was only throttled fails or grows
    stale, when one turns out not to be available or to have ended, and an all-clear when it had a
    complete run and is not stale. A stream that never ran, or whose source is no longer configured,
    gets no all-clear.
    """
    found, redact = [], redact or Redactor()
    for stream in streams:
        name = (stream.source, stream.stream)
        previous, now = reported.get(name), _bad(stream)
        if now is not None and _is_news(previous, now):
            found.append(_bad_alert(stream, now, redact))
        elif now is None and previous is not None and stream.state == "good":
            well = f"{stream.name} is well again"
            found.append(Alert(*name, well, None, since=stream.last_success_at))
    return sorted(found, key=lambda each: (-_WORSE.get(each.state or "", 0), each.state != "stale"))


def _is_news(previous: str | None, now: str) -> bool:
    """Return whether `now` has to be reported after `previous`."""
    if now in _KNOWN:
        return previous not in (now, "ended")
    return _WORSE[now] > _WORSE.get(previous or "", 0)


def _bad(stream: StreamHealth) -> str | None:
    if stream.state == "not configured":
        return None
    if stream.stale:
        return "stale"
    return stream.state if stream.state in _WORSE else None


def _bad_alert(stream: StreamHealth, word: str, redact: Redactor) -> Alert:
    """Return such as "zoom_eu.flows failed: HTTP 401: no access → check the credentials"."""
    text = f"{stream.name} {word if word == 'failed' else f'is {word}'}"
    since = stream.last_attempt_at
    if word == "stale":
        old = "no complete run yet" if stream.age is None else f"{span(stream.age, 2)} old"
        allowed = f", {span(stream.stale_after)} allowed" if stream.stale_after else ""
        text += f" ({old}{allowed})"
        late = timedelta(seconds=stream.stale_after or 0)
        since = stream.last_success_at and stream.last_success_at + late
    problem = redact.message(without_name(stream.name, stream.problem or ""))
    advice = redact.message(stream.advice or "")
    if problem and not (word == "stale" and stream.state in ("good", "never run")):
        text += f": {problem}"
    if advice:
        text += f" → {advice}"
    return Alert(
        stream.source, stream.stream, _short(text), word,
        problem=_short(problem) or None, advice=_short(advice) or None, since=since,
    )  # fmt: skip


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
