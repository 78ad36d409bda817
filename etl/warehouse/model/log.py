"""What is seen of the log of changes, and of the books: changes, flow_diff and freshness."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Table

from etl.warehouse import tables
from etl.warehouse.model import moment
from etl.warehouse.model.assemble import as_of, expressions, typed
from etl.warehouse.model.changes import statements
from etl.warehouse.model.contract import CHANGES, FLOW_KEY_SQL, FLOWS, FRESHNESS
from etl.warehouse.model.definition import Definition, FunctionDefinition, ViewDefinition
from etl.warehouse.model.part import Part
from etl.warehouse.model.span import Span


def of_log(parts: Sequence[tuple[str, Part]]) -> Iterator[Definition]:
    """Yield the views on the log and on the books, and the function that compares two moments."""
    yield ViewDefinition(
        "callflow.changes",
        "Who changed what, and when? One row per changed value of a flow, its versions, entry"
        " points and steps. What was there when a list was first read is no change.",
        {column.name: column.comment for column in CHANGES},
        _changes,
    )
    yield _flow_diff(parts)
    yield ViewDefinition(
        "callflow.freshness",
        "How old are the data? One row per list of a source. It says how things are now, whatever"
        " callflow.at is.",
        {column.name: column.comment for column in FRESHNESS},
        _freshness,
    )


def _changes(names: Sequence[str]) -> str:
    """Return the query of callflow.changes: all of them, or those up to `callflow.at`."""
    given = {"flow_key": FLOW_KEY_SQL}
    columns = {column.name: column for column in CHANGES}
    listed = ", ".join(f"{typed(given.get(name, name), columns[name])} AS {name}" for name in names)
    return (
        f"SELECT {listed} FROM {tables.changes.fullname} WHERE {moment.NAME} IS NULL"
        f" UNION ALL SELECT {listed} FROM {moment.JOINED} CROSS JOIN {tables.changes.fullname}"
        f" WHERE {moment.NAME} IS NOT NULL AND observed_at <= moment.at"
    )


def _freshness(names: Sequence[str]) -> str:
    given = {
        "age_seconds": "floor(extract(epoch FROM now() - last_success_at))",
        "last_error": "error",
        "row_count": "rows",
        "last_change_at": "changed_at",
    }
    columns = {column.name: column for column in FRESHNESS}
    listed = ", ".join(f"{typed(given.get(name, name), columns[name])} AS {name}" for name in names)
    return f"SELECT {listed} FROM {tables.streams.fullname}"


def _flow_diff(parts: Sequence[tuple[str, Part]]) -> Definition:
    """Return the function that compares a flow at two moments.

    It is PL/pgSQL so that only the queries of a provider that has the flow are planned, and once
    per session: all of them together take Postgres longer to plan than to run.
    """
    loops = []
    for provider, flows in parts:
        if flows.view == FLOWS.name:
            own = [each for _, each in parts if tables.root(each.table) is flows.table]
            keys = ", ".join(f"r.{name}" for name in tables.key_columns(flows.table))
            loops.append(f"""
  FOR wanted IN SELECT DISTINCT {keys} FROM {flows.table.fullname}_history AS r
      WHERE r.source = $1 AND {flows.columns["flow_id"]} = $2 LOOP
    RETURN QUERY {_differences(provider, own, _between(_same_keys(flows.table)))};
  END LOOP;""")
    for provider, part in parts:
        if part.flows is not None:
            loops.append(f"""
  IF EXISTS (SELECT FROM {part.table.fullname}_history AS r
      WHERE r.source = $1 AND {expressions(provider, part)["flow_id"]} = $2) THEN
    RETURN QUERY SELECT * FROM ({_differences(provider, [part], _between())}) AS found
      WHERE found.flow_id = $2;
  END IF;""")
    return FunctionDefinition(
        "callflow.flow_diff",
        "What is different in a flow between two moments? Its arguments are source, flow_id, from"
        " and to; its rows are those of callflow.changes. A value that went back is no difference.",
        "source text, flow_id text, from_moment timestamptz, to_moment timestamptz",
        "SETOF callflow.changes",
        f"\n#variable_conflict use_column\nDECLARE\n  wanted record;\nBEGIN{''.join(loops)}\nEND\n",
        "plpgsql",
    )


def _differences(provider: str, parts: Sequence[Part], span: Span) -> str:
    listed = ", ".join(f"found.{column.name}" for column in CHANGES if column.name != "flow_key")
    return " UNION ALL ".join(
        f'SELECT {listed}, ({FLOW_KEY_SQL}) COLLATE "C" AS flow_key FROM ({statement}) AS found'
        for statement in statements(provider, parts, span)
    )


def _same_keys(flows: Table) -> str:
    return " AND ".join(f"each.{name} = wanted.{name}" for name in tables.key_columns(flows))


def _between(same: str = "true") -> Span:
    """Return the versions of source $1 as of the moments $3 and $4 of which `same` is true."""

    def version(table: Table, at: str) -> str:
        columns = ", ".join(f"each.{column.name}" for column in table.columns)
        return (
            f"SELECT {columns}, each.valid_to, $4 AS at FROM {table.fullname}_history AS each"
            f" WHERE each.source = $1 AND {same} AND {as_of('each', at)}"
        )

    return Span(
        old=lambda table: version(table, "$3"),
        new=lambda table: version(table, "$4"),
        versions=lambda table: f"{table.fullname}_history",
        before=lambda row, _: as_of(row, "$3"),
        after=lambda row, _: as_of(row, "$4"),
        earlier=lambda _: "$3",
        observed="CASE WHEN n.source IS NULL THEN o.valid_to ELSE n.valid_from END",
        link_observed="coalesce(greatest(now_there.latest, was_there.ended), touched.at)",
        # What was saved is no difference if a value was changed meanwhile, and went back.
        is_news="""(found.field IS DISTINCT FROM 'saved' OR NOT EXISTS (
            SELECT FROM callflow.changes AS between_them
            WHERE between_them.source = $1 AND between_them.flow_id = $2
                AND between_them.provider = found.provider
                AND between_them.account_id IS NOT DISTINCT FROM found.account_id
                AND between_them.entity = found.entity AND between_them.entity_id = found.entity_id
                AND between_them.field IS DISTINCT FROM 'saved'
                AND between_them.observed_at > $3 AND between_them.observed_at <= $4))""",
    )
