"""What a webhook is sent: all alerts that are due in one message, in the shape that it takes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from etl.config.redact import Redactor
from etl.daemon.alerts import Alert
from etl.daemon.web.contents import stream_link
from etl.daemon.webhook import post_json
from etl.extract.route import DIRECT, Route
from etl.status import causes
from etl.version import __version__

Format = Literal["slack", "teams", "json"]

LINES = 20
"""Lines of one message for people; further alerts are only counted."""
NAMES = 20
"""Names of streams below one cause of a card."""
CARD_BYTES = 26_000
"""How large a card may be: Teams takes 28 KB, with all that is around it."""


def send(
    url: str,
    found: Sequence[Alert],
    *,
    form: Format = "slack",
    page: str | None = None,
    route: Route = DIRECT,
    timeout: float = 10.0,
    redact: Redactor | None = None,
) -> None:
    """Send one message of all alerts to the webhook `url` by `route`, within `timeout` seconds.

    `form` and `page` are as in `payload`. Raises UnavailableError (try again later) or
    ContractError (the URL is wrong); both name only the host of `url`, which is a secret. `redact`
    is for the webhook's own words. Without alerts nothing is sent.
    """
    if found:
        post_json(url, payload(found, form, page), route=route, timeout=timeout, redact=redact)


def payload(
    found: Sequence[Alert], form: Format = "slack", page: str | None = None
) -> dict[str, Any]:
    """Return one message of all alerts in the shape of `form`.

    `page` is the address of the status page, to whose pages of streams the message links; None: it
    has no links.
    """
    shapes = {"slack": slack, "teams": teams, "json": plain}
    return shapes[form](found, page)


# --- Slack ---------------------------------------------------------------------------------------
def slack(found: Sequence[Alert], page: str | None) -> dict[str, Any]:
    """Return the message as Slack and compatible servers take it: one line per stream.

    https://api.slack.com/docs/message-formatting: `text`; &, < and > are escaped; <URL|words> is a
    link.
    """
    lines = [_line(alert, page) for alert in found[:LINES]]
    if len(found) > LINES:
        rest = Counter(alert.state or "well again" for alert in found[LINES - 1 :])
        words = ", ".join(f"{count:,} {word}" for word, count in rest.items())
        lines[LINES - 1 :] = [f"and {rest.total():,} more streams: {words}"]
    return {"text": "\n".join(lines)}


def _line(alert: Alert, page: str | None) -> str:
    text = alert.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{text} <{_url(alert, page)}|status page>" if page else text


def _url(alert: Alert, page: str | None) -> str | None:
    return page + stream_link(alert.source, alert.stream) if page else None


# --- Microsoft Teams -----------------------------------------------------------------------------
def teams(found: Sequence[Alert], page: str | None) -> dict[str, Any]:
    """Return the message as a webhook of Teams' Workflows takes it: an Adaptive Card.

    Streams that suffer from the same stand together. All words of others are in TextRuns, in which
    Markdown has no meaning. If the card would be too large, causes at the end are only counted.

    https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
    ("Send adaptive cards using an incoming webhook": type, attachments, contentType; 28 KB),
    https://learn.microsoft.com/adaptive-cards/schema-explorer/text-run.
    """
    groups: dict[tuple[str | None, causes.Key], list[Alert]] = {}
    for alert in found:
        same = causes.key(alert.source, alert.stream, alert.problem or "", alert.advice or "")
        groups.setdefault((alert.state, same), []).append(alert)
    parts = list(groups.values())
    for number in range(min(LINES, len(parts)), 0, -1):
        message = _message(parts[:number], parts[number:], page)
        if number == 1 or len(json.dumps(message)) <= CARD_BYTES:
            return message
    return _message([], [], page)


def _message(
    shown: Sequence[Sequence[Alert]], left: Sequence[Sequence[Alert]], page: str | None
) -> dict[str, Any]:
    body = [block for alerts in shown for block in _blocks(alerts, page)]
    if rest := sum(len(alerts) for alerts in left):
        body.append(_text([_run(f"and {rest:,} more stream{'s' * (rest != 1)}", isSubtle=True)]))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        "msteams": {"width": "Full"},
        "body": body,
    }
    if page:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the status page", "url": page}]
    kind = "application/vnd.microsoft.card.adaptive"
    return {
        "type": "message",
        "attachments": [{"contentType": kind, "contentUrl": None, "content": card}],
    }


def _blocks(alerts: Sequence[Alert], page: str | None) -> list[dict[str, Any]]:
    """Return what a card says of alerts that have one cause."""
    state = alerts[0].state
    be = "are" if len(alerts) > 1 else "is"
    what = "failed" if state == "failed" else f"{be} {state or 'well again'}"
    names: list[dict[str, Any]] = []
    for alert in alerts[:NAMES]:
        link = {"type": "Action.OpenUrl", "url": _url(alert, page)} if page else None
        names.append(_run(alert.name, weight="Bolder", **({"selectAction": link} if link else {})))
        names.append(_run(", "))
    names[-1] = _run(
        f" and {len(alerts) - NAMES:,} more {what}" if len(alerts) > NAMES else f" {what}",
        weight="Bolder",
        color="Attention" if state else "Good",
    )
    blocks = [_text(names, separator=True)]
    if alerts[0].problem:
        blocks.append(_text([_run(alerts[0].problem)], spacing="Small"))
    if alerts[0].advice:
        advice = [_run("Do now: ", weight="Bolder"), _run(alerts[0].advice)]
        blocks.append(_text(advice, spacing="Small"))
    return blocks


def _text(runs: Sequence[Mapping[str, Any]], **look: Any) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs), **look}


def _run(text: str, **look: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **look}


# --- programs ------------------------------------------------------------------------------------
def plain(found: Sequence[Alert], page: str | None) -> dict[str, Any]:
    """Return the message for a program, in callflow's own shape: `version`, and all `alerts`.

    Each alert has `event` ("failed" or "recovered"), `source`, `stream`, `state`, `problem`,
    `advice`, `since` (UTC) and `url`; null is what is not known. The state of a stream that
    recovered is "good".
    """
    return {
        "version": __version__,
        "alerts": [
            {
                "event": "failed" if alert.state else "recovered",
                "source": alert.source,
                "stream": alert.stream,
                "state": alert.state or "good",
                "problem": alert.problem,
                "advice": alert.advice,
                "since": alert.since and alert.since.isoformat(timespec="seconds"),
                "url": _url(alert, page),
            }
            for alert in found
        ],
    }
