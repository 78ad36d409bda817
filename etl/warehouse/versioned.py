"""How a migration makes a table of current rows together with the table of its history.

Frozen: migrations call it, and what a migration makes must never change. If the shape of such
tables changes, add a second function here and let later migrations call that.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

KEY = sa.Text(collation="C")
TEXT = sa.Text()
TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(none_as_null=True)

KINDS: dict[str, TypeEngine[Any]] = {
    "int": sa.Integer(),
    "bool": sa.Boolean(),
    "time": TIME,
    "json": JSON,
}


def create_versioned(
    name: str, keys: str, columns: str, parent: tuple[str, int] | None = None
) -> None:
    """Make the table `name` ("schema.table") and its history, history.schema_table.

    The key is `source` and `keys`; `columns` can be NULL. Both are names with blanks between them,
    each with its type after a colon unless that is text: "flow_name versions:int". `parent` is the
    table whose rows own these, and how many of `keys` are its key.
    """
    schema, table = name.split(".")
    key_names = ["source", *(key.partition(":")[0] for key in keys.split())]
    constraints: list[sa.Constraint] = [
        sa.PrimaryKeyConstraint(*key_names, name=f"{table}_pkey"),
    ]
    if parent is not None:
        owner, shared = parent[0], key_names[: parent[1] + 1]
        constraints.append(
            sa.ForeignKeyConstraint(
                shared,
                [f"{owner}.{column}" for column in shared],
                name=f"{table}_{owner.partition('.')[2]}",
            )
        )
    op.create_table(
        table,
        *_columns(keys, columns),
        *constraints,
        schema=schema,
        # A tenth of each page stays free, so that updates stay on their page (HOT).
        postgresql_with={"fillfactor": 90},
    )
    op.create_table(
        f"{schema}_{table}",
        *_columns(keys, columns),
        sa.Column("valid_to", TIME, nullable=False),
        sa.PrimaryKeyConstraint(*key_names, "valid_from", name=f"{schema}_{table}_pkey"),
        schema="history",
    )


def _columns(keys: str, columns: str) -> list[sa.Column[Any]]:
    return [
        *(_column(key, KEY, nullable=False) for key in ("source", *keys.split())),
        *(_column(column, TEXT) for column in (*columns.split(), "extra:json")),
        sa.Column("valid_from", TIME, nullable=False),
    ]


def _column(spelt: str, text: TypeEngine[Any], *, nullable: bool = True) -> sa.Column[Any]:
    name, _, kind = spelt.partition(":")
    return sa.Column(name, KINDS[kind] if kind else text, nullable=nullable)


def drop_versioned(name: str) -> None:
    """Drop the table `name` ("schema.table") and its history."""
    schema, table = name.split(".")
    op.drop_table(table, schema=schema)
    op.drop_table(f"{schema}_{table}", schema="history")
