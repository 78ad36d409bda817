"""`callflow migrate`: bring the warehouse's schema up to date."""

import os

from etl.commands.output import note, stdout
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.sync.rebuild import rebuild_changes as rebuild
from etl.warehouse import migrate
from etl.warehouse.connect import connect, database_url
from etl.warehouse.denied import suggest_grants


def run(settings: Settings, redact: Redactor, *, rebuild_changes: bool) -> None:
    """Migrate the schema, or create it; also write the log of changes again if that is asked."""
    url = database_url(settings, os.environ, note)
    before = migrate.upgrade(url)
    done = {"head": "is already up to date", "empty": "was created", "behind": "was migrated"}
    stdout().print(f"The schema {done[before]}.")
    if rebuild_changes:
        engine = connect(url)
        try:
            with suggest_grants(engine, "migrate", redact), engine.begin() as connection:
                count = rebuild(connection)
        finally:
            engine.dispose()
        rows = f"{count:,} row{'' if count == 1 else 's'}"
        stdout().print(f"The log of changes was rebuilt from the histories: it has {rows}.")
