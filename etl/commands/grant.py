"""`callflow grant`: read-only rights for a role, and a schema to write to."""

import os

from rich.markup import escape
from sqlalchemy import Engine

from etl.commands.access import warehouse
from etl.commands.output import note, stderr, stdout
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings
from etl.warehouse import embedded
from etl.warehouse import grant as roles
from etl.warehouse.connect import embedded_server
from etl.warehouse.roles import ADMIN
from etl.warehouse.translate import translate_errors


def run(settings: Settings, redact: Redactor, role: str, writes: str | None) -> int:
    """Give `role` the rights, and the schema `writes`; return the exit code."""
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
    return 0 if grants.reads and grants.writes else 1


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
