"""`callflow sandbox`: the providers' APIs, emulated on this machine."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from etl.commands.output import stderr
from etl.commands.signals import stopping
from etl.config.files import write_own
from etl.config.redact import harmless
from etl.errors import ConfigError, StoppedError
from etl.sandbox import server
from etl.sandbox.data import Sizes

_FIRST_LINE = "# Written by `callflow sandbox --config`, which replaces this file each time."


def run(ports: Sequence[int], flows: int, channels: int, seed: int, path: Path | None) -> int:
    """Serve until a signal comes; print the callflow.toml, or write it to `path`.

    Returns the exit code. Raises ConfigError for a port that there is not, or that is taken, and
    for a file that is not ours.
    """
    for port in ports:
        if not 0 <= port <= 65535:
            raise ConfigError(
                f"there is no port {port}",
                where="--ports",
                advice=f"give {len(ports)} ports, each 0 to 65535",
            )

    def announce(running: server.Sandbox) -> None:
        # What goes to stderr is a comment, so that a file of both streams is still TOML.
        if path is None:
            sys.stdout.write(running.toml())
            sys.stdout.flush()
            how = "Save this as callflow.toml, then `callflow sync`."
        else:
            write_own(path, f"{_FIRST_LINE}\n{running.toml()}")
            how = f"Wrote {path}; then `callflow sync -c {shlex.quote(str(path))}`."
        stderr().print(escape(f"# Serving. {harmless(how)} Ctrl-C ends."))

    try:
        with stopping() as stopped:
            server.run(ports, Sizes(flows, channels), seed, stopped, announce)
    except StoppedError as stop:
        stderr().print("# Stopped by a signal.")
        return stop.exit_code
    return 0
