"""Records by the name that people know them by: whom a message, a list or a page is about."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, text

from etl.load.merge import is_one_of, quoted, quoted_table
from etl.load.stage import join_by_hash
from etl.warehouse import tables
from etl.warehouse.tables import Key

LISTED = 100
"""How many records of a list are named; its total says how many there are."""

LONGEST = 1000
"""Characters of a name; a longer one ends with "…"."""


@dataclass(frozen=True, slots=True)
class Named:
    """A record by its key (without source) and its name, as the provider sent it.

    `name`   None if the provider has none for it.
    `fields` of one that changes: the columns, and the tables of its children, that do.
    """

    key: Key
    name: str | None
    fields: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Return its key as one text, as in `flow_key` after the source: "ccc-test/flow-1"."""
        return "/".join(self.key)


@dataclass(frozen=True, slots=True)
class Listing:
    """The first LISTED of some records, by name, and how many there are."""

    total: int = 0
    records: Sequence[Named] = ()


def name_of(name: str) -> str:
    """Return the SQL of a name that is not too long; `name` is SQL, as `declare.name_sql` has it.

    The column is called `shown`.
    """
    return f"""CASE WHEN length({name}) > {LONGEST} THEN left({name}, {LONGEST - 1}) || '…'
        ELSE {name} END AS shown"""


def listing(
    connection: Connection, source: str, table: Table, name: str, keys: Sequence[Key]
) -> Listing:
    """Return which records of a current table have one of the `keys`, and how many keys there are.

    `name` is SQL over a row `r` of the table.
    """
    if not keys:
        return Listing()
    join_by_hash(connection)
    columns = tables.key_columns(table)
    theirs, arrays = is_one_of(keys, columns, "r.")
    query = f"""
        SELECT {quoted(columns, "r.")}, {name_of(name)} FROM {quoted_table(table)} AS r
        WHERE r.source = :source AND {theirs}
        ORDER BY shown NULLS LAST, {quoted(columns, "r.")} LIMIT {LISTED}"""
    rows = connection.execute(text(query), {"source": source, **arrays})
    return Listing(len(keys), [Named(tuple(key), shown) for *key, shown in rows])
