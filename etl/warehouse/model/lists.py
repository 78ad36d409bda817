"""What providers declare for single questions: lists that no view of the contract shows."""

from etl.warehouse.model.contract import (
    ACCOUNT,
    ENTRY_POINT_ID,
    IDENTITY,
    PROVIDER,
    SOURCE,
    VIEWS,
    Column,
    View,
)

FLOWS_REACHED_OTHERWISE = View(
    "flows_reached_otherwise",
    "Flows that contacts reach without an entry point of theirs: from other flows, or from a page.",
    IDENTITY,
    key=(),
)

FLOW_STEP_STRINGS = View(
    "flow_step_strings",
    "Every string in the settings of the steps, those in lists and objects included. A setting"
    " that holds it twice may give two rows.",
    (
        *IDENTITY,
        Column("step_id", "id", "Id of the step within its flow."),
        Column("property", "text", "Name of the setting that holds the string."),
        Column("value", "id", "The string."),
    ),
    key=("step_id", "property", "value"),
)

FLEX_FLOWS_TO_REVIEW = View(
    "flex_flows_to_review",
    "Flex Flows whose settings are odd.",
    (
        *IDENTITY,
        Column("name", "text", "Name of the flow."),
        Column("status", "text", "published or disabled; NULL: it is not known."),
        Column("long_lived", "boolean", "Whether a contact's next chat reuses the channel."),
        Column("janitor_enabled", "boolean", "Whether sessions end with their task."),
        Column("reason", "text", "Why: disabled; long-lived without janitor; or both."),
    ),
    key=(),
)

UNBOUND_NUMBERS = View(
    "unbound_numbers",
    "Phone numbers that reach nothing.",
    (
        PROVIDER,
        SOURCE,
        ACCOUNT,
        Column("number_id", "id", "Id of the number, or the number where it has none."),
        Column("address", "text", "The number, as the provider sent it."),
        Column(
            "address_key",
            "id",
            "The number in a form that compares: digits and +. NULL if the provider masks it.",
        ),
        Column("name", "text", "Name of the number."),
        Column("created_at", "timestamptz", "Since when the account has it."),
        Column(
            "since",
            "timestamptz",
            "When callflow first saw the number as it is (UTC): it reaches nothing since then, at"
            " least.",
        ),
    ),
    key=(),
)

BINDINGS = View(
    "bindings",
    "Entry points that are bound to a flow by another list than that of the flows.",
    (
        *IDENTITY,
        ENTRY_POINT_ID,
        Column("event", "text", "The event of the flow's start that it causes; NULL: any."),
        Column(
            "has_flows", "boolean", "Whether callflow has any flow of the account.", looked_up=True
        ),
    ),
    key=("entry_point_id",),
)

LEGACY_FLOWS = View(
    "legacy_flows",
    "Flows of an API that its provider has announced to end.",
    (
        *IDENTITY,
        Column("name", "text", "Name of the flow."),
        Column("status", "text", "Status of the flow, as in callflow.flows."),
        Column("channel", "text", "Its channel, in the word of the API that ends."),
        Column("contact_identity", "text", "Number, address or name that it answers for."),
        Column("address_type", "text", "The same channel in the word of the API that follows."),
        Column("identity_key", "id", "The identity in a form that compares."),
    ),
    key=(),
)

SUCCESSORS = View(
    "successors",
    "What people made instead of legacy flows.",
    (
        PROVIDER,
        SOURCE,
        ACCOUNT,
        Column("address_id", "id", "Id of the address."),
        Column("address_name", "text", "Name of the address."),
        Column("address_type", "text", "Its channel."),
        Column("is_enabled", "boolean", "Whether it starts something. Never NULL."),
        Column("target_kind", "text", "What it starts, as in callflow.entry_points."),
        Column("target", "id", "Id of what it starts, as in callflow.entry_points."),
        Column("identity_key", "id", "The address in a form that compares."),
    ),
    key=("address_id",),
)

LISTS = (
    FLOWS_REACHED_OTHERWISE,
    FLOW_STEP_STRINGS,
    FLEX_FLOWS_TO_REVIEW,
    UNBOUND_NUMBERS,
    BINDINGS,
    LEGACY_FLOWS,
    SUCCESSORS,
)
"""What providers declare for single questions: parts whose rows only the question's view shows."""


def named(name: str) -> View:
    """Return the view or list called `name`. Raises KeyError where there is none."""
    return {view.name: view for view in (*VIEWS, *LISTS)}[name]
