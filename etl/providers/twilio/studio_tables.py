"""The tables of Studio flows: flows, revisions, and what the definitions say.

What is inside a revision is kept per revision, and what is inside the live one once more, in tables
without a revision in their keys: a step that a new revision leaves as it was is no change.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column

from etl.warehouse.tables import (
    BOOL,
    INT,
    JSON,
    KEY,
    TEXT,
    TIME,
    current,
    field,
    given,
    json_text,
)

_DEFINITION = "flows[].revisions[].definition"
_STATES, _TRANSITIONS = f"{_DEFINITION}.states[]", f"{_DEFINITION}.states[].transitions[]"

_FINDINGS = (
    "unreachable: no path leads there from initial_state; no_start: initial_state is no state;"
    " broken_link: the event's next is no state; loop: it is on a cycle, which is not wrong if a"
    " menu repeats; unreadable: the definition, or the state's transitions, cannot be read. An"
    " event without a next ends the flow, and is no finding."
)


def _flow() -> Column[Any]:
    return given("sid", KEY, "flows[].sid: the flow that the row belongs to.")


def _revision() -> tuple[Column[Any], ...]:
    return _flow(), given("revision", INT, "flows[].revisions[].revision: the revision.")


_ACCOUNT = "Account that owns the flow (AC…)."

studio_flows = current(
    "twilio.studio_flows",
    "Flows of Twilio Studio.",
    field("sid", KEY, "Id of the flow (FW…)."),
    field("account_sid", TEXT, "Account that owns it (AC…)."),
    field("author_sid", TEXT, "User who created it or changed it last (US…)."),
    field("friendly_name", TEXT, "Name."),
    field("status", TEXT, "Status of the newest revision: draft or published."),
    field("revision", INT, "Number of the newest revision."),
    field(
        "live_revision",
        INT,
        "Number of the highest published revision, by the list of revisions; NULL: it was never"
        " published.",
    ),
    field("commit_message", TEXT, "What its author said of the newest revision."),
    field("valid", BOOL, "Whether Twilio finds the newest definition valid."),
    field("webhook_url", TEXT, "URL by which other products of Twilio reach the flow."),
    field("date_created", TIME, "When it was created."),
    field("date_updated", TIME, "When it was changed last; NULL until the first change."),
    field("url", TEXT, "Absolute URL of the resource."),
    keys=1,
    record="flows[]",
    sought_by="sid",
)

studio_flow_revisions = current(
    "twilio.studio_flow_revisions",
    "Revisions of Studio flows, by number: each save makes the next one.",
    _flow(),
    field("revision", INT, "Number of the revision."),
    field("account_sid", TEXT, _ACCOUNT),
    field("status", TEXT, "draft or published."),
    field("author_sid", TEXT, "User who saved it (US…)."),
    field("commit_message", TEXT, "What its author said of it."),
    field("valid", BOOL, "Whether Twilio finds the definition valid."),
    json_text(
        "definition",
        "JSON text of what is inside, of revisions that callflow saw when they were the newest or"
        " the live one; NULL: it was not fetched.",
    ),
    field("date_created", TIME, "When it was created."),
    field("date_updated", TIME, "When it was changed last; NULL until the first change."),
    keys=2,
    record="flows[].revisions[]",
    parent=studio_flows,
    toast=256,  # as alibaba.contact_flows: what reads no definition should not pass over it
)


def _state_columns() -> Sequence[Column[Any]]:
    return (
        field("name", KEY, "Name of the state, unique within its definition."),
        field("type", TEXT, "trigger, split-based-on, send-to-flex, …"),
        given("is_start", BOOL, "Whether the definition's initial_state names it."),
        given("state_index", INT, "Index in the definition's `states`, from 0."),
        field("properties", JSON, "Settings of the state, as sent, without `offset`."),
    )


def _transition_columns() -> Sequence[Column[Any]]:
    return (
        given("name", KEY, f"{_STATES}.name: the state that it leaves."),
        given("position", INT, "Index in the state's `transitions`, from 0."),
        field("event", TEXT, "Event that takes this way: match, callComplete, …"),
        field("next", TEXT, "Name of the state that follows; NULL or empty: the flow ends."),
        field("conditions", JSON, "What has to be true for a match, as sent."),
    )


def _finding_columns() -> Sequence[Column[Any]]:
    return (
        given("name", KEY, "State that it is about; empty: the definition as a whole."),
        given("finding", KEY, _FINDINGS),
        given(
            "event",
            KEY,
            "Event that it is about, up to 128 bytes of it; empty if there is no single one, or if"
            " it has no name.",
        ),
        given(
            "detail",
            TEXT,
            "broken_link: the next that is no state; loop: the states that are on it together, 20"
            " of them at most; otherwise NULL.",
        ),
    )


studio_flow_states = current(
    "twilio.studio_flow_states",
    "States (steps) of a revision, read from its definition.",
    *_revision(),
    *_state_columns(),
    keys=3,
    record=_STATES,
    parent=studio_flow_revisions,
)

studio_flow_transitions = current(
    "twilio.studio_flow_transitions",
    "Transitions between the states of a revision, read from its definition.",
    *_revision(),
    *_transition_columns(),
    keys=4,
    record=_TRANSITIONS,
    parent=studio_flow_states,
)

studio_flow_findings = current(
    "twilio.studio_flow_findings",
    "What is wrong with the graph of a revision's states, and where it repeats.",
    *_revision(),
    *_finding_columns(),
    keys=5,
    record=_DEFINITION,
    parent=studio_flow_revisions,
    derived=True,
)


def _of_the_live_revision(columns: Sequence[Column[Any]]) -> Sequence[Column[Any]]:
    """Return the columns of a table whose rows are those of the live revision's."""
    account = given("account_sid", TEXT, f"flows[].account_sid: {_ACCOUNT}")
    own = (given(column.name, column.type, column.comment or "") for column in columns)
    return _flow(), *own, account


studio_live_states = current(
    "twilio.studio_live_states",
    "States of each flow's live revision: rows of studio_flow_states.",
    *_of_the_live_revision(_state_columns()),
    keys=2,
    record=_STATES,
    parent=studio_flows,
    derived=True,
)

studio_live_transitions = current(
    "twilio.studio_live_transitions",
    "Transitions of each flow's live revision: rows of studio_flow_transitions.",
    *_of_the_live_revision(_transition_columns()),
    keys=3,
    record=_TRANSITIONS,
    parent=studio_live_states,
    derived=True,
)

studio_live_findings = current(
    "twilio.studio_live_findings",
    "Findings about each flow's live revision: rows of studio_flow_findings.",
    *_of_the_live_revision(_finding_columns()),
    keys=4,
    record=_DEFINITION,
    parent=studio_flows,
    derived=True,
)
