"""Messages to a webhook: once when a stream turns bad, and once when it is well again.

The caller records what was sent, so that nothing is sent twice. Pure, except for `send`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etl.config.redact import Redactor
from etl.daemon.webhook import post_json
from etl.extract.route import DIRECT, Route
from etl.status.health import StreamHealth
from etl.status.words import span

LINES = 20
"""Lines of one message; further alerts are only counted."""
_LONGEST = 500  # characters of a line

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

    `state` is what to record once it was sent: "throttled", "incomplete", "failed", "stale",
    "not available" or "ended"; None when the stream is well again.
    """

    source: str
    stream: str
    text: str
    state: str | None


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
            found.append(Alert(*name, _bad_text(stream, now, redact), now))
        elif now is None and previous is not None and stream.state == "good":
            found.append(Alert(*name, f"{stream.name} is well again", None))
    return sorted(found, key=lambda each: (-_WORSE.get(each.state or "", 0), each.state != "stale"))


def payload(found: Sequence[Alert]) -> dict[str, Any]:
    """Return one message of all alerts, escaped, as Slack and compatible servers take it."""
    lines = [_escaped(alert.text) for alert in found]
    if len(found) > LINES:
        rest = Counter(alert.state or "well again" for alert in found[LINES - 1 :])
        words = ", ".join(f"{count:,} {word}" for word, count in rest.items())
        lines[LINES - 1 :] = [f"and {rest.total():,} more streams: {words}"]
    return {"text": "\n".join(lines)}


def send(
    url: str,
    found: Sequence[Alert],
    *,
    route: Route = DIRECT,
    timeout: float = 10.0,
    redact: Redactor | None = None,
) -> None:
    """Send one message of all alerts to the webhook `url` by `route`, within `timeout` seconds.

    Raises UnavailableError (try again later) or ContractError (the URL is wrong); both name only
    the host of `url`, which is a secret. `redact` is for the webhook's own words. Without alerts
    nothing is sent.
    """
    if found:
        post_json(url, payload(found), route=route, timeout=timeout, redact=redact)


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


def _bad_text(stream: StreamHealth, word: str, redact: Redactor) -> str:
    """Return such as "zoom_eu.flows failed: HTTP 401: no access → check the credentials"."""
    text = f"{stream.name} {word if word == 'failed' else f'is {word}'}"
    if word == "stale":
        old = "no complete run yet" if stream.age is None else f"{span(stream.age, 2)} old"
        allowed = f", {span(stream.stale_after)} allowed" if stream.stale_after else ""
        text += f" ({old}{allowed})"
    # An error names its place, which usually starts with the stream.
    problem = (stream.problem or "").removeprefix(stream.name).lstrip(" :,")
    if problem and not (word == "stale" and stream.state in ("good", "never run")):
        text += f": {redact.message(problem)}"
    if stream.advice:
        text += f" → {redact.message(stream.advice)}"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _escaped(text: str) -> str:
    """Escape what Slack gives a meaning (its docs, "Formatting text for app surfaces")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
