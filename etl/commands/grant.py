"""`callflow grant`: read-only rights for a role."""

import os
from typing import Annotated

import typer
from rich.markup import escape
from sqlalchemy import Engine

from etl.commands.access import warehouse
from etl.commands.options import ConfigPath, load
from etl.commands.output import note, stderr, stdout
from etl.warehouse import embedded
from etl.warehouse import grant as roles
from etl.warehouse.connect import embedded_server
from etl.warehouse.roles import ADMIN
from etl.warehouse.translate import translate_errors


def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="An existing role of the warehouse.")],
    path: ConfigPath = None,
) -> None:
    """Give a Postgres role the read-only rights that BI tools need.

    Prints the SQL that only an administrator can run. Exits 0 if the role can read everything, even
    if its time zone and time limit are left to an administrator; 1 if it cannot.
    """
    settings, redact = load(context, path)
    with warehouse(settings, redact) as engine, translate_errors("grant", redact):
        if settings.warehouse.url is not None:
            with engine.begin() as connection:
                grants = roles.grant(connection, role)
        else:
            grants = _grant_on_embedded(embedded_server(settings, os.environ), engine, role)
    if grants.reads:
        schemas = ", ".join(roles.READABLE)
        stdout().print(
            f"{escape(role)} can read the schemas {schemas}, and what migrations will add to them."
        )
    if grants.left:
        note("the rest needs an administrator; these statements are for psql, in this database:")
        for statement in grants.left:
            stderr().print(f"  {escape(statement)};")
    raise typer.Exit(0 if grants.reads else 1)


def _grant_on_embedded(server: embedded.Server, engine: Engine, role: str) -> roles.Grants:
    """Grant as the owner, who cannot change roles, then run the rest as the administrator."""

    def create(statement: str) -> str:
        return f"with: {server.psql(ADMIN, '-c', statement)}"

    with engine.begin() as connection:
        grants = roles.grant(connection, role, create=create)
    embedded.administer(server, grants.left)
    return roles.Grants(True, ())
