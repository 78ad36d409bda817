"""Questions about what happened: what people changed, and which channels flows opened."""

from etl.warehouse.model.contract import FLOW_KEY, IDENTITY, PROVIDER, SOURCE, VALID_FROM, Column
from etl.warehouse.model.question import Question, ago, flow_of, same_flow

_CHANGES = Column("change_count", "bigint", "How many values were changed: rows of changes.")
_NEWEST = Column("newest_at", "timestamptz", "When the newest of them was created.")

CHANGES_PER_WEEK = Question(
    "changes_per_week",
    "How much is changed each week?",
    "Weeks start on Monday, 00:00 UTC, and count by when callflow saw the change. A week without"
    " changes has no row.",
    (
        Column("week", "timestamptz", "Start of the week: Monday, 00:00 UTC."),
        PROVIDER,
        SOURCE,
        _CHANGES,
        Column("flow_count", "bigint", "How many flows were changed."),
    ),
    # date_bin (2001-01-01 is a Monday) depends on no time zone and costs a tenth of date_trunc.
    # Counting rows per flow first, and then these, is faster than counting distinct flows. The week
    # comes second: most rows of a flow differ in it, so the sort hardly compares the other texts.
    f"""
    SELECT week, provider, source, sum(change_count) AS change_count, count(*) AS flow_count
    FROM (SELECT {flow_of("c")}, count(*) AS change_count,
              date_bin('7 days', c.observed_at, '2001-01-01 00:00+00') AS week
          FROM callflow.changes AS c GROUP BY c.flow_id, week, {flow_of("c")}) AS of_flow
    GROUP BY week, provider, source""",
    """
    SELECT week, provider, sum(change_count) AS changes, sum(flow_count) AS flows
    FROM callflow.changes_per_week GROUP BY week, provider ORDER BY week DESC, provider LIMIT 20""",
)

CHANGES_PER_EDITOR = Question(
    "changes_per_editor",
    "Who changes flows, and at which hour of the day?",
    "A NULL modified_by stands for everything of which the provider does not say who did it,"
    " deletions among it.",
    (
        Column("modified_by", "text", "The provider's user id, or the login name of an editor."),
        PROVIDER,
        SOURCE,
        Column(
            "hour_utc",
            "integer",
            "Hour of the day in which it was done, 0 to 23 (UTC), by the provider's clock; NULL:"
            " it does not say.",
        ),
        _CHANGES,
    ),
    """
    SELECT modified_by, provider, source,
        date_part('hour', modified_at AT TIME ZONE 'UTC') AS hour_utc, count(*) AS change_count
    FROM callflow.changes GROUP BY modified_by, provider, source, hour_utc""",
    """
    SELECT modified_by, provider, sum(change_count) AS changes,
           sum(change_count) FILTER (WHERE hour_utc NOT BETWEEN 6 AND 18) AS by_night
    FROM callflow.changes_per_editor GROUP BY modified_by, provider
    ORDER BY changes DESC LIMIT 20""",
)

DELETED_FLOWS = Question(
    "deleted_flows",
    "Which flows were deleted, when, and what were they last?",
    "A flow that was restored is not listed; one that was deleted twice is listed once.",
    (
        *IDENTITY,
        Column("name", "text", "Its last name."),
        Column("description", "text", "Its last description."),
        Column("status", "text", "Its last status, as in callflow.flows."),
        Column("modified_by", "text", "Who changed it last; not who deleted it."),
        Column("modified_at", "timestamptz", "When it was changed last, by the provider's clock."),
        VALID_FROM,
        Column("deleted_at", "timestamptz", "When callflow saw that it was gone (UTC)."),
        FLOW_KEY,
    ),
    f"""
    SELECT {flow_of("gone")}, h.name, h.description, h.status, h.modified_by, h.modified_at,
        h.valid_from, gone.deleted_at
    FROM (SELECT {flow_of("c")}, max(c.observed_at) AS deleted_at
          FROM callflow.changes AS c WHERE c.entity = 'flow' AND c.change = 'deleted'
          GROUP BY {flow_of("c")}) AS gone
    CROSS JOIN LATERAL (SELECT * FROM callflow.flows_history AS each
          WHERE {same_flow("each", "gone")} AND each.valid_to = gone.deleted_at LIMIT 1) AS h
    WHERE NOT EXISTS (SELECT FROM callflow.flows AS f WHERE {same_flow("f", "gone")})""",
    """
    SELECT name, source, status, modified_by, deleted_at
    FROM callflow.deleted_flows ORDER BY deleted_at DESC LIMIT 20""",
)

