"""Studio flows as values: their revisions, and the resources that Twilio's Studio API shows.

A stored flow has the members that belong to the flow, and `revisions`, each with its own number,
status, definition, author and times. A flow that is stored without `revisions`, as the document's
examples are, is its only revision itself.
"""

from collections.abc import Mapping
from typing import Any

from etl.sandbox.data import Record

STUDIO = "https://studio.twilio.com/v2/Flows"

_OF_A_REVISION = ("status", "revision", "definition", "commit_message", "valid", "errors")
_SHOWN_BY_BOTH = ("sid", "account_sid", "author_sid", "friendly_name", "date_created")
_UNREAD = ("commit_message", "valid", "errors", "warnings")
"""What the document's example of a list does not fill in, like the definitions."""


def flow(sid: str, account_sid: str, name: str, at: str) -> Record:
    """Return a stored flow that has no revision yet."""
    return {
        "sid": sid,
        "account_sid": account_sid,
        "friendly_name": name,
        "webhook_url": f"http://webhooks.twilio.com/v1/Accounts/{account_sid}/Flows/{sid}",
        "date_created": at,
        "date_updated": None,
        "url": f"{STUDIO}/{sid}",
        "links": {
            "revisions": f"{STUDIO}/{sid}/Revisions",
            "test_users": f"{STUDIO}/{sid}/TestUsers",
            "executions": f"{STUDIO}/{sid}/Executions",
        },
        "revisions": [],
    }


def saved(stored: Record, definition: object, at: str, **members: object) -> Record:
    """Return the flow with its next revision: a draft, unless `members` say otherwise."""
    known = revisions(stored) if stored.get("revisions") != [] else []
    newest: Record = known[-1] if known else {}
    revision = {
        "revision": newest.get("revision", 0) + 1,
        "status": "draft",
        "author_sid": newest.get("author_sid") or stored.get("author_sid"),
        "friendly_name": stored.get("friendly_name"),
        "definition": definition,
        "commit_message": None,
        "valid": True,
        "errors": [],
        "warnings": [],
        "date_created": at,
        "date_updated": None,
        **members,
    }
    named = {"friendly_name": revision["friendly_name"]}
    changed = {"date_updated": at} if known else {}
    return {**stored, **named, **changed, "revisions": [*known, revision]}


def published(stored: Record, at: str, *, renumbers: bool) -> Record:
    """Return the flow with its newest revision published; the same flow if that is so already.

    No document says what becomes of the draft: its status changes or, with `renumbers`, the next
    revision has the same definition.
    """
    *older, newest = revisions(stored)
    if newest.get("status") == "published":
        return stored
    if renumbers:
        copied = {name: newest.get(name) for name in ("author_sid", "commit_message", "valid")}
        return saved(stored, newest.get("definition"), at, status="published", **copied)
    newest = {**newest, "status": "published", "date_updated": at}
    return {**stored, "date_updated": at, "revisions": [*older, newest]}


def revisions(stored: Mapping[str, Any]) -> list[Record]:
    """Return the revisions as they are stored, by number."""
    found = stored.get("revisions")
    if found:
        return sorted(found, key=lambda each: each["revision"])
    return [{"revision": 1, **stored}]


def fetched(stored: Mapping[str, Any]) -> Record:
    """Return the resource of a flow: itself, and what its newest revision says."""
    newest = revisions(stored)[-1]
    own = {name: value for name, value in stored.items() if name != "revisions"}
    revised = ("author_sid", *_OF_A_REVISION, "warnings")
    return {**own, **{name: newest[name] for name in revised if name in newest}}


def fetched_revisions(stored: Mapping[str, Any]) -> list[Record]:
    """Return the resources of a flow's revisions, by number."""
    common = {name: stored.get(name) for name in _SHOWN_BY_BOTH}
    url = f"{STUDIO}/{stored.get('sid')}/Revisions"
    return [
        {
            **dict.fromkeys(_OF_A_REVISION),
            "date_updated": None,
            **common,
            **{name: value for name, value in each.items() if name not in ("warnings", *_OWN)},
            "url": f"{url}/{each['revision']}",
        }
        for each in revisions(stored)
    ]


_OWN = ("webhook_url", "links", "url", "revisions")
"""Members of a flow that its revisions do not have."""


def found_revision(stored: Mapping[str, Any], wanted: str) -> Record | None:
    """Return the resource that `wanted` names: a number, LatestPublished or LatestRevision."""
    every = fetched_revisions(stored)
    if wanted == "LatestRevision":
        return every[-1]
    if wanted == "LatestPublished":
        return next((each for each in reversed(every) if each["status"] == "published"), None)
    return next((each for each in every if str(each["revision"]) == wanted), None)


def listed(resource: Mapping[str, Any], *, brief: bool) -> Record:
    """Return a resource as lists show it: without its definition, and `brief` without more."""
    left_out = {"definition": None}
    if brief:
        left_out |= {name: None for name in _UNREAD if name in resource}
    return {**resource, **left_out}
