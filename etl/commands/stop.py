"""`callflow stop`: stop the embedded Postgres."""

import os
from contextlib import suppress

from etl.commands.access import leader_on
from etl.commands.output import note, stdout
from etl.config.settings import Settings
from etl.errors import ConfigError
from etl.warehouse import embedded


def run(settings: Settings) -> None:
    """Stop the server of the configured directory; raise ConfigError if it is not ours."""
    if settings.warehouse.url is not None:
        raise ConfigError(
            "warehouse.url names a server that callflow did not start",
            where="stop",
            advice="stop it where it runs",
        )
    data_dir = settings.warehouse.data_dir or embedded.default_data_dir()
    with suppress(Exception):  # this is only a note; without it the server can still be stopped
        if leader := leader_on(settings, data_dir):
            note(f"the daemon {leader} leads and will start it again → end it first")
    running = embedded.stop(data_dir, env=os.environ)
    stdout().print("Stopped." if running else "It was not running.")