CHANNELS_BY_FLOW = Question(
    "channels_by_flow",
    "How many channels did each flow open, and how old are they?",
    "Nothing says which of them are still open: closed ones stay in the list. The counts by age"
    " add up to the total, except for channels without a time of creation.",
    (
        *IDENTITY,
        Column("flow_name", "text", "Name of the flow; NULL also where the flow is gone."),
        Column("total", "bigint", "All its channels."),
        Column("up_to_1_day", "bigint", "Created in the last 24 hours."),
        Column("up_to_7_days", "bigint", "More than 1 day, and up to 7 days, ago."),
        Column("up_to_30_days", "bigint", "More than 7 days, and up to 30 days, ago."),
        Column("over_30_days", "bigint", "More than 30 days ago."),
        _NEWEST,
        FLOW_KEY,
    ),
    # An age per row, and grouping by it, would take four times as long.
    f"""
    SELECT {flow_of("c")}, f.name AS flow_name, c.total, c.up_to_1_day, c.up_to_7_days,
        c.up_to_30_days, c.over_30_days, c.newest_at
    FROM (SELECT {flow_of("e")}, count(*) AS total,
              count(*) FILTER (WHERE e.created_at >= {ago(24)}) AS up_to_1_day,
              count(*) FILTER (WHERE e.created_at >= {ago(168)}
                  AND e.created_at < {ago(24)}) AS up_to_7_days,
              count(*) FILTER (WHERE e.created_at >= {ago(720)}
                  AND e.created_at < {ago(168)}) AS up_to_30_days,
              count(*) FILTER (WHERE e.created_at < {ago(720)}) AS over_30_days,
              max(e.created_at) AS newest_at
          FROM callflow.channels AS e GROUP BY {flow_of("e")}) AS c
    LEFT JOIN callflow.flows AS f ON {same_flow("f", "c")}""",
    """
    SELECT coalesce(flow_name, flow_id) AS flow, total, up_to_1_day, up_to_7_days, newest_at
    FROM callflow.channels_by_flow ORDER BY total DESC LIMIT 20""",
)

CHANNELS_WITHOUT_FLOW = Question(
    "channels_without_flow",
    "Which flows are gone although there are channels that they opened?",
    "Channels that name no flow are one row with a NULL flow_id.",
    (
        *IDENTITY,
        Column("channel_count", "bigint", "How many channels."),
        _NEWEST,
        FLOW_KEY,
    ),
    # Grouped first: then flows are looked up once for all their channels.
    f"""
    SELECT {flow_of("c")}, c.channel_count, c.newest_at
    FROM (SELECT {flow_of("e")}, count(*) AS channel_count, max(e.created_at) AS newest_at
          FROM callflow.channels AS e GROUP BY {flow_of("e")}) AS c
    WHERE NOT EXISTS (SELECT FROM callflow.flows AS f WHERE {same_flow("f", "c")})""",
    """
    SELECT source, flow_id, channel_count, newest_at
    FROM callflow.channels_without_flow ORDER BY channel_count DESC LIMIT 20""",
)

QUESTIONS = (
    CHANGES_PER_WEEK,
    CHANGES_PER_EDITOR,
    DELETED_FLOWS,
    CHANNELS_BY_FLOW,
    CHANNELS_WITHOUT_FLOW,
)
