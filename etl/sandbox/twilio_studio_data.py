"""Generated and awkward Studio flows of Twilio: their revisions and definitions."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random

from etl.sandbox import twilio_studio
from etl.sandbox.data import (
    AWKWARD_NAME,
    LANGUAGES,
    NEWEST,
    Record,
    any_language,
    name,
    past,
    zulu,
)

_TRIGGERS = (
    "incomingMessage",
    "incomingCall",
    "incomingConversationMessage",
    "incomingRequest",
    "incomingParent",
)


@dataclass(frozen=True, slots=True)
class _Account:
    """What the flows of an account refer to."""

    flows: Sequence[str]
    workflows: Sequence[str]
    channels: Sequence[str]
    authors: Sequence[str]
    service: str
    function: str


def studio_flows(random: Random, count: int, account_sid: str) -> list[Record]:
    """Invent stored Studio flows of all kinds, by twilio_studio.py: the newest revision last.

    Of eight flows one is a draft that was never published, one has unpublished changes, one is
    called by others; a few of twenty have a fault in their definition.
    """
    account = _Account(
        flows=[_sid(random, "FW") for _ in range(max(count, len(_KINDS)))],
        workflows=[_sid(random, "WW") for _ in range(4)],
        channels=[_sid(random, "TC") for _ in range(2)],
        authors=[_sid(random, "US") for _ in range(5)],
        service=_sid(random, "ZS"),
        function=_sid(random, "ZH"),
    )
    return [_flow(random, number, account, account_sid) for number in range(count)]


def _flow(random: Random, number: int, account: _Account, account_sid: str) -> Record:
    kind = _KINDS[number % len(_KINDS)]
    language = any_language(random)
    definition = kind(random, account, LANGUAGES[language])
    fault = _FAULTS.get(number % 20)
    moment = past(random)
    stored = twilio_studio.flow(
        account.flows[number], account_sid, name(random, language), zulu(moment)
    )
    statuses = _STATUSES.get(number % len(_KINDS)) or ["published"] * random.randint(1, 3)
    for status in statuses:
        if stored["revisions"]:
            definition = rewired(definition)
            moment += (NEWEST - moment) * random.random()
        stored = twilio_studio.saved(
            stored,
            fault(definition) if fault else definition,
            zulu(moment),
            status=status,
            author_sid=random.choice(account.authors),
            commit_message=random.choice((None, "Opening hours", "New menu", "Wording")),
        )
    return stored


def rewired(definition: Record) -> Record:
    """Return a definition with one announcement more, right after its trigger."""
    content = deepcopy(definition)
    notice = f"notice_{len(content['states'])}"
    way = next((each for each in content["states"][0]["transitions"] if each.get("next")), None)
    if way is None:
        content["states"][0]["properties"]["offset"]["y"] += 10
        return content
    said = {"say": "Please note our new opening hours.", "loop": 1}
    content["states"].append(_state(notice, "say-play", {"audioComplete": way["next"]}, said))
    way["next"] = notice
    return content


def _state(
    called: str, kind: str, ways: dict[str, str | None], properties: Record, x: int = 0
) -> Record:
    """Return a state; an event whose way is None ends the flow and has no `next`."""
    return {
        "name": called,
        "type": kind,
        "transitions": [
            {"event": event} if following is None else {"next": following, "event": event}
            for event, following in ways.items()
        ],
        "properties": {"offset": {"x": x, "y": 0}, **properties},
    }


def _definition(what: str, ways: dict[str, str], *states: Record) -> Record:
    """Return a definition whose trigger leads where `ways` say."""
    trigger = _state("Trigger", "trigger", {each: ways.get(each) for each in _TRIGGERS}, {})
    every = [trigger, *states]
    for row, state in enumerate(every):
        state["properties"]["offset"]["y"] = row * 230 - 10
    return {
        "description": what,
        "states": every,
        "initial_state": "Trigger",
        "flags": {"allow_concurrent_calls": True},
    }


def _to_flex(
    random: Random, account: _Account, channel: int, called: str = "send_to_flex"
) -> Record:
    return _state(
        called,
        "send-to-flex",
        dict.fromkeys(("callComplete", "failedToEnqueue", "callFailure")),
        {
            "workflow": random.choice(account.workflows),
            "channel": account.channels[channel],
            "attributes": '{"selected_queue": "{{flow.variables.queue}}"}',
        },
        x=400,
    )


def _split(called: str, value: str, ways: dict[str, str], otherwise: str) -> Record:
    """Return a split: `ways` from a text that the value equals to the state that follows."""
    split = _state(called, "split-based-on", {"noMatch": otherwise}, {"input": value})
    for text, following in ways.items():
        condition = {
            "friendly_name": f"If value equal_to {text}",
            "arguments": [value],
            "type": "equal_to",
            "value": text,
        }
        split["transitions"].append(
            {"next": following, "event": "match", "conditions": [condition]}
        )
    return split


_Words = tuple[tuple[str, ...], tuple[str, ...], str]


def _voice_menu(random: Random, account: _Account, words: _Words) -> Record:
    """Greet, ask for a key, again until one is known; queues, a subflow, a voicemail."""
    departments, _, greeting = words
    queues = {str(key): f"set_{key}" for key in range(1, random.randint(3, 4))}
    calls = account.flows[5]
    return _definition(
        "Main menu",
        {"incomingCall": "greeting"},
        _state("greeting", "say-play", {"audioComplete": "menu"}, {"say": greeting, "loop": 1}),
        _state(
            "menu",
            "gather-input-on-call",
            {"keypress": "which_key", "speech": "which_key", "timeout": "leave_message"},
            {"say": ", ".join(departments[:3]), "number_of_digits": 1, "timeout": 5},
        ),
        _split("which_key", "{{widgets.menu.Digits}}", queues | {"9": "survey"}, "menu"),
        *(
            _state(
                state,
                "set-variables",
                {"next": "send_to_flex"},
                {"variables": [{"key": "queue", "value": departments[int(key) - 1]}]},
                x=200,
            )
            for key, state in queues.items()
        ),
        _state(
            "survey",
            "run-subflow",
            {"completed": "send_to_flex", "failed": "send_to_flex"},
            {"flow_sid": calls, "flow_revision": "LatestPublished", "parameters": []},
            x=600,
        ),
        _to_flex(random, account, 0),
        _state(
            "leave_message",
            "record-voicemail",
            dict.fromkeys(("recordingComplete", "noAudio", "hangup")),
            {"transcribe": False, "play_beep": "true", "timeout": 5, "max_length": 180},
            x=800,
        ),
    )


def _schedule(random: Random, account: _Account, words: _Words) -> Record:
    """Ask a function whether the centre is open; enqueue the call, or say that it is closed."""
    return _definition(
        "Opening hours",
        {"incomingCall": "check_hours"},
        _state(
            "check_hours",
            "run-function",
            {"success": "is_open", "fail": "enqueue"},
            {
                "service_sid": account.service,
                "environment_sid": None,
                "function_sid": account.function,
                "parameters": [{"key": "line", "value": words[0][0]}],
                "url": "https://hours.example.com/check",
            },
        ),
        _split(
            "is_open", "{{widgets.check_hours.parsed.isOpen}}", {"true": "enqueue"}, "say_closed"
        ),
        _state("say_closed", "say-play", {"audioComplete": None}, {"say": words[2], "loop": 1}),
        _state(
            "enqueue",
            "enqueue-call",
            dict.fromkeys(("callComplete", "failedToEnqueue", "callFailure")),
            {"workflow_sid": random.choice(account.workflows), "task_attributes": "{}"},
            x=400,
        ),
    )


def _messaging(random: Random, account: _Account, words: _Words) -> Record:
    """Ask what a conversation is about, until an answer is known; look the sender up."""
    departments, _, greeting = words
    first, second = departments[:2]
    return _definition(
        "Messages",
        {"incomingConversationMessage": "welcome", "incomingMessage": "welcome"},
        _state(
            "welcome",
            "send-and-wait-for-reply",
            {"incomingMessage": "look_up", "timeout": None, "deliveryFailure": "welcome"},
            {"body": greeting, "from": "{{flow.channel.address}}", "timeout": "3600"},
        ),
        _state(
            "look_up",
            "make-http-request",
            {"success": "select_queue", "failed": "select_queue"},
            {
                "method": "GET",
                "content_type": "application/json;charset=utf-8",
                "url": f"https://crm{random.randrange(5)}.example.com/find?key=invented",
            },
        ),
        _split(
            "select_queue",
            "{{widgets.welcome.inbound.Body}}",
            {first: "send_to_flex", second: "send_to_flex"},
            "welcome",
        ),
        _to_flex(random, account, 1),
    )


def _subflow(random: Random, account: _Account, words: _Words) -> Record:
    """Be called by other flows: ask one question, and hand over to a flow chosen at run time."""
    return _definition(
        "Survey",
        {"incomingParent": "question", "incomingRequest": "question"},
        _state(
            "question",
            "gather-input-on-call",
            {"keypress": "what_next", "speech": None, "timeout": None},
            {"say": words[1][-1], "number_of_digits": 1, "timeout": 5},
        ),
        _state(
            "what_next",
            "run-subflow",
            {"completed": None, "failed": None},
            {"flow_sid": "{{flow.variables.next_flow}}", "flow_revision": "LatestPublished"},
        ),
    )


def _callback(random: Random, account: _Account, words: _Words) -> Record:
    """Send every call to an agent, who may have asked for a call back."""
    return _definition("Callback", {"incomingCall": "send_to_flex"}, _to_flex(random, account, 0))


_KINDS: tuple[Callable[[Random, _Account, _Words], Record], ...] = (
    _voice_menu,
    _schedule,
    _messaging,
    _voice_menu,
    _schedule,
    _subflow,
    _messaging,
    _callback,
)


_STATUSES = {3: ["draft", "draft"], 4: ["published", "draft"]}
"""The revisions of two of the kinds: one was never published, one has unpublished changes."""


def _with(definition: Record, *states: Record, **ways: str) -> Record:
    """Return a definition with more states, and more events at the state after its trigger."""
    content = deepcopy(definition)
    content["states"] += states
    content["states"][1]["transitions"] += [
        {"event": event, "next": following} for event, following in ways.items()
    ]
    return content


def _apart(called: str) -> Record:
    said = {"say": "This number is no longer in service.", "loop": 1}
    return _state(called, "say-play", {"audioComplete": None}, said, x=900)


_FAULTS: dict[int, Callable[[Record], Record]] = {
    9: lambda definition: _with(definition, _apart("old_notice")),
    14: lambda definition: _with(definition, failed="say_sorry"),
    17: lambda definition: _with(
        definition,
        _state(
            "old_survey",
            "run-subflow",
            {"completed": None, "failed": None},
            {"flow_sid": "FW" + "d" * 32, "flow_revision": "LatestPublished"},
            x=900,
        ),
        repeat="old_survey",
    ),
}
"""Which of twenty flows has which fault: a state that nothing leads to, a next that is no state, a
call of a flow that is gone. None of a small list."""


def _sid(random: Random, kind: str) -> str:
    return f"{kind}{random.getrandbits(128):032x}"


# Flows that the documents allow but naive code does not expect. Every value fits its column.

_ODD_DEFINITIONS: tuple[object, ...] = (
    None,
    "",
    "text",
    [],
    {},
    {"initial_state": "Trigger"},  # the document's own example
    {"states": None, "initial_state": None},
    {"states": {"Trigger": {}}, "initial_state": "Trigger"},
    {"states": [None, 5, {}, {"name": "a"}, {"name": None, "type": None}], "initial_state": "a"},
    {
        "states": [
            {"name": "a", "type": "added-later", "transitions": None, "properties": None},
            {"name": "b", "type": 5, "transitions": [None, {}, {"event": None, "next": None}]},
            {"name": "a", "type": "say-play", "transitions": [], "properties": {"offset": 1}},
            {"name": AWKWARD_NAME, "transitions": [{"event": "x", "next": "", "added": [1]}]},
        ],
        "initial_state": "a",
        "added_later": {"x": 1},
    },
    {
        "states": [
            {"name": "again", "type": "split-based-on", "transitions": [
                {"event": "noMatch", "next": "again", "conditions": []},
                {"event": "match", "next": "gone", "conditions": [{"arguments": None}]},
                {"event": "match", "next": "again"},
            ]},
        ],
        "initial_state": "not there",
    },
    {
        "states": [
            {"type": "InitialState", "name": "Trigger", "transitions": [
                {"event": "incomingCall", "conditions": [], "next": "FF1", "uuid": "u1"},
            ], "properties": {"flow_url": "https://webhooks.example.com/v1/Flows/FW1"}},
            {"type": "SayPlay", "name": "FF1", "transitions": [], "properties": {"say": "hi"}},
        ],
        "initial_state": "Trigger",
    },
    {
        "states": [
            {"name": "all", "type": kind, "transitions": [], "properties": dict.fromkeys(
                ("workflow", "channel", "flow_sid", "function_sid", "url", "workflow_sid"),
                "{{flow.variables.x}}",
            )}
            for kind in ("send-to-flex", "run-subflow", "run-function", "make-http-request")
        ],
        "initial_state": "all",
    },
)  # fmt: skip


def awkward_studio_flows() -> list[Record]:
    """Return stored flows with odd definitions, members that are null or missing, odd revisions."""
    account = "AC" + "5" * 32

    def sid(number: int) -> str:
        return f"FW{number:032x}"

    odd = [
        twilio_studio.saved(
            twilio_studio.flow(sid(number), account, "", "2023-05-04T09:42:00+00:00"),
            definition,
            "2023-05-04T09:42:00+00:00",
            status="published",
            valid=None,
            errors=None,
        )
        for number, definition in enumerate(_ODD_DEFINITIONS, 1)
    ]
    names = odd[0].keys() - {"sid", "revisions"}
    return [
        *odd,
        {"sid": sid(101)},
        {**dict.fromkeys(names), "sid": sid(102), "revisions": [{"revision": 7}]},
        {"sid": sid(103), "status": "added-later", "revision": 3, "friendly_name": AWKWARD_NAME},
        {
            "sid": "FW" + "ABCDEF01" * 4,
            "added_later": 1,
            "revisions": [
                {"revision": 2, "status": "draft", "definition": {}, "added_later": [1]},
                {"revision": 9, "status": "draft", "definition": {}},
                {"revision": 4, "status": "published", "definition": {}},
            ],
        },
    ]
