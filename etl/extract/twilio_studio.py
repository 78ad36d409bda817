"""Twilio Studio: the list of flows, and the revisions of a flow with the definitions that count.

The list has no definitions. A flow's newest revision may be a draft while an older one is live, so
two definitions count: that of the newest revision and that of the highest published one. A revision
keeps its number and its definition for ever (each save makes the next number), so a definition is
asked for once; its status may change.
"""

import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from etl.errors import ContractError, MissingError
from etl.extract.decode import unpacked, whole
from etl.extract.page import EVERYTHING, Lookup, Page, ScanRequest, Wanted
from etl.extract.paging import CursorList, pages
from etl.extract.twilio import look_up_sid, paged, probe

if TYPE_CHECKING:
    from etl.extract.http import Http

_FLOWS = paged("/v2/Flows", "flows")

_PUBLISHED: Final = "published"
_AGAIN: Final = "nothing is deleted, and the next run reads it"


def flows(http: "Http", ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    """Yield the account's Studio flows page by page, without definitions.

    There is no count: each page's `total` is None. Twilio cannot be asked for changes. Raise what
    `twilio.channels` raises.
    """
    return pages(http, _FLOWS, ask)


def look_up_flow(http: "Http", key: tuple[str, ...]) -> Lookup:
    """Ask whether the flow with the sid `key[0]` exists; its record is as in the list."""
    found = look_up_sid(http, "/v2/Flows/{}", key)
    return replace(found, record=found.record | {"definition": None}) if found.record else found


def probe_flows(http: "Http", ask: ScanRequest = EVERYTHING) -> str:
    """Ask for one flow, and return a line about the list. Raise what `flows` raises."""
    return probe(http, _FLOWS, "Studio flows")


def revisions(http: "Http", wanted: Wanted) -> dict[str, Any]:
    """Return the flow's revisions, its newest and live ones with definitions, and the live number.

    Definitions of the revisions in `wanted.known` are not asked for. Raise ContractError if the
    answers do not belong together, or not to the flow as it was listed: it was changed meanwhile.
    """
    (sid,) = wanted.key
    if sid in (".", ".."):
        raise ContractError("its sid cannot stand in a URL", advice=_AGAIN)
    path = f"/v2/Flows/{urllib.parse.quote(sid, safe='')}/Revisions"
    found, unreadable = _listed(http, path)
    newest = max(found, default=0)
    live = max((each for each in found if found[each].get("status") == _PUBLISHED), default=None)
    _require_listed(wanted, newest, found.get(newest))
    named = {newest: str(newest)}
    if live is not None:
        named[live] = "LatestPublished"
    for number, name in named.items():
        if number not in wanted.known:
            found[number] |= _whole(http, f"{path}/{name}", sid, found[number])
    return {"sid": sid, "live_revision": live, "revisions": [*unreadable, *found.values()]}


def _listed(http: "Http", path: str) -> tuple[dict[int, dict[str, Any]], list[Any]]:
    """Return the flow's revisions by number, and what stands among them and has none."""
    found: dict[int, dict[str, Any]] = {}
    unreadable: list[Any] = []
    try:
        for page in pages(http, _revisions(path)):
            for sent in page.records:
                record = unpacked(sent)
                number = whole(record.get("revision")) if isinstance(record, dict) else None
                if number is None:
                    unreadable.append(record)
                else:
                    found[number] = record
    except MissingError as error:
        raise MissingError(
            "the flow was listed, and Twilio has no revisions of it: it may have been deleted"
            " meanwhile",
            where=error.where,
            advice=_AGAIN,
        ) from error
    if not found:
        raise ContractError("Twilio names no revision of the flow", where=http.where, advice=_AGAIN)
    return found, unreadable


def _revisions(path: str) -> CursorList:
    return paged(path, "revisions", id_member="revision")


def _require_listed(wanted: Wanted, newest: int, found: dict[str, Any] | None) -> None:
    """Check that the newest revision is the one that the list of flows showed."""
    status = found.get("status") if found else None
    for name, shown, now in (("revision", wanted.listed.get("revision"), newest),
                             ("status", wanted.listed.get("status"), status)):  # fmt: skip
        if shown is not None and shown != now:
            raise ContractError(
                f"the flow was changed while it was read: its newest {name} was {str(shown)[:50]}"
                f" in the list, and is {str(now)[:50]} now",
                advice=_AGAIN,
            )


def _whole(http: "Http", path: str, sid: str, listed: dict[str, Any]) -> dict[str, Any]:
    """Return what a listed revision says itself, with its definition."""
    number, name = whole(listed["revision"]), path.rpartition("/")[2]
    try:
        body = http.call("GET", path, at=f"revision {name}")
    except MissingError as error:
        raise MissingError(
            f"revision {number} was listed, and Twilio does not have it: the flow was changed"
            " while it was read",
            where=error.where,
            advice=_AGAIN,
        ) from error
    same = whole(body.get("revision")) == number and body.get("sid") == sid
    if not same or body.get("status") != listed.get("status"):
        raise ContractError(
            f"{name} is another revision than {number}, which was listed, or has another status:"
            " the flow was changed while it was read",
            where=f"{http.where}, revision {name}",
            advice=_AGAIN,
        )
    if body.get("definition") is None:
        raise ContractError(
            f"revision {number} comes without a definition",
            where=f"{http.where}, revision {name}",
            advice="nothing is deleted; report it to Twilio if it stays",
        )
    return {member: value for member, value in body.items() if value is not None}
