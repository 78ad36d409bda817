"""`callflow grant`: read-only rights for a role, and a schema to write to."""

import os
from typing import Annotated

import typer
from rich.markup import escape
from sqlalchemy import Engine

from etl.commands.access import warehouse
from etl.commands.options import ConfigPath, load
from etl.commands.output import note, stderr, stdout
from etl.config.redact import harmless
from etl.warehouse import embedded
from etl.warehouse import grant as roles
from etl.warehouse.connect import embedded_server
from etl.warehouse.roles import ADMIN
from etl.warehouse.translate import translate_errors


def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="An existing role of the warehouse.")],
    writes: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA", help="Also give it this schema to write to, as dbt does; made if new."
        ),
    ] = None,
    path: ConfigPath = None,
) -> None:
    """Give a Postgres role the read-only rights that BI tools need.

    Sets the role's time zone to UTC, its time limit to 5 minutes, and jit off. Prints the SQL that
    only an administrator can run. Exits 0 if the role can read everything (with --writes: and write
    to that schema), even if its settings are left to an administrator; 1 if it cannot.
    """
    settings, redact = load(context, path)
    with warehouse(settings, redact) as engine, translate_errors("grant", redact):
        if settings.warehouse.url is not None:
            with engine.begin() as connection:
                grants = roles.grant(connection, role, writes=writes)
        else:
            server = embedded_server(settings, os.environ)
            grants = _grant_on_embedded(server, engine, role, writes)
    if grants.reads:
        schemas = ", ".join(roles.READABLE)
        who = escape(harmless(role))
        stdout().print(
            f"{who} can read the schemas {schemas}, and what migrations will add to them."
        )
    if writes is not None and grants.writes:
        stdout().print(
            f"{escape(harmless(role))} can write to the schema {escape(harmless(writes))}."
        )
    if grants.left:
        note("the rest needs an administrator; these statements are for psql, in this database:")
        for statement in grants.left:
            stderr().print(f"  {escape(harmless(statement))};")
    raise typer.Exit(0 if grants.reads and grants.writes else 1)


def _grant_on_embedded(
    server: embedded.Server, engine: Engine, role: str, writes: str | None
) -> roles.Grants:
    """Grant as the owner, who cannot change roles, then run the rest as the administrator."""

    def create(statement: str) -> str:
        return f"with: {server.psql(ADMIN, '-c', statement)}"

    with engine.begin() as connection:
        grants = roles.grant(connection, role, writes=writes, create=create)
    embedded.administer(server, grants.left)
    return roles.Grants(reads=True, writes=True, left=())
