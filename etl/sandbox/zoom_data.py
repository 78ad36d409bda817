"""Generated and awkward flows of Zoom Contact Center."""

import base64
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random

from etl.sandbox.data import (
    AWKWARD_NAME,
    LANGUAGES,
    Record,
    any_language,
    name,
    past,
    phone_numbers,
    zulu,
)

_CHANNELS = (
    # channel, channel_source, the deprecated channel_type, weight
    ("voice", None, "voice", 55),
    ("video", None, "video", 8),
    ("messaging", "web_chat", "chat", 12),
    ("messaging", "in_app_chat", "in_app_chat", 4),
    ("messaging", "sms", "sms", 7),
    ("messaging", "whatsapp", None, 5),
    ("messaging", "facebook_messenger", None, 2),
    ("email", "email_address", None, 7),
)


def flows(random: Random, count: int) -> list[Record]:
    """Invent rows of `GET /contact_center/flows`, of every channel and status."""
    people = [_id22(random) for _ in range(12)]
    numbers = phone_numbers(random)
    return [_flow(random, people, numbers) for _ in range(count)]


def _flow(random: Random, people: list[str], numbers: Iterator[str]) -> Record:
    language = any_language(random)
    channel, source, old_type, _ = random.choices(_CHANNELS, [each[3] for each in _CHANNELS])[0]
    status = random.choices(("published", "draft", "archived", "debugging"), (70, 15, 11, 4))[0]
    changed = past(random)
    flow: Record = {
        "flow_id": _id22(random),
        "flow_name": name(random, language),
        "flow_description": random.choice(("", LANGUAGES[language][2], f"Flow for {language}")),
    }
    if old_type is not None:
        flow["channel_type"] = old_type
    flow["channel"] = channel
    if source is not None:
        flow["channel_source"] = source
    flow |= {
        "status": status,
        "modified_by": random.choice(people),
        "last_modified_time": zulu(changed),
        "entry_points": [],
        "flow_versions": _versions(random, status, changed, people),
    }
    if status != "draft":
        flow["entry_points"] = [
            _entry_point(random, channel, source, language, numbers)
            for _ in range(random.choices((0, 1, 2, 3), (10, 60, 22, 8))[0])
        ]
    return flow


def _versions(random: Random, status: str, changed: datetime, people: list[str]) -> list[Record]:
    """Invent versions, numbered from 1; a published flow may have a newer draft."""
    published = random.randint(1, 5)
    states = ["archived"] * (published - 1) + [status]
    if status == "published" and random.random() < 0.25:
        states.append("draft")
    versions = []
    for number, state in enumerate(states, 1):
        age = timedelta(days=9 * (len(states) - number), minutes=random.randrange(600))
        versions.append(
            {
                "flow_version_id": _id22(random),
                "flow_version_description": f"Version {number}",
                "flow_version_status": state,
                "flow_version": number,
                "flow_version_modified_by": random.choice(people),
                "flow_version_last_modified_time": zulu(changed - age),
            }
        )
    return versions[::-1]


def _entry_point(
    random: Random, channel: str, source: str | None, language: str, numbers: Iterator[str]
) -> Record:
    entry: Record = {"entry_id": _id22(random)}
    if channel == "voice" or source in ("sms", "whatsapp"):
        entry["entry_number"] = next(numbers)
    elif channel == "email":
        entry["email_address"] = f"desk{random.randrange(1000)}@example.com"
    else:
        entry["entry_name"] = f"{source or channel} {random.randrange(100)}"
    entry["entry_language"] = language
    return entry


def _id22(random: Random) -> str:
    """Invent an id as Zoom writes them: url-safe base64 of 128 bits, without padding."""
    return base64.urlsafe_b64encode(random.randbytes(16)).decode().rstrip("=")


# Flows that the documents allow but naive code does not expect. Every value fits its column.

_TEXTS = (
    "flow_name",
    "flow_description",
    "channel_type",
    "channel",
    "channel_source",
    "status",
    "modified_by",
)
_VERSION = {
    "flow_version_id": "-VersionStartsWithDash",
    "flow_version_description": AWKWARD_NAME,
    "flow_version_status": "debugging",
    "flow_version": 0,
    "flow_version_modified_by": "",
    "flow_version_last_modified_time": "2024-02-29T23:59:59Z",
}


def awkward_flows() -> list[Record]:
    """Return missing, null and empty members; unknown ones; ids that start with `-`."""
    others = ("last_modified_time", "entry_points", "flow_versions")
    return [
        {"flow_id": "awkward-only-an-id-000"},
        {"flow_id": "awkward-all-null-00000", **dict.fromkeys((*_TEXTS, *others))},
        {
            "flow_id": "awkward-empty-strings0",
            **dict.fromkeys(_TEXTS, ""),
            "entry_points": [],
            "flow_versions": [],
        },
        _crowded(),
        {
            # The shape without channel and channel_source, and a sibling's entry point.
            "flow_id": "AWKWARD-EMPTY-STRINGS0",
            "flow_name": "Same id as another except for its case",
            "channel_type": "voice",
            "status": "published",
            "last_modified_time": "2024-02-29T23:59:59Z",
            "entry_points": [{"entry_id": "-e", "entry_number": "+12125550199"}],
            "flow_versions": [{**_VERSION, "flow_version": 2_147_483_647}],
        },
    ]


def _crowded() -> Record:
    return {
        "flow_id": "-StartsWithADash_-____",
        "flow_name": AWKWARD_NAME,
        "flow_description": "x" * 5000,
        "channel_type": "hologram",
        "channel": "work_item",
        "channel_source": "api",
        "status": "retired",
        "modified_by": "-",
        "last_modified_time": "2022-02-15T09:27:15.5Z",
        "entry_points": [
            {"entry_id": "-e"},
            {"entry_id": "null-members", "entry_number": None, "entry_language": None},
            {"entry_id": "empty", "entry_number": "", "email_address": "", "entry_name": ""},
            {"entry_id": "more", "entry_name": AWKWARD_NAME, "added_later": [1, {"a": None}]},
        ],
        "flow_versions": [
            _VERSION,
            {**_VERSION, "flow_version_id": "same-number", "added_later": True},
            {"flow_version_id": "only-an-id"},
        ],
        "added_later": {"nested": [1.5, "two", None]},
        "tags": [],
    }
