"""How a migration makes a table of current rows together with the table of its history.

Frozen: migrations call it, and what a migration makes must never change. If the shape of such
tables changes, add a second function here and let later migrations call that.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

KEY = sa.Text(collation="C")
TEXT = sa.Text()
TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(none_as_null=True)

Columns = Sequence[tuple[str, TypeEngine[Any]]]
"""Names and types."""


def create_versioned(
    name: str, keys: Columns, columns: Columns, parent: tuple[str, int] | None = None
) -> None:
    """Make the table `name` ("schema.table") and its history, history.schema_table.

    The key is `source` and `keys`; `columns` can be NULL. `parent` is the table whose rows own
    these, and how many of `keys` are its key.
    """
    schema, table = name.split(".")
    key_names = ["source", *(key for key, _ in keys)]
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


def _columns(keys: Columns, columns: Columns) -> list[sa.Column[Any]]:
    return [
        *(sa.Column(name, kind, nullable=False) for name, kind in (("source", KEY), *keys)),
        *(sa.Column(name, kind) for name, kind in (*columns, ("extra", JSON))),
        sa.Column("valid_from", TIME, nullable=False),
    ]


def drop_versioned(name: str) -> None:
    """Drop the table `name` ("schema.table") and its history."""
    schema, table = name.split(".")
    op.drop_table(table, schema=schema)
    op.drop_table(f"{schema}_{table}", schema="history")
